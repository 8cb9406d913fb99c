//! What the pool does about lanes at its owner's or the maintenance's order. The rules: `core/lanes.rs`.

use std::sync::Arc;

use super::core::LaneCounts;
use super::traits::Dial;
use super::{Delivery, Slots};
use crate::clock::now;
use crate::policy::PerLane;

impl<D: Dial> Slots<D> {
    /// Opens the lanes now, with their guarantees and limits. Otherwise the first caller that names a lane opens them.
    pub(crate) fn open_lanes(&self) {
        self.lock().core.open_lanes();
    }

    /// Sets the share of its limit that `Background` may use, from 0 to 1.
    pub(crate) fn set_background_share(self: &Arc<Self>, share: f64) {
        self.lock().core.set_background_share(share);
        self.dial_what_is_wanted();
    }

    /// What each lane may use and uses. `None` if no caller has named a lane.
    pub(crate) fn lane_counts(&self) -> Option<PerLane<LaneCounts>> {
        self.lock().core.lane_counts(now())
    }

    /// Hands idle connections to waiters whose lanes may use more of them by now.
    pub(super) fn hand_idle(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            let Some(placed) = state.core.hand_idle(now()) else {
                let check = if state.core.may_owe() { state.core.begin_due_check(now()) } else { None };
                drop(state);
                return self.spawn_check(check);
            };
            let delivery = self.placed(&mut state, placed);
            drop(state);
            if let Some(delivery) = delivery {
                Arc::clone(self).hand_out(Delivery { may_owe: false, ..delivery });
            }
        }
    }
}

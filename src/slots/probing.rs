//! A look at the server while callers are held back: does it answer?

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time;

use super::core::Begin;
use super::{Connection, Dial, Slots, now};

/// What a look at the server has shown so far.
#[derive(Debug)]
pub(crate) enum Look {
    Answers,
    Silent,
    /// A dial was begun. Who dials will be told how it ends.
    Dials(u64),
    /// Every slot is in use, or a dial is under way already. If dials that are stuck have all of them, one is given up for the next look.
    Nothing,
}

impl<D: Dial> Slots<D> {
    /// Asks on an idle connection; if there is none, begins a dial in a slot of its own. A connection that gives no answer `within` this time is
    /// closed, and so are the other idle ones: they are as old.
    pub(crate) async fn look(self: &Arc<Self>, within: Duration) -> Look {
        if let Some(lease) = self.borrow() {
            let answers = time::timeout(within, lease.ping()).await == Ok(true);
            if answers {
                return Look::Answers;
            }
            lease.discard();
            self.flush();
            return Look::Silent;
        }
        let Ok(runtime) = Handle::try_current() else { return Look::Nothing };
        let mut state = self.lock();
        let Some(number) = state.core.begin_probe(now()) else {
            let in_the_way: Vec<_> = state.core.in_the_way(now()).into_iter().collect();
            let dials = state.abort_dials(&in_the_way);
            drop(state);
            for dial in dials {
                dial.abort();
            }
            return Look::Nothing;
        };
        drop(state);
        self.dial(Some((Begin { dials: number..number + 1, ask_again: None }, runtime)));
        Look::Dials(number)
    }

    /// Ends a dial that [`look`](Self::look) began, if it is still under way. Tells whether it was.
    pub(crate) fn look_away(&self, dial: u64) -> bool {
        let mut state = self.lock();
        if !state.core.is_dialing(dial) {
            return false;
        }
        state.core.give_up_dial(dial);
        let dials = state.abort_dials(&[dial]);
        drop(state);
        for dial in dials {
            dial.abort();
        }
        true
    }
}

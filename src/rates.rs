//! Rates: how much the calls of a lane or an operation may use, and what they have used.
//!
//! A call is charged when it enters, before it may wait: `charge`. The charge lives as long as the lease and gives back
//! what the call did not use. `limiter` has the rate of one lane or operation, and `src/policy/rate.rs` the arithmetic.

mod bucket;
mod charge;
mod limiter;
mod rate;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use self::charge::Charge;
use self::limiter::Limiter;
pub use self::rate::Rate;
use crate::policy::{Lane, PerLane};

/// The rates of a pool, and what its calls have used of them.
#[derive(Debug)]
pub(crate) struct Rates {
    lanes: PerLane<Option<Arc<Limiter>>>,
    operations: HashMap<String, Arc<Limiter>>,
}

impl Rates {
    /// Returns the rates of a pool that begins now. `None` if there are none.
    pub(crate) fn new(now: Instant, lanes: PerLane<Option<Rate>>, operations: BTreeMap<String, Rate>) -> Option<Self> {
        if operations.is_empty() && lanes.iter().all(Option::is_none) {
            return None;
        }
        let limiter = |rate| Arc::new(Limiter::new(now, rate));
        Some(Self {
            lanes: lanes.map(|rate| rate.map(limiter)),
            operations: operations.into_iter().map(|(name, rate)| (name, limiter(rate))).collect(),
        })
    }

    /// Charges a call to the rates of its lane and its operation. `None` if it has none.
    ///
    /// # Errors
    ///
    /// How long the caller has to wait, if the call is beyond a limit.
    pub(crate) fn charge(&self, lane: Lane, operation: Option<&str>) -> Result<Option<Box<Charge>>, Duration> {
        let of_lane = self.lanes[lane as usize].as_ref();
        let of_operation = operation.and_then(|name| self.operations.get(name));
        if of_lane.is_none() && of_operation.is_none() {
            return Ok(None);
        }
        Charge::new([of_lane, of_operation]).map(|charge| Some(Box::new(charge))).map_err(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests;

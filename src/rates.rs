//! Rates: how much the calls of a lane or an operation may use, and what they have used.
//!
//! A call is charged when it enters, before it may wait: `charge`. The charge lives as long as the lease and gives back
//! what the call did not use. `limiter` has the rate of one lane or operation, and `src/policy/rate.rs` the arithmetic.

mod bucket;
#[cfg(feature = "fleet")]
mod caps;
mod charge;
mod limiter;
mod rate;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "fleet")]
pub(crate) use self::caps::OperationCaps;
pub(crate) use self::charge::Charge;
use self::limiter::Limiter;
pub use self::rate::Rate;
use crate::operation::Operation;
use crate::policy::{Lane, PerLane};

/// The rates of a pool, and what its calls have used of them.
#[derive(Debug)]
pub(crate) struct Rates {
    lanes: PerLane<Option<Arc<Limiter>>>,
    operations: HashMap<String, Arc<Limiter>>,
    /// What the pool sets by itself.
    #[cfg(feature = "fleet")]
    caps: Option<Arc<OperationCaps>>,
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
            #[cfg(feature = "fleet")]
            caps: None,
        })
    }

    /// Adds the limits that the pool sets by itself. Returns `None` if there are neither rates nor these.
    #[cfg(feature = "fleet")]
    pub(crate) fn with_caps(rates: Option<Self>, caps: Option<Arc<OperationCaps>>) -> Option<Self> {
        let Some(caps) = caps else { return rates };
        let none = || Self { lanes: PerLane::default(), operations: HashMap::new(), caps: None };
        Some(Self { caps: Some(caps), ..rates.unwrap_or_else(none) })
    }

    /// Returns whether there is a rate now. Without the owner's, there is one only while the pool caps an operation.
    #[inline]
    pub(crate) fn has_any(&self) -> bool {
        #[cfg(feature = "fleet")]
        if let Some(caps) = &self.caps {
            return caps.has_any() || !self.operations.is_empty() || self.lanes.iter().any(Option::is_some);
        }
        true
    }

    /// Charges a call to the rates of its lane and its operation. `None` if it has none.
    ///
    /// # Errors
    ///
    /// How long the caller has to wait, if the call is beyond a limit.
    pub(crate) fn charge(&self, lane: Lane, operation: Operation) -> Result<Option<Box<Charge>>, Duration> {
        let of_lane = self.lanes[lane as usize].as_ref();
        let of_operation = match operation {
            Operation::Named(name) => self.operations.get(name),
            Operation::At(_) => None,
        };
        #[cfg(feature = "fleet")]
        let cap = self.caps.as_ref().and_then(|caps| caps.of(operation));
        #[cfg(not(feature = "fleet"))]
        let cap: Option<Arc<Limiter>> = None;
        if of_lane.is_none() && of_operation.is_none() && cap.is_none() {
            return Ok(None);
        }
        let charge = Charge::new([of_lane, of_operation, cap.as_ref()]);
        charge.map(|charge| Some(Box::new(charge))).map_err(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests;

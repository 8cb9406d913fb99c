//! A consistent snapshot of a pool, and its line for an operator.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "fleet")]
use crate::operation::Operation;
#[cfg(feature = "fleet")]
use crate::policy::{Advice, FleetState};
use crate::policy::{Lane, State};

/// A consistent snapshot of how many connections and callers there are.
///
/// `Display` is a line for a log or a terminal: `pool orders: 95% in use (19/20), 1 idle, 127 waiting`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// The pool's name.
    pub name: Arc<str>,
    /// The maximum number of connections, including those that are being made or closed. In a fleet: the part of the
    /// owner's `max_size` that the budget grants at present. If the limit follows the database: the smaller of both.
    pub max_size: usize,
    /// Connections held by callers. Includes one that the pool itself uses for a round trip.
    pub in_use: usize,
    /// Connections that the pool cleans up before the next caller gets them: after a cancelled statement, or after a
    /// use that it could not track. At most two seconds each, more on a slow network. Includes those that are checked
    /// after they were idle for long.
    pub settling: usize,
    /// Connections ready for the next caller.
    pub idle: usize,
    /// Connections being made.
    pub dialing: usize,
    /// Connections being closed. Each keeps its slot until it has ended, at most a second.
    pub closing: usize,
    /// Connections of [`listen`](crate::Pool::listen). They are not part of `max_size`.
    pub listening: usize,
    /// Callers waiting for a connection, in all lanes together.
    pub waiting: usize,
    /// The maximum number of callers that may wait in each lane.
    pub max_waiting: usize,
    /// The pool accepts no callers any more. One that is being drained still serves those that wait.
    pub closed: bool,
    /// The state of the circuit breaker.
    pub breaker: State,
    /// The demand, in connections: arrivals per second times the mean lease duration (Little's law), over the last
    /// seconds. A demand above `max_size` is more than the pool can serve. `None` before anything is known.
    pub demand: Option<f64>,
    /// How much of its limit the lane [`Background`](Lane::Background) may use: from 0 to 1. It is below 1 while
    /// callers of the other lanes hold connections much longer than usual.
    pub background_share: f64,
    /// How long the next caller of [`Lane::Normal`] would wait. `None` while a connection is idle, and before anything
    /// is known.
    pub predicted_wait: Option<Duration>,
    /// What each [`Lane`] may use and uses. `None` until the first call in another lane than [`Lane::Normal`], unless
    /// the owner has limited a lane.
    pub lanes: Option<[LaneStatus; 3]>,
    /// The pool's part in its fleet. `None` without one.
    #[cfg(feature = "fleet")]
    pub fleet: Option<FleetStatus>,
    /// How the limit follows the database. `None` if it does not.
    #[cfg(feature = "fleet")]
    pub adaptive: Option<AdaptiveStatus>,
    /// The time until the pool is exhausted if utilization keeps rising. `None` while it does not rise.
    pub time_to_exhaustion: Option<Duration>,
    /// The error of the latest dial, if no dial has succeeded since.
    pub last_connect_error: Option<String>,
    /// How long ago the database last answered, exact to a quarter of a second.
    pub last_success: Option<Duration>,
}

/// What a lane may use and uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStatus {
    /// The lane.
    pub lane: Lane,
    /// The connections that the lane has at least.
    pub guaranteed: usize,
    /// The connections that the lane has at most, throttling included.
    pub at_most: usize,
    /// The connections that the lane's callers hold, and those that are being cleaned up after them.
    pub in_use: usize,
    /// The lane's callers that wait.
    pub waiting: usize,
    /// The lane's callers that were refused or waited in vain, since the pool began.
    pub refused: u64,
    /// How long the lane's next caller would wait. `None` while a connection is idle that it may have, and before
    /// anything is known.
    pub predicted_wait: Option<Duration>,
}

/// What a pool knows of its fleet: see [`PoolBuilder::fleet`](crate::PoolBuilder::fleet).
#[cfg(feature = "fleet")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetStatus {
    /// The name of the budget.
    pub name: Arc<str>,
    /// How the pool takes part.
    pub state: FleetState,
    /// The connections that the fleet grants at present. [`Status::max_size`] is what the pool may use, by all limits.
    pub granted: usize,
    /// The connections that the pool wants: 1.3 times the highest number in use within the last 2 s. If callers wait,
    /// or hold all connections: at least twice the number in use.
    pub wanted: usize,
    /// The connections that the pool may use in any case.
    pub minimum: usize,
    /// The owner's `max_size`.
    pub max_size: usize,
    /// The members at the latest reading, this one included. 0 before the first.
    pub members: usize,
    /// The connections that the members divide: the limit of the server, less headroom, strangers and one connection
    /// for each member's beacon. If a limit of the database or the role leaves less, that counts. `None` before the
    /// first reading.
    pub capacity: Option<usize>,
    /// The connections that no member of the fleet claims. Those that stayed for 4 s still count for a minute.
    pub strangers: usize,
    /// How long ago the latest reading was. `None` before the first.
    pub last_reading: Option<Duration>,
}

/// How the limit of a pool follows the database: see [`PoolBuilder::adaptive`](crate::PoolBuilder::adaptive).
#[cfg(feature = "fleet")]
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AdaptiveStatus {
    /// Whether the pool does what it advises.
    pub acts: bool,
    /// The connections that the database can bear: at most `max_size`. Equal to it if the pool only gives advice.
    pub limit: usize,
    /// The owner's `max_size`.
    pub max_size: usize,
    /// Lease time divided by usual lease time, over the ten busiest operations of the last window of 2 s. `None` if
    /// their usual durations are not known, or too few leases ended.
    pub inflation: Option<f64>,
    /// The present advice. `None` if things should stay as they are.
    pub advice: Option<Advice>,
    /// The operations of which only so many calls may be under way at a time, or should if the pool only gives advice.
    pub capped: Vec<CappedOperation>,
    /// Why the pool does not know what the server's processes wait for, if its question failed.
    pub trouble: Option<Arc<str>>,
}

/// An operation that holds up the others, and how many calls of it may be under way at a time.
#[cfg(feature = "fleet")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CappedOperation {
    /// The operation.
    pub operation: Operation,
    /// The most calls at a time.
    pub most: usize,
}

impl Status {
    /// Returns the present advice about the limit. `None` if things should stay as they are, or if the limit does not
    /// [follow the database](crate::PoolBuilder::adaptive).
    #[cfg(feature = "fleet")]
    pub fn advice(&self) -> Option<&Advice> {
        self.adaptive.as_ref()?.advice.as_ref()
    }

    /// Connections held by callers, as a share of `max_size`: from 0 to 1.
    pub fn utilization(&self) -> f64 {
        self.in_use as f64 / self.max_size as f64
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.utilization() * 100.0;
        write!(f, "pool {}: {percent:.0}% in use ({}/{})", self.name, self.in_use, self.max_size)?;
        let others =
            [(self.settling, "settling"), (self.idle, "idle"), (self.dialing, "dialing"), (self.closing, "closing")];
        let listening = (self.listening, "listening");
        for (count, state) in others.into_iter().chain([listening]) {
            if count > 0 {
                write!(f, ", {count} {state}")?;
            }
        }
        write!(f, ", {} waiting", self.waiting)?;
        if let Some(demand) = self.demand {
            write!(f, ", demand {demand:.1}")?;
        }
        if let Some(wait) = self.predicted_wait {
            write!(f, ", predicted wait {} ms", wait.as_millis())?;
        }
        if self.background_share < 1.0 {
            write!(f, ", background at {:.0}% of its limit", self.background_share * 100.0)?;
        }
        #[cfg(feature = "fleet")]
        if let Some(fleet) = &self.fleet {
            let FleetStatus { state, granted, max_size, members, .. } = fleet;
            write!(f, ", fleet {} ({granted} of {max_size}, {members} members)", state.as_str())?;
        }
        #[cfg(feature = "fleet")]
        if let Some(advice) = self.advice() {
            write!(f, ", advice {}", advice.reason.as_str())?;
        }
        if self.breaker != State::Closed {
            write!(f, ", circuit {}", self.breaker)?;
        }
        if let Some(error) = &self.last_connect_error {
            write!(f, "; last dial failed: {error}")?;
        }
        if self.closed { f.write_str(", closed") } else { Ok(()) }
    }
}

#[cfg(all(test, feature = "fleet", feature = "admin"))]
impl FleetStatus {
    pub(crate) fn of_9_in_34() -> Self {
        Self {
            name: "shop".into(),
            state: FleetState::Sharing,
            granted: 9,
            wanted: 14,
            minimum: 2,
            max_size: 40,
            members: 8,
            capacity: Some(34),
            strangers: 3,
            last_reading: Some(Duration::from_millis(1_200)),
        }
    }
}

#[cfg(all(test, feature = "fleet", any(feature = "admin", feature = "metrics")))]
impl AdaptiveStatus {
    pub(crate) fn of_a_slow_report() -> Self {
        use crate::policy::AdviceReason;
        let operation = Operation::Named("report");
        let (reason, inflation) = (AdviceReason::SlowOperation, Some(2.5));
        let advice = Advice {
            reason,
            operation: Some(operation),
            from: 20,
            to: 3,
            inflation,
            utilization: 0.95,
            throughput: 120.0,
        };
        let capped = vec![CappedOperation { operation, most: 3 }];
        Self { acts: true, limit: 18, max_size: 20, inflation, advice: Some(advice), capped, trouble: None }
    }
}

#[cfg(test)]
impl Status {
    pub(crate) fn of_19_in_20() -> Self {
        Self {
            name: "orders".into(),
            max_size: 20,
            in_use: 19,
            settling: 0,
            idle: 1,
            dialing: 0,
            closing: 0,
            listening: 0,
            waiting: 127,
            max_waiting: 1_000,
            closed: false,
            breaker: State::Closed,
            demand: None,
            background_share: 1.0,
            predicted_wait: None,
            lanes: None,
            #[cfg(feature = "fleet")]
            fleet: None,
            #[cfg(feature = "fleet")]
            adaptive: None,
            time_to_exhaustion: None,
            last_connect_error: None,
            last_success: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_printed_as_one_line() {
        let mut status = Status::of_19_in_20();
        assert_eq!(status.to_string(), "pool orders: 95% in use (19/20), 1 idle, 127 waiting");
        (status.in_use, status.idle, status.dialing, status.closing, status.waiting) = (0, 0, 2, 1, 0);
        status.closed = true;
        assert_eq!(status.to_string(), "pool orders: 0% in use (0/20), 2 dialing, 1 closing, 0 waiting, closed");
        status.listening = 3;
        assert!(status.to_string().contains(", 2 dialing, 1 closing, 3 listening, 0 waiting, closed"), "{status}");
        (status.demand, status.predicted_wait) = (Some(21.46), Some(Duration::from_millis(40)));
        status.background_share = 0.25;
        (status.breaker, status.last_connect_error) = (State::Open, Some("refused".to_owned()));
        let line = status.to_string();
        assert!(
            line.ends_with(
                "demand 21.5, predicted wait 40 ms, background at 25% of its limit, circuit open; last dial failed: \
                 refused, closed"
            ),
            "{line}"
        );
    }
}

//! Pretended outcomes, for tests of the code that calls a pool: what a test asks for, and which call meets it next.
//! Feature `testing`.
//!
//! Each outcome has a [`Moment`] in the path of a call. The pool asks [`Pretences`] there, and never elsewhere.

mod driver_error;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_postgres::error::SqlState;

pub use self::driver_error::ServerError;
pub(crate) use self::driver_error::closed;

/// What a call comes to in a test, instead of its real outcome. See [`Pool::pretend`](crate::Pool::pretend).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The pool refuses the call with [`Error::Shed`](crate::Error::Shed), because its queue is full.
    Shed,
    /// The pool refuses the call with [`Error::CircuitOpen`](crate::Error::CircuitOpen). The circuit stays as it is.
    CircuitOpen,
    /// No connection becomes free in time: [`Error::AcquireTimeout`](crate::Error::AcquireTimeout). The call does not
    /// wait.
    AcquireTimeout,
    /// The server refuses connections: [`Error::Connect`](crate::Error::Connect).
    Connect,
    /// The pool is closed: [`Error::Closed`](crate::Error::Closed).
    Closed,
    /// The time of the statement is up: [`Error::QueryTimeout`](crate::Error::QueryTimeout). The call does not wait,
    /// and nothing is sent.
    QueryTimeout,
    /// An earlier statement on the connection could not be stopped in time: [`Error::Busy`](crate::Error::Busy).
    Busy,
    /// The connection is lost after the statement was sent: [`Error::Postgres`](crate::Error::Postgres). Outside a
    /// transaction nobody knows whether the statement was applied. In a transaction it certainly was not. Nothing is
    /// sent, and the connection ends.
    ConnectionLost,
    /// The server answers with this error: [`Error::Postgres`](crate::Error::Postgres). An open transaction fails.
    Server(ServerError),
    /// The statement begins this much later. If its time is up before, it fails as a slow statement does. With
    /// `tokio::time::pause` no time passes in the test. Pause the clock when the pool has its connection
    /// ([`warm_up`](crate::Pool::warm_up)): a paused clock runs ahead during a dial.
    Delay(Duration),
    /// The reader of a stream of rows pauses for too long: the first poll of the stream returns
    /// [`Error::StreamIdle`](crate::Error::StreamIdle). Nothing is sent.
    StreamIdle,
    /// No answer to COMMIT comes in time: [`Error::CommitUnknown`](crate::Error::CommitUnknown).
    CommitUnknown {
        /// Whether the transaction is in fact committed. If not, it is rolled back.
        committed: bool,
    },
    /// The server answers COMMIT with ROLLBACK: [`Error::TransactionAborted`](crate::Error::TransactionAborted).
    TransactionAborted,
    /// No host is the primary: [`Error::NoPrimary`](crate::Error::NoPrimary). Only calls on a cluster that go to the
    /// primary meet it.
    #[cfg(feature = "cluster")]
    NoPrimary,
    /// Two hosts accept writes: [`Error::TwoPrimaries`](crate::Error::TwoPrimaries). Met as
    /// [`NoPrimary`](Self::NoPrimary).
    #[cfg(feature = "cluster")]
    TwoPrimaries,
    /// Hosts belong to different systems: [`Error::TwoSystems`](crate::Error::TwoSystems). Met as
    /// [`NoPrimary`](Self::NoPrimary).
    #[cfg(feature = "cluster")]
    TwoSystems,
    /// No replica is fresh enough, and the spill budget is used up:
    /// [`Error::NoFreshReplica`](crate::Error::NoFreshReplica). Only reads on a cluster meet it.
    #[cfg(feature = "cluster")]
    NoFreshReplica,
}

/// When an outcome takes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Instead of a connection.
    Acquire,
    /// In place of a statement.
    Statement,
    /// In place of a statement whose rows are a stream.
    Stream,
    /// In place of COMMIT.
    Commit,
    /// In place of the primary of a cluster.
    #[cfg(feature = "cluster")]
    Primary,
    /// In place of the choice of a host for a read on a cluster.
    #[cfg(feature = "cluster")]
    Read,
}

impl Outcome {
    /// The server answers with an error that has this SQLSTATE.
    pub fn sqlstate(state: SqlState) -> Self {
        Self::Server(ServerError::new(state))
    }

    /// Limits the outcome to the next `times` attempts that meet it.
    #[must_use]
    pub fn times(self, times: u32) -> Pretence {
        Pretence::from(self).times(times)
    }

    /// Limits the outcome to calls of this [name](crate::Call::name).
    #[must_use]
    pub fn operation(self, name: impl Into<String>) -> Pretence {
        Pretence::from(self).operation(name)
    }

    fn moment(&self) -> Moment {
        match self {
            Self::Shed | Self::CircuitOpen | Self::AcquireTimeout | Self::Connect | Self::Closed => Moment::Acquire,
            Self::QueryTimeout | Self::Busy | Self::ConnectionLost | Self::Server(_) | Self::Delay(_) => {
                Moment::Statement
            }
            Self::StreamIdle => Moment::Stream,
            Self::CommitUnknown { .. } | Self::TransactionAborted => Moment::Commit,
            #[cfg(feature = "cluster")]
            Self::NoPrimary | Self::TwoPrimaries | Self::TwoSystems => Moment::Primary,
            #[cfg(feature = "cluster")]
            Self::NoFreshReplica => Moment::Read,
        }
    }
}

impl From<ServerError> for Outcome {
    fn from(error: ServerError) -> Self {
        Self::Server(error)
    }
}

/// An [`Outcome`], and the calls that meet it. By default all calls do, as often as they come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pretence {
    outcome: Outcome,
    operation: Option<String>,
    times: Option<u32>,
}

impl Pretence {
    /// Limits the outcome to the next `times` attempts that meet it. A retry is an attempt of its own.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Limits the outcome to calls of this [name](crate::Call::name).
    #[must_use]
    pub fn operation(self, name: impl Into<String>) -> Self {
        Self { operation: Some(name.into()), ..self }
    }

    fn applies_to(&self, moment: Moment, operation: Option<&str>) -> bool {
        self.outcome.moment() == moment && self.operation.as_deref().is_none_or(|name| operation == Some(name))
    }
}

impl<O: Into<Outcome>> From<O> for Pretence {
    fn from(outcome: O) -> Self {
        Self { outcome: outcome.into(), operation: None, times: None }
    }
}

/// The pretences of one pool, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Pretences {
    active: Mutex<Vec<Arc<Active>>>,
    /// The length of `active`, to read without its lock.
    count: AtomicUsize,
}

/// A pretence in force. The pools of a cluster share it.
#[derive(Debug)]
struct Active {
    pretence: Pretence,
    /// How many attempts may still meet it.
    left: Option<AtomicU32>,
    met: AtomicUsize,
}

impl Active {
    /// Counts an attempt that meets it, unless as many have as may.
    fn meet(&self) -> bool {
        let is_met = match &self.left {
            Some(left) => left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok(),
            None => true,
        };
        self.met.fetch_add(usize::from(is_met), Relaxed);
        is_met
    }
}

impl Pretences {
    /// Returns the outcome that the call meets at this moment, by the oldest pretence that has uses left.
    pub(crate) fn meet(&self, moment: Moment, operation: Option<&str>) -> Option<Outcome> {
        if self.count.load(Relaxed) == 0 {
            return None;
        }
        let active = self.active.lock();
        let found = active.iter().find(|active| active.pretence.applies_to(moment, operation) && active.meet())?;
        Some(found.pretence.outcome.clone())
    }

    /// Begins a pretence. It ends when the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>, pretence: Pretence) -> Pretending {
        Self::begin_in(vec![Arc::clone(self)], pretence)
    }

    /// Begins a pretence that calls meet wherever they come first.
    pub(crate) fn begin_in(places: Vec<Arc<Self>>, pretence: Pretence) -> Pretending {
        let left = pretence.times.map(AtomicU32::new);
        let begun = Arc::new(Active { pretence, left, met: AtomicUsize::new(0) });
        for place in &places {
            place.change(|active| active.push(Arc::clone(&begun)));
        }
        Pretending { places, begun }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Active>>)) {
        let mut active = self.active.lock();
        change(&mut active);
        self.count.store(active.len(), Relaxed);
    }
}

/// A pretence in force, from [`Pool::pretend`](crate::Pool::pretend). Dropping it ends the pretence.
#[derive(Debug)]
#[must_use = "the pretence ends when this guard is dropped"]
pub struct Pretending {
    places: Vec<Arc<Pretences>>,
    begun: Arc<Active>,
}

impl Pretending {
    /// How many attempts have met the pretence.
    pub fn met(&self) -> usize {
        self.begun.met.load(Relaxed)
    }

    /// Ends the pretence. Dropping the guard does the same.
    pub fn clear(self) {}
}

impl Drop for Pretending {
    fn drop(&mut self) {
        for place in &self.places {
            place.change(|active| active.retain(|active| !Arc::ptr_eq(active, &self.begun)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_pretence_that_applies_is_met_as_often_as_it_says() {
        let pretences = Arc::new(Pretences::default());
        let met = |operation| pretences.meet(Moment::Acquire, operation);
        assert_eq!(met(None), None);
        let first = pretences.begin(Outcome::Shed.times(2));
        let second = pretences.begin(Outcome::Connect.operation("login"));
        assert_eq!(pretences.meet(Moment::Commit, None), None, "another moment");
        assert_eq!(met(Some("login")), Some(Outcome::Shed));
        assert_eq!(met(None), Some(Outcome::Shed));
        assert_eq!(met(None), None, "used up");
        assert_eq!(met(Some("login")), Some(Outcome::Connect));
        assert_eq!(met(Some("logins")), None, "another operation");
        assert_eq!((first.met(), second.met()), (2, 1));
        second.clear();
        assert_eq!(met(Some("login")), None, "cleared");
        drop(first);
        assert_eq!(pretences.count.load(Relaxed), 0);
    }

    #[test]
    fn a_pretence_in_several_places_is_met_as_often_as_it_says_in_all_of_them_together() {
        let places = [Arc::new(Pretences::default()), Arc::new(Pretences::default())];
        let pretending = Pretences::begin_in(places.to_vec(), Outcome::Shed.times(2));
        let met = |place: usize| places[place].meet(Moment::Acquire, None).is_some();
        assert_eq!([met(0), met(1), met(0), met(1)], [true, true, false, false]);
        assert_eq!(pretending.met(), 2);
        pretending.clear();
        assert!(places.iter().all(|place| place.count.load(Relaxed) == 0));
    }
}

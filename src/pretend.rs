//! Pretended outcomes, for tests of the code that calls a pool: what a test asks for, and which call meets it next.
//! Feature `testing`.
//!
//! Each outcome has a [`Moment`] in the path of a call. The pool asks [`Pretences`] there, and never elsewhere.

mod driver_error;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
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
    /// The statement begins this much later. If its time is up before, it fails as a slow statement does. Use
    /// `tokio::time::pause` in the test, and no time passes.
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
        self.times != Some(0)
            && self.outcome.moment() == moment
            && self.operation.as_deref().is_none_or(|name| operation == Some(name))
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
    active: Mutex<Vec<Active>>,
    /// The length of `active`, to read without its lock.
    count: AtomicUsize,
}

#[derive(Debug)]
struct Active {
    pretence: Pretence,
    met: Arc<AtomicUsize>,
}

impl Pretences {
    /// Returns the outcome that the call meets at this moment, by the oldest pretence that has uses left.
    pub(crate) fn meet(&self, moment: Moment, operation: Option<&str>) -> Option<Outcome> {
        if self.count.load(Relaxed) == 0 {
            return None;
        }
        let mut active = self.active.lock();
        let found = active.iter_mut().find(|active| active.pretence.applies_to(moment, operation))?;
        if let Some(times) = &mut found.pretence.times {
            *times -= 1;
        }
        found.met.fetch_add(1, Relaxed);
        Some(found.pretence.outcome.clone())
    }

    /// Begins a pretence. It ends when the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>, pretence: Pretence) -> Pretending {
        let met = Arc::default();
        let mut active = self.active.lock();
        active.push(Active { pretence, met: Arc::clone(&met) });
        self.count.store(active.len(), Relaxed);
        drop(active);
        Pretending { pretences: Arc::clone(self), met }
    }

    fn end(&self, met: &Arc<AtomicUsize>) {
        let mut active = self.active.lock();
        active.retain(|active| !Arc::ptr_eq(&active.met, met));
        self.count.store(active.len(), Relaxed);
    }
}

/// A pretence in force, from [`Pool::pretend`](crate::Pool::pretend). Dropping it ends the pretence.
#[derive(Debug)]
#[must_use = "the pretence ends when this guard is dropped"]
pub struct Pretending {
    pretences: Arc<Pretences>,
    met: Arc<AtomicUsize>,
}

impl Pretending {
    /// How many attempts have met the pretence.
    pub fn met(&self) -> usize {
        self.met.load(Relaxed)
    }

    /// Ends the pretence. Dropping the guard does the same.
    pub fn clear(self) {}
}

impl Drop for Pretending {
    fn drop(&mut self) {
        self.pretences.end(&self.met);
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
}

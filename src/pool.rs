//! The facade. It delegates only.

use std::sync::Arc;
use std::time::Duration;

use crate::call::Shared;
use crate::conn::Client;
use crate::error::Error;
use crate::status::Status;

/// A pool of connections to PostgreSQL that answers in time: with a connection, or with the reason why not.
///
/// Cloning is cheap; all clones are one pool. When the last clone and the last [`Client`] are gone, the connections are closed.
///
/// **Fairness.** Callers are served in the order in which they asked, by whichever comes first: a connection given back or one newly
/// made. It is handed over directly, so nobody can cut in.
///
/// **Cancel safety.** Every future may be dropped at any await: its place in the queue is given up at once, a connection that was
/// just handed to it goes to the next, and a dial that was begun for it goes on, for whoever comes next.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    pub(crate) fn new(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
        }
    }

    /// A connection, waiting for one at most [`acquire_timeout`](crate::PoolBuilder::acquire_timeout).
    ///
    /// # Errors
    ///
    /// - [`Error::Shed`] at once, if [`max_waiting`](crate::PoolBuilder::max_waiting) callers wait already.
    /// - [`Error::Connect`] if nothing is connected and dials fail, with the reason and when to come back.
    /// - [`Error::AcquireTimeout`] when the time is up.
    /// - [`Error::Closed`] once the pool is closed.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with its timers and I/O enabled, if no connection is idle.
    pub async fn get(&self) -> Result<Client, Error> {
        self.shared.acquire(self.shared.acquire_timeout).await
    }

    /// [`get`](Self::get) with a timeout of its own.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn get_timeout(&self, timeout: Duration) -> Result<Client, Error> {
        self.shared.acquire(timeout).await
    }

    /// An idle connection, if there is one. Never waits, and dials none.
    ///
    /// # Errors
    ///
    /// [`Error::Shed`] if none is idle, [`Error::Closed`] once the pool is closed.
    pub fn try_get(&self) -> Result<Client, Error> {
        self.shared.try_acquire()
    }

    /// How many connections and callers there are right now, counted in one instant.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Closes the pool: everybody who waits gets [`Error::Closed`] now, everybody who asks from now on as well. Idle connections
    /// are closed now, others when they are given back. Closing twice does nothing more.
    pub fn close(&self) {
        self.shared.slots.close();
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.shared.slots.counts().closed
    }
}

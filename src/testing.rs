//! For the tests of a service that has a pool. Feature `testing`.
//!
//! # Every outcome
//!
//! [`Pool::pretend`] brings the next calls to a chosen [`Outcome`], so that a test reaches each branch of a service's
//! error handling:
//!
//! ```
//! use failfast::testing::{self, Outcome, ServerError};
//! use failfast::tokio_postgres::error::SqlState;
//! use failfast::{Error, Pool};
//!
//! /// Returns whether the name was free.
//! async fn register(pool: &Pool, name: &str) -> Result<bool, Error> {
//!     let call = pool.call().name("register");
//!     match call.execute("INSERT INTO users (name) VALUES ($1)", &[&name]).await {
//!         Ok(_) => Ok(true),
//!         Err(error) if error.sqlstate() == Some(&SqlState::UNIQUE_VIOLATION) => Ok(false),
//!         Err(error) => Err(error),
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = testing::without_server().build()?;
//! let _taken = pool.pretend(ServerError::new(SqlState::UNIQUE_VIOLATION).constraint("users_pkey"));
//! assert!(!register(&pool, "ada").await?);
//!
//! let _shed = pool.pretend(Outcome::Shed.operation("register").times(1));
//! assert!(register(&pool, "ada").await.is_err_and(|error| error.is_overload()));
//! # Ok(())
//! # }
//! ```
//!
//! A pretence needs a server only if calls or statements are to succeed as well. [`without_server`] makes a pool that
//! has none, and `cluster_without_servers` a cluster.
//!
//! # A database for each test
//!
//! [`TestDatabase`] is a copy of a template in which the migrations have run once.
//!
//! # When an outcome takes hold
//!
//! | outcome | takes hold | what happens in the database |
//! |---|---|---|
//! | `Shed`, `CircuitOpen`, `AcquireTimeout`, `Connect`, `Closed` | instead of a connection | nothing |
//! | `QueryTimeout`, `Busy`, `ConnectionLost`, `Server`, `Delay` | in place of the next statement, also on a guard and in a transaction; never in place of BEGIN, COMMIT, ROLLBACK or those of a savepoint | after `Server`, `QueryTimeout` and `ConnectionLost`, an open transaction cannot be committed |
//! | `StreamIdle` | in place of the next statement whose rows are a stream, which `copy_out` is not; the error comes at the first poll | nothing |
//! | `CommitUnknown`, `TransactionAborted` | in place of the pool's COMMIT. Without a server, a closure that runs a statement fails before it | the transaction is rolled back, or committed if the outcome says so |
//! | `NoPrimary`, `TwoPrimaries`, `TwoSystems` | on a cluster, in place of its primary | nothing |
//! | `NoFreshReplica` | on a cluster, in place of the host of a read | nothing |
//!
//! A COPY meets an outcome at its beginning only: `copy_in` or `copy_out` returns the error, and no later step does.
//!
//! Statements by way of the deref to deadpool's client meet no pretence, nor does `listen`.
//!
//! Everything that follows an outcome is real. A call runs again if it would after a real one: a conflict (40001) in a
//! transaction, a lost connection if the call is [idempotent](crate::Call::idempotent). Each attempt meets the pretence
//! again, unless [`times`](Outcome::times) has run out. A [fallback](crate::Call::fallback) answers as after a real
//! one. Metrics, spans, events and [`Status`](crate::Status) count the outcome, and so does the circuit breaker: enough
//! pretended timeouts open the circuit.
//!
//! Two things differ. No time passes, except in `Delay`. So an idempotent call may run again after a pretended
//! `QueryTimeout`, where a real timeout would have used up its deadline. And `CircuitOpen` does not open the circuit:
//! `pool.breaker()` shows it as it is.

mod database;
mod server;
mod setup_error;
mod stand_in;

pub use self::database::{TestDatabase, TestDatabaseBuilder};
pub use self::setup_error::SetupError;
#[cfg(feature = "cluster")]
pub use self::stand_in::cluster_without_servers;
pub use self::stand_in::without_server;
use crate::pool::Pool;

pub use crate::pretend::{Outcome, Pretence, Pretending, ServerError};

impl Pool {
    /// Brings calls to a chosen outcome until the returned guard is dropped. Feature `testing`.
    ///
    /// By default every call meets the outcome. [`Outcome::times`] and [`Outcome::operation`] limit it. Of several
    /// pretences, a call meets the oldest one that applies. The module [`testing`](crate::testing) says when an outcome
    /// takes hold.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use failfast::testing::{self, Outcome};
    ///
    /// let pool = testing::without_server().build()?;
    /// let slow = pool.pretend(Outcome::QueryTimeout.times(1));
    /// let error = pool.query("SELECT 1", &[]).await.unwrap_err();
    /// assert_eq!((error.http_status(), slow.met()), (504, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn pretend(&self, pretence: impl Into<Pretence>) -> Pretending {
        self.shared.pretences.begin(pretence.into())
    }
}

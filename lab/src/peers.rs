//! The pools: their names and settings. Each file of `peers` connects one library, and asks it for a caller's answer.

#[cfg(feature = "peers")]
mod bb8;
mod deadpool;
mod divided;
mod failfast;
pub(crate) mod processes;
#[cfg(feature = "peers")]
mod sqlx;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_postgres::Config;

use self::divided::Divided;
use self::processes::Processes;
use crate::callers::Caller;
use crate::scenarios::{Fault, Scenario};
use crate::terms::{CONNECTIONS, DEADLINE, FOR_OTHERS, HOLD, Result};

/// The clients that deadpool keeps connected to PgBouncer, which lets [`CONNECTIONS`] of them work at a time.
const CLIENTS_OF_PGBOUNCER: usize = 100;

/// A pool to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Failfast,
    Deadpool,
    DeadpoolTuned,
    Pgbouncer,
    Bb8,
    Bb8Tuned,
    Sqlx,
    SqlxTuned,
}

/// How long a tuned pool lets a caller wait: the deadline without twice the usual time of the work.
pub(crate) fn patience(deadline: Duration) -> Duration {
    deadline.saturating_sub(2 * HOLD)
}

impl Peer {
    pub(crate) const ALL: [Self; 8] = [
        Self::Failfast,
        Self::Deadpool,
        Self::DeadpoolTuned,
        Self::Pgbouncer,
        Self::Bb8,
        Self::Bb8Tuned,
        Self::Sqlx,
        Self::SqlxTuned,
    ];

    /// Those that this program was built with.
    pub(crate) fn built() -> Vec<Self> {
        Self::ALL.into_iter().filter(|peer| cfg!(feature = "peers") || *peer < Self::Bb8).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Failfast => "failfast",
            Self::Deadpool => "deadpool",
            Self::DeadpoolTuned => "deadpool-tuned",
            Self::Pgbouncer => "pgbouncer",
            Self::Bb8 => "bb8",
            Self::Bb8Tuned => "bb8-tuned",
            Self::Sqlx => "sqlx",
            Self::SqlxTuned => "sqlx-tuned",
        }
    }

    /// What differs from the defaults in these scenarios, besides the number of connections, and which defaults matter.
    pub(crate) fn settings<'a>(self, scenarios: impl IntoIterator<Item = &'a Scenario>) -> String {
        let (mut has_others, mut has_fleet) = (false, false);
        for scenario in scenarios {
            has_others |= scenario.others.is_some();
            has_fleet |= scenario.fault == Fault::Deploy;
        }
        let mut settings = match self {
            Self::Failfast => "each call with its deadline".to_owned(),
            Self::Deadpool => "defaults: waits without end".to_owned(),
            Self::Bb8 | Self::Sqlx => "defaults: waits up to 30 s, checks each connection before use".to_owned(),
            Self::DeadpoolTuned | Self::Bb8Tuned | Self::SqlxTuned => {
                format!("waits at most the deadline less {:?}; statement_timeout {DEADLINE:?}", 2 * HOLD)
            }
            Self::Pgbouncer => format!(
                "a tuned deadpool with {CLIENTS_OF_PGBOUNCER} clients of a PgBouncer, which has {CONNECTIONS} connections in \
                 transaction mode, and a server_login_retry of 1 s"
            ),
        };
        if has_others && self == Self::Failfast {
            settings += &format!(
                "; beside other work, at most {FOR_OTHERS} calls that buy or export at a time, and reports in the lane \
                 Background, with at most {FOR_OTHERS} connections"
            );
        } else if has_others && self.has_pool_for_others() {
            settings += &format!("; beside other work two pools, of {} and {FOR_OTHERS}", CONNECTIONS - FOR_OTHERS);
        }
        if has_fleet && self == Self::Failfast {
            settings += "; in the fleet, the processes share the connections";
        }
        settings
    }

    pub(crate) fn is_tuned(self) -> bool {
        matches!(self, Self::DeadpoolTuned | Self::Pgbouncer | Self::Bb8Tuned | Self::SqlxTuned)
    }

    fn has_pool_for_others(self) -> bool {
        self.is_tuned() && self != Self::Pgbouncer
    }

    /// Creates a pool and makes all its connections.
    pub(crate) async fn connect(self, config: &Config, scenario: &Scenario) -> Result<Arc<dyn Pool>> {
        if self.has_pool_for_others() && scenario.others.is_some() {
            let usual = self.with_size(CONNECTIONS - FOR_OTHERS, config, scenario).await?;
            let others = self.with_size(FOR_OTHERS, config, scenario).await?;
            return Ok(Arc::new(Divided { usual, others }));
        }
        if scenario.fault == Fault::Deploy {
            return Ok(Arc::new(Processes::start(self, config).await?));
        }
        self.with_size(CONNECTIONS, config, scenario).await
    }

    /// Creates a pool of this size, which makes all its connections at once.
    async fn with_size(self, size: usize, config: &Config, scenario: &Scenario) -> Result<Arc<dyn Pool>> {
        let size = if self == Self::Pgbouncer { CLIENTS_OF_PGBOUNCER } else { size };
        let (longest, has_others) = (scenario.longest_deadline(), scenario.others.is_some());
        let pool = self.create(size, config, longest, has_others).await?;
        pool.warm_up().await?;
        Ok(pool)
    }

    /// Creates a pool without waiting for connections. No caller has a longer deadline than `longest`.
    async fn create(self, size: usize, config: &Config, longest: Duration, has_others: bool) -> Result<Arc<dyn Pool>> {
        let tuned = self.is_tuned().then_some(longest);
        Ok(match self {
            Self::Failfast if has_others => Arc::new(failfast::Failfast::beside_others(config, size)?),
            Self::Failfast => Arc::new(failfast::Failfast::alone(config, size)?),
            Self::Deadpool | Self::DeadpoolTuned | Self::Pgbouncer => {
                Arc::new(deadpool::Deadpool::create(config, size, self.is_tuned())?)
            }
            #[cfg(feature = "peers")]
            Self::Bb8 | Self::Bb8Tuned => Arc::new(bb8::Bb8::create(config, size, tuned)),
            #[cfg(feature = "peers")]
            Self::Sqlx | Self::SqlxTuned => Arc::new(sqlx::Sqlx::create(config, size, tuned)),
            #[cfg(not(feature = "peers"))]
            _ => return Err(format!("{self} is not built in: use ./dev lab (tuned: {tuned:?})").into()),
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a caller got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Served,
    /// A refusal without a wait.
    RefusedAtEntry,
    /// A refusal after a wait.
    Refused,
    /// An error on a connection.
    Failed,
}

impl Answer {
    fn of<T, E>(result: &std::result::Result<T, E>) -> Self {
        if result.is_ok() { Self::Served } else { Self::Failed }
    }
}

/// A pool in use.
pub(crate) trait Pool: Send + Sync {
    /// Takes a connection and does the caller's work on it, as a service does.
    fn ask<'a>(&'a self, caller: &'a Caller) -> BoxFuture<'a, Answer>;

    /// The first warning since `from`, with its time, if the pool reports warnings.
    fn first_warning(&self, _from: Instant) -> Option<(Instant, String)> {
        None
    }

    /// Makes all connections.
    fn warm_up(&self) -> BoxFuture<'_, Result<()>>;

    /// Replaces the processes of the service within this time. A pool within one process has none.
    fn deploy(&self, _within: Duration) -> BoxFuture<'_, Result<()>> {
        async { Ok(()) }.boxed()
    }

    /// Closes the connections that no caller holds.
    fn close(&self) -> BoxFuture<'_, ()>;
}

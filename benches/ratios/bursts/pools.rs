//! The three pools, each with connections of its own. Each call has to end within the deadline.

use std::time::{Duration, Instant};

use deadpool_postgres::Timeouts;
use failfast::{Error, ShedReason, Shedding};
use tokio::time::timeout;

use super::super::peers;
use super::super::support::Throwaway;
use super::{CONNECTIONS, DEADLINE, HOLD};

const WARM: Duration = Duration::from_secs(20);
/// More callers than ever wait in these benchmarks, because the plain queue has no bound.
const NO_BOUND: usize = 100_000;

/// A pool to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// failfast with its defaults.
    Ours,
    /// deadpool as tuned by somebody who knows the deadline and the duration of the work.
    Tuned,
    /// failfast as an unbounded queue. It refuses no caller at entry, and at hand-over those that can no longer finish.
    Fifo,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Ours, Self::Tuned, Self::Fifo];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "failfast",
            Self::Tuned => "deadpool, tuned",
            Self::Fifo => "a plain queue",
        }
    }

    pub(super) async fn connect(self, server: &Throwaway) -> Pool {
        let builder = || failfast::Pool::builder(server.config()).max_size(CONNECTIONS);
        match self {
            Self::Ours => Pool::Failfast(warm(builder()).await),
            Self::Fifo => Pool::Failfast(warm(builder().shedding(Shedding::QueueOnly).max_waiting(NO_BOUND)).await),
            Self::Tuned => {
                let timeouts = Timeouts { wait: Some(DEADLINE - 2 * HOLD), ..peers::NO_TIMEOUT };
                Pool::Deadpool(peers::deadpool(server.config(), CONNECTIONS, timeouts).await)
            }
        }
    }
}

async fn warm(builder: failfast::PoolBuilder) -> failfast::Pool {
    let pool = builder.build().expect("good settings");
    pool.warm_up(CONNECTIONS, WARM).await.expect("connections");
    pool
}

/// The outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Served,
    /// A refusal before any wait.
    RefusedAtEntry,
    /// A refusal or an error after a wait, or an answer after the deadline.
    TooLate,
}

/// A pool in use. Clones are handles of the same pool.
#[derive(Debug, Clone)]
pub(super) enum Pool {
    Failfast(failfast::Pool),
    Deadpool(deadpool_postgres::Pool),
}

impl Pool {
    /// Makes one call. Returns its outcome, and the time from its beginning to its end.
    pub(super) async fn ask(&self, sql: &str) -> (Answer, Duration) {
        let asked = Instant::now();
        let answer = match self {
            Self::Failfast(pool) => match pool.call().deadline(DEADLINE).execute(sql, &[]).await {
                Ok(_) => Answer::Served,
                Err(Error::Shed { reason: ShedReason::TooLate, .. }) => Answer::TooLate,
                Err(Error::Shed { .. }) => Answer::RefusedAtEntry,
                Err(_) => Answer::TooLate,
            },
            Self::Deadpool(pool) => {
                let work = async {
                    let client = pool.get().await.ok()?;
                    let statement = client.prepare_cached(sql).await.ok()?;
                    client.execute(&statement, &[]).await.ok()
                };
                match timeout(DEADLINE, work).await {
                    Ok(Some(_)) => Answer::Served,
                    Ok(None) | Err(_) => Answer::TooLate,
                }
            }
        };
        let after = asked.elapsed();
        (if answer == Answer::Served && after > DEADLINE { Answer::TooLate } else { answer }, after)
    }

    /// Returns how long a call takes without load. It is the fastest of several, because other processes may slow any
    /// of them.
    pub(super) async fn service(&self, sql: &str) -> Duration {
        let mut fastest = DEADLINE;
        for _ in 0..21 {
            let (answer, after) = self.ask(sql).await;
            assert_eq!(answer, Answer::Served, "an idle pool refused a call");
            fastest = fastest.min(after);
        }
        fastest
    }
}

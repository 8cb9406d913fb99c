//! The limit of a pool follows the database, on real servers: a saturated server, a hot row, slow reports, and more
//! callers than the pool has connections for.

mod budget;
mod locks;
mod saturated;
mod series;
mod sizes;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use failfast::{Adaptive, AdaptiveStatus, AdviceReason, Error, Event, EventKind, Pool, PoolBuilder};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::Config;

use crate::support::eventually;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
/// Limits change by steps of some seconds each.
const STEPS: Duration = Duration::from_secs(90);

/// The events of a pool: name, line, and reason of the advice.
type Seen = Arc<Mutex<Vec<(&'static str, String, Option<AdviceReason>)>>>;

fn pool(config: Config, name: &str, adaptive: Adaptive) -> (PoolBuilder, Seen) {
    let seen = Seen::default();
    let saw = Arc::clone(&seen);
    let observer = move |event: &Event| {
        let reason = match &event.kind {
            EventKind::LimitAdvised { advice, .. } | EventKind::LimitChanged { advice, .. } => Some(advice.reason),
            _ => None,
        };
        saw.lock().unwrap().push((event.kind.as_str(), event.to_string(), reason));
    };
    (Pool::builder(config).name(name).adaptive(adaptive).observer(observer), seen)
}

fn status(pool: &Pool) -> AdaptiveStatus {
    pool.status().adaptive.expect("the limit follows the database")
}

/// Whether there was an event of this name and for this reason.
fn has(seen: &Seen, name: &str, reason: Option<AdviceReason>) -> bool {
    seen.lock().unwrap().iter().any(|(event, _, of)| *event == name && (reason.is_none() || *of == reason))
}

/// The lines of all events about the limit.
fn lines(seen: &Seen) -> Vec<String> {
    let is_ours = |name: &str| ["limit_", "lock_bound", "held_by"].iter().any(|prefix| name.starts_with(prefix));
    seen.lock().unwrap().iter().filter(|(name, ..)| is_ours(name)).map(|(_, line, _)| line.clone()).collect()
}

/// Callers that run one statement after the other, with a pause between. Dropping it ends them.
struct Load {
    _tasks: JoinSet<()>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    done: AtomicU64,
    refused: AtomicU64,
    took: Mutex<Vec<Duration>>,
}

impl Load {
    fn begin(pool: &Pool, name: &'static str, sql: &'static str, callers: usize, pause: Duration) -> Self {
        let (mut tasks, counts) = (JoinSet::new(), Arc::<Counts>::default());
        for _ in 0..callers {
            let (pool, counts) = (pool.clone(), Arc::clone(&counts));
            tasks.spawn(async move {
                loop {
                    let begun = Instant::now();
                    match pool.call().name(name).execute(sql, &[]).await {
                        Ok(_) => {
                            counts.done.fetch_add(1, Relaxed);
                            counts.took.lock().unwrap().push(begun.elapsed());
                        }
                        Err(Error::Shed { retry_after, .. }) => {
                            counts.refused.fetch_add(1, Relaxed);
                            sleep(retry_after.unwrap_or_default().clamp(20 * MILLISECOND, SECOND)).await;
                        }
                        Err(_) => sleep(20 * MILLISECOND).await,
                    }
                    sleep(pause).await;
                }
            });
        }
        Self { _tasks: tasks, counts }
    }

    fn done(&self) -> u64 {
        self.counts.done.load(Relaxed)
    }

    fn refused(&self) -> u64 {
        self.counts.refused.load(Relaxed)
    }

    /// Waits until so many more calls are done.
    async fn more(&self, calls: u64) {
        let until = self.done() + calls;
        eventually("calls are done", STEPS, async || self.done() >= until).await;
    }

    /// The 99th percentile of what the next so many calls take.
    async fn p99(&self, calls: u64) -> Duration {
        self.counts.took.lock().unwrap().clear();
        self.more(calls).await;
        let mut took = std::mem::take(&mut *self.counts.took.lock().unwrap());
        took.sort();
        took[took.len() * 99 / 100]
    }
}

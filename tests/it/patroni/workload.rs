//! 200 calls a second, whether or not they are answered: writes and reads in turn, each on a task of its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use failfast::Effect;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::ledger::Write;
use super::subjects::{Failure, Subject};

const PERIOD: Duration = Duration::from_millis(5);

/// A caller leaves after this time.
const PATIENCE: Duration = Duration::from_secs(2);

/// A number for each write of this process.
static NEXT: AtomicI64 = AtomicI64::new(1);

/// A workload under way.
#[derive(Debug)]
pub(super) struct Workload {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    calls: Mutex<Calls>,
}

/// What the calls were told.
#[derive(Debug, Default, Clone)]
pub(super) struct Calls {
    pub(super) writes: Vec<Write>,
    pub(super) reads: u64,
    pub(super) failed_reads: u64,
    /// How often writes failed, and why.
    pub(super) why: BTreeMap<String, u64>,
}

impl Workload {
    pub(super) fn begin<S: Subject>(subject: Arc<S>) -> Workload {
        let shared = Arc::<Shared>::default();
        let task = tokio::spawn(run(subject, Arc::clone(&shared)));
        Workload { shared, task }
    }

    /// Returns whether a write was acknowledged on this timeline or a later one.
    pub(super) fn has_written_on(&self, timeline: u32) -> bool {
        let on_it = |write: &Write| write.told.is_ok_and(|receipt| receipt.timeline >= timeline);
        self.shared.calls().writes.iter().rev().any(on_it)
    }

    /// Begins no more calls, waits for the answers, and returns what all were told.
    pub(super) async fn end(self) -> Calls {
        self.shared.is_over.store(true, Relaxed);
        self.task.await.expect("the workload does not panic");
        std::mem::take(&mut *self.shared.calls())
    }
}

impl Shared {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run<S: Subject>(subject: Arc<S>, shared: Arc<Shared>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = JoinSet::new();
    let mut is_write = false;
    while !shared.is_over.load(Relaxed) {
        ticks.tick().await;
        is_write = !is_write;
        let (subject, shared) = (Arc::clone(&subject), Arc::clone(&shared));
        under_way.spawn(async move {
            if is_write { write(&*subject, &shared).await } else { read(&*subject, &shared).await }
        });
        while let Some(ended) = under_way.try_join_next() {
            ended.expect("a call does not panic");
        }
    }
    while let Some(ended) = under_way.join_next().await {
        ended.expect("a call does not panic");
    }
}

async fn write<S: Subject>(subject: &S, shared: &Shared) {
    let (id, begun) = (NEXT.fetch_add(1, Relaxed), Instant::now());
    let told = timeout(PATIENCE, subject.write(id)).await;
    let told = told.unwrap_or_else(|_| Err(Failure { effect: Effect::Unknown, why: "the caller left".to_owned() }));
    let ended = Instant::now();
    let mut calls = shared.calls();
    if let Err(failure) = &told {
        *calls.why.entry(failure.why.clone()).or_default() += 1;
    }
    calls.writes.push(Write { id, begun, ended, told: told.map_err(|failure| failure.effect) });
}

async fn read<S: Subject>(subject: &S, shared: &Shared) {
    let told = timeout(PATIENCE, subject.read()).await;
    let mut calls = shared.calls();
    calls.reads += 1;
    calls.failed_reads += u64::from(!matches!(told, Ok(Ok(()))));
}

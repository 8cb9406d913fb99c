//! The task that makes the changes of state that time alone causes, when they are due.
//!
//! A breaker with `automatic_transitions` has one such task, from when its circuit first opens. The task holds the
//! breaker only while it asks, and ends with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout_at;

use crate::clock::now;
use crate::policy::Deadline;

/// A breaker as its timer sees it.
pub(super) trait Due: Send + Sync {
    /// Makes the changes that time has caused until `now`. Returns when time alone causes the next.
    fn advance(&self, now: Instant) -> Option<Deadline>;
}

#[derive(Debug)]
pub(super) struct Timer {
    breaker: Weak<dyn Due>,
    /// Another change is due now, or at another time.
    rescheduled: Arc<Notify>,
    is_running: Arc<AtomicBool>,
}

impl Timer {
    pub(super) fn new(breaker: Weak<dyn Due>) -> Self {
        Self { breaker, rescheduled: Arc::default(), is_running: Arc::default() }
    }

    /// Makes the task ask again when the next change is due. Starts the task if there is none. The caller holds no
    /// lock, because this may wake a task.
    pub(super) fn reschedule(&self) {
        self.rescheduled.notify_one();
        if self.is_running.load(Ordering::Acquire) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        if !self.is_running.swap(true, Ordering::AcqRel) {
            let running = Running(Arc::clone(&self.is_running));
            runtime.spawn(run(Weak::clone(&self.breaker), Arc::clone(&self.rescheduled), running));
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.rescheduled.notify_one();
    }
}

/// The task exists. When it ends, perhaps with its runtime, another one may start.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

async fn run(breaker: Weak<dyn Due>, rescheduled: Arc<Notify>, _running: Running) {
    loop {
        let Some(due) = breaker.upgrade().map(|breaker| breaker.advance(now())) else { return };
        match due {
            Some(due) => drop(timeout_at(due.instant().into(), rescheduled.notified()).await),
            None => rescheduled.notified().await,
        }
    }
}

//! What time brings, told when it is due: a task that sleeps until then and asks.
//!
//! It holds the breaker only while it asks, and ends with it. There is one for each breaker, begun when it is first needed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout_at;

use crate::clock::now;
use crate::policy::Deadline;

/// A breaker, as its timer sees it.
pub(super) trait Due: Send + Sync {
    /// Lets the time until `now` take effect. Returns when time alone will change the state next.
    fn due(&self, now: Instant) -> Option<Deadline>;
}

#[derive(Debug)]
pub(super) struct Timer {
    breaker: Weak<dyn Due>,
    /// When the state changes, time may bring something else.
    changed: Arc<Notify>,
    is_running: Arc<AtomicBool>,
}

impl Timer {
    pub(super) fn new(breaker: Weak<dyn Due>) -> Self {
        Self { breaker, changed: Arc::default(), is_running: Arc::default() }
    }

    /// Looks at what time will bring next. It holds no lock, since a task may be woken.
    pub(super) fn look(&self) {
        self.changed.notify_one();
        if self.is_running.load(Ordering::Acquire) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        if !self.is_running.swap(true, Ordering::AcqRel) {
            let running = Running(Arc::clone(&self.is_running));
            runtime.spawn(run(Weak::clone(&self.breaker), Arc::clone(&self.changed), running));
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}

/// The task is there. When it ends, with its runtime perhaps, another one may begin.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

async fn run(breaker: Weak<dyn Due>, changed: Arc<Notify>, _running: Running) {
    loop {
        let Some(due) = breaker.upgrade().map(|breaker| breaker.due(now())) else { return };
        match due {
            Some(due) => drop(timeout_at(due.instant().into(), changed.notified()).await),
            None => changed.notified().await,
        }
    }
}

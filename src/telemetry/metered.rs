//! What the recorder of the `metrics` crate is told. Feature `metrics`; without it `unmetered` stands here, and nothing is left of any of this.
//!
//! Handles are made once for each pool, when a recorder is there: one that was made before would be silent for ever. Until then nothing is measured. What can be
//! counted, or seen from outside, is told once a round by the maintenance ([`Meter::look`]); callers pay for nothing but the times of their own connection.
//!
//! A recorder is foreign code: it is never called under a lock.

mod handles;
mod operations;

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use metrics::Gauge;
use parking_lot::Mutex;

pub(crate) use self::handles::Given;
use self::handles::{Handles, Source};
use self::operations::Operations;
use super::{Fault, Observer};
use crate::clock::now;
use crate::event::{Event, EventKind};
use crate::metrics::{
    BREAKER_TRANSITIONS, EVENT, EVENTS, FROM, HOLD_INFLATION, OPERATION, REASON, RETRIES, SEVERITY, TO,
};
use crate::operation::Operation;
use crate::policy::{Refused, Transition};
use crate::status::Status;

/// So many operations are remembered as inflated.
const MOST_INFLATED: usize = 64;

/// When something began, if it is measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stamp(Option<Instant>);

/// Of one pool. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Meter(Arc<Inner>);

struct Inner {
    source: Source,
    min_idle: usize,
    handles: OnceLock<Handles>,
    operations: Operations,
    /// What was told so far: the refused, and the callers that found a connection idle.
    told: Mutex<(Refused, u64)>,
    inflated: Mutex<HashMap<Operation, Gauge>>,
}

impl Meter {
    pub(crate) fn new(pool: Arc<str>, min_idle: usize, given: Given) -> Self {
        let meter = Self(Arc::new(Inner {
            source: Source::new(pool, given),
            min_idle,
            handles: OnceLock::new(),
            operations: Operations::default(),
            told: Mutex::default(),
            inflated: Mutex::default(),
        }));
        meter.find_recorder();
        meter
    }

    #[inline]
    fn handles(&self) -> Option<&Handles> {
        self.0.handles.get()
    }

    /// Looks for one that was installed late.
    fn find_recorder(&self) -> Option<&Handles> {
        let Inner { source, handles, .. } = &*self.0;
        if handles.get().is_none() && source.is_there() {
            let _ = handles.set(Handles::new(source));
        }
        handles.get()
    }

    /// It begins now.
    #[inline]
    pub(crate) fn start(&self) -> Stamp {
        Stamp(self.handles().map(|_| now()))
    }

    /// A caller got a connection after a wait.
    pub(crate) fn waited(&self, wait: Duration) {
        if let Some(handles) = self.handles() {
            handles.wait_time.record(wait);
        }
    }

    /// A caller has given its connection back.
    #[inline]
    pub(crate) fn used(&self, since: Stamp) {
        if let Some(since) = since.0 {
            self.record_use(since);
        }
    }

    fn record_use(&self, since: Instant) {
        let Some(handles) = self.handles() else { return };
        // A recorder that panics says so on stderr, and the connection comes back all the same.
        let _ = catch_unwind(AssertUnwindSafe(|| handles.use_time.record(now().saturating_duration_since(since))));
    }

    pub(crate) fn connected(&self, took: Duration) {
        if let Some(handles) = self.handles() {
            handles.create_time.record(took);
        }
    }

    pub(crate) fn connect_failed(&self) {
        if let Some(handles) = self.handles() {
            handles.connect_failures.increment(1);
        }
    }

    pub(crate) fn lost(&self) {
        if let Some(handles) = self.handles() {
            handles.connections_lost.increment(1);
        }
    }

    pub(crate) fn settle_failed(&self) {
        if let Some(handles) = self.handles() {
            handles.settle_failures.increment(1);
        }
    }

    /// An operation is over, well or not.
    pub(crate) fn operated(&self, name: Option<&'static str>, took: Duration, fault: Option<Fault>) {
        if self.handles().is_some() {
            self.0.operations.record(&self.0.source, name, fault, took);
        }
    }

    /// The same for one that began then.
    pub(crate) fn operated_since(&self, since: Stamp, name: Option<&'static str>, fault: Option<Fault>) {
        if let Some(since) = since.0 {
            self.operated(name, now().saturating_duration_since(since), fault);
        }
    }

    /// A call runs again.
    pub(crate) fn retried(&self, reason: &str) {
        if self.handles().is_some() {
            self.0.source.counter(&RETRIES, [(REASON, reason.to_owned().into())]).increment(1);
        }
    }

    /// A call does not run again, though it might have.
    pub(crate) fn gave_up(&self) {
        if let Some(handles) = self.handles() {
            handles.retry_exhausted.increment(1);
        }
    }

    /// `is_now`: it is the pool's state, too.
    pub(crate) fn follow(&self, transition: &Transition, is_now: bool) {
        let Some(handles) = self.handles() else { return };
        let labels = [(FROM, transition.from.as_str().into()), (TO, transition.to.as_str().into())];
        self.0.source.counter(&BREAKER_TRANSITIONS, labels).increment(1);
        if is_now {
            handles.is_in(Some(transition.to));
        }
    }

    /// How the pool is, once a round. `counted` since the pool began: the refused, and the callers that found a connection idle.
    pub(crate) fn look(&self, status: &Status, counted: impl FnOnce() -> (Refused, u64)) {
        let was_there = self.handles().is_some();
        let Some(handles) = self.find_recorder() else { return };
        handles.look(status, self.0.min_idle);
        self.count(handles, was_there, counted);
    }

    /// Counted under the lock, so that nobody who comes late with less has it told again.
    fn count(&self, handles: &Handles, was_there: bool, counted: impl FnOnce() -> (Refused, u64)) {
        let ((before, at_once_before), (refused, at_once)) = {
            let mut told = self.0.told.lock();
            let counted = counted();
            (mem::replace(&mut *told, counted), counted)
        };
        // Refusals are told whenever they were; but zeros beyond number would take long.
        let at_once = if was_there { at_once.saturating_sub(at_once_before) } else { 0 };
        handles.count(refused - before, at_once);
    }

    /// The pool is gone: what is now is nothing. What was counted since the last round is told.
    pub(crate) fn end(&self, counted: Option<impl FnOnce() -> (Refused, u64)>) {
        if let Some(handles) = self.handles() {
            if let Some(counted) = counted {
                self.count(handles, true, counted);
            }
            handles.end();
        }
        let inflated = mem::take(&mut *self.0.inflated.lock());
        inflated.values().for_each(|gauge| gauge.set(0.0));
    }

    /// Counts events.
    #[expect(clippy::unnecessary_wraps, reason = "without the feature there is none")]
    pub(crate) fn observer(&self) -> Option<Arc<dyn Observer>> {
        Some(Arc::new(self.clone()))
    }

    fn inflation(&self, operation: Operation) -> Option<Gauge> {
        let (known, count) = {
            let inflated = self.0.inflated.lock();
            (inflated.get(&operation).cloned(), inflated.len())
        };
        if known.is_some() || count >= MOST_INFLATED {
            return known;
        }
        let gauge = self.0.source.gauge(&HOLD_INFLATION, [(OPERATION, operation.to_string().into())]);
        Some(self.0.inflated.lock().entry(operation).or_insert(gauge).clone())
    }
}

impl Observer for Meter {
    fn on_event(&self, event: &Event) {
        if self.handles().is_none() {
            return;
        }
        let labels = [(EVENT, event.kind.as_str().into()), (SEVERITY, event.severity().as_str().into())];
        self.0.source.counter(&EVENTS, labels).increment(1);
        let (operation, ratio) = match event.kind {
            EventKind::HoldsInflated { operation, from, to, .. } => (operation, to.as_secs_f64() / from.as_secs_f64()),
            EventKind::HoldsNormal { operation, .. } => (operation, 0.0),
            _ => return,
        };
        if let Some(gauge) = self.inflation(operation) {
            gauge.set(ratio);
        }
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").field("is_recorded", &self.handles().is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

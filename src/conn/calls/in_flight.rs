//! A call under way, from its begin to its end.

use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::time;

use super::activity::Activity;
use super::{CallsState, Progress};
use crate::clock::now;
use crate::conn::call_options::CallOptions;
use crate::conn::link::Link;
use crate::conn::wire::{TransactionStatus, Wire};
use crate::error::Error;
use crate::policy::Deadline;
use crate::telemetry::{Span, Stamp};

/// A call under way. Dropped without its answer, it is abandoned.
pub(crate) struct InFlightCall {
    pub(super) link: Arc<Link>,
    pub(super) options: CallOptions,
    pub(super) begun: Instant,
    /// The number of this call on its connection. `None` if others were under way when it began.
    number: Option<u64>,
    pub(super) before: Before,
    pub(super) is_answered: bool,
    /// Whether the call runs in a transaction of its own, whose COMMIT it has not sent.
    pub(super) is_uncommitted: bool,
    /// When the operation began that ends with this call, if the operation is more than the call.
    pub(super) whole: Option<Stamp>,
    /// Ends with the call.
    pub(super) span: Span,
}

/// The state of the connection when a call began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    /// Writes attempted.
    pub(super) attempts: u64,
    /// Commits that the wire has seen.
    pub(super) commits: u64,
    /// Rows and pieces of COPY data that the wire has read.
    pub(super) items: u64,
    /// Whether a transaction was open.
    pub(super) was_open: bool,
}

impl Before {
    fn now(wire: &Wire) -> Self {
        let was_open = wire.status() != TransactionStatus::Idle;
        Self { attempts: wire.attempts(), commits: wire.commits(), items: wire.items(), was_open }
    }
}

impl InFlightCall {
    /// Begins a call at once. Returns `None` if no call may begin now, or abandoned calls may have left something.
    pub(super) fn begin_at_once(link: &Arc<Link>, options: CallOptions) -> Option<Self> {
        let mut state = link.calls.lock();
        if state.leftovers.is_empty() { Self::begin_in(&mut state, link, options) } else { None }
    }

    fn begin_in(state: &mut CallsState, link: &Arc<Link>, options: CallOptions) -> Option<Self> {
        let begun = now();
        if !state.activity.begin(begun) {
            return None;
        }
        state.begun += 1;
        let number = Some(state.begun).filter(|_| state.activity.under_way() == 1);
        state.progress = Progress::default();
        link.set_used(true);
        Some(Self {
            link: Arc::clone(link),
            options,
            begun,
            number,
            before: Before::now(&link.wire),
            is_answered: false,
            is_uncommitted: false,
            whole: None,
            span: Span::default(),
        })
    }

    /// Begins a call once no abandoned one is under way. Has no time limit. Abandoned calls may have left something:
    /// see [`clear_up`](crate::conn::settle::clear_up).
    pub(super) async fn begin(link: &Arc<Link>, options: CallOptions) -> Self {
        loop {
            let begun = Self::begin_in(&mut link.calls.lock(), link, options);
            if let Some(call) = begun {
                return call;
            }
            link.calls.wait_while_reserved().await;
            // A connection that has ended is quiet as well. Its driver reports the end to the call.
            link.monitor.quiet().await;
            link.calls.clear_abandoned();
        }
    }

    /// Everything that happened on the connection until now counts as before the call.
    pub(super) fn restarted(mut self) -> Self {
        self.before = Before::now(&self.link.wire);
        self
    }

    /// The metrics record the call's end as that of an operation which began at `begun`.
    pub(super) fn measure_from(&mut self, begun: Stamp) {
        self.whole = Some(begun);
    }

    /// Records the outcome of the call in this span.
    pub(super) fn with_span(mut self, span: Span) -> Self {
        self.span = span;
        self
    }

    /// Waits for one step of the call. Ends the call if the step fails, or is not over at `limit`.
    pub(super) async fn bounded<T>(
        self,
        limit: Deadline,
        step: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<(T, Self), Error> {
        self.bounded_by(|| limit, step).await
    }

    /// As [`bounded`](Self::bounded), with a limit that may move to a later moment while the step goes on.
    pub(super) async fn bounded_by<T>(
        self,
        limit: impl Fn() -> Deadline,
        step: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<(T, Self), Error> {
        let mut step = pin!(step);
        let step = poll_fn(|cx| {
            let panics = SealOnPanic(&self.link);
            let polled = step.as_mut().poll(cx);
            mem::forget(panics);
            polled
        });
        match self.link.calls.timer.within(|| limit().instant().into(), step).await {
            Some(Ok(value)) => Ok((value, self)),
            Some(Err(error)) => Err(self.explain(error).await),
            None => Err(self.timed_out()),
        }
    }

    /// Returns whether no other call has been under way on the connection since this one began.
    pub(super) fn is_alone(&self) -> bool {
        self.number == Some(self.link.calls.begun())
    }

    /// The driver now gets the request that may change data.
    pub(super) fn mark_executing(&self) {
        self.link.calls.mark_executing(self.link.wire.attempts());
    }

    /// Returns whether nothing was sent that can have changed data. If other calls are or were under way at the same
    /// time, what any of them sent counts.
    pub(super) fn has_changed_nothing(&self) -> bool {
        let progress = self.link.calls.lock().progress;
        let before = match progress {
            Progress::Preparing if self.is_alone() => return true,
            Progress::Executing { attempts } if self.is_alone() => attempts.max(self.before.attempts),
            _ => self.before.attempts,
        };
        self.link.wire.attempts() == before
    }
}

impl Drop for InFlightCall {
    fn drop(&mut self) {
        self.link.watcher.on_end();
        if !self.is_answered {
            // The driver may have been preparing a statement.
            self.link.calls.set_suspects_statements(true);
        }
        let mut state = self.link.calls.lock();
        let was_reserved = state.activity.is_reserved();
        state.activity.end(self.is_answered);
        state.leftovers.transaction |= !self.is_answered && !self.before.was_open;
        // A cancel could hit untracked statements. If there may be any, the pool cancels only after the lease.
        let is_to_stop = state.activity == Activity::Abandoned && !self.link.is_untracked();
        let runtime = if is_to_stop { Handle::try_current().ok() } else { None };
        if runtime.is_some() {
            state.activity.begin_stop();
        }
        drop(state);
        match runtime {
            Some(runtime) => _ = runtime.spawn(Stop { link: Arc::clone(&self.link), is_quiet: false }.run()),
            None if was_reserved => self.link.calls.released.notify_waiters(),
            None => {}
        }
    }
}

/// Seals the connection if the step that is being polled panics.
///
/// The panic may be that of a caller's value while the driver was encoding it. The driver then sends the unfinished
/// message with its next one, and the server ends the session. The connection must not reach another caller.
struct SealOnPanic<'a>(&'a Link);

impl Drop for SealOnPanic<'_> {
    fn drop(&mut self) {
        self.0.seal();
    }
}

/// Stops the abandoned statements in the background.
struct Stop {
    link: Arc<Link>,
    is_quiet: bool,
}

impl Stop {
    async fn run(mut self) {
        self.is_quiet = time::timeout(self.link.trips.settling(), self.link.stop_during_lease()).await == Ok(true);
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.link.calls.end_stop(self.is_quiet);
    }
}

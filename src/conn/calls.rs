//! The calls on one connection: how many are under way, and whether one was given up.
//!
//! A call that ends without its answer (a timeout, a dropped future, a stream read by half) leaves a statement behind that may still be
//! running. From then on no call begins on this connection until it is known to be quiet; and it is stopped on the server as soon as no
//! other call could be hit by that.

pub(super) mod copy;
mod endings;
pub(super) mod queries;
mod reading;
pub(super) mod rows;
pub(super) mod statements;
mod timer;
pub(super) mod unhurried;
pub(super) mod watcher;

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time;

use self::queries::{CallOptions, now};
use self::timer::ReusableTimer;
use super::link::Link;
use super::wire::TransactionStatus;
use crate::policy::{Deadline, Retry};
use crate::telemetry::{Fault, Span, Stamp};

#[derive(Default)]
pub(super) struct Calls {
    state: Mutex<CallsState>,
    stopped: Notify,
    timer: ReusableTimer,
}

#[derive(Default)]
struct CallsState {
    under_way: usize,
    /// Since when any is.
    since: Option<Instant>,
    /// A call was given up since the connection was last known to be quiet.
    given_up: bool,
    /// The statements given up are being stopped, in the background.
    is_stopping: bool,
    /// A call has the connection to itself.
    is_exclusive: bool,
    /// A cancel was sent, and no statement has passed since: it might yet hit the next.
    mark_cancel_sent: bool,
    /// A call given up may have begun a transaction.
    may_be_open: bool,
    timeouts: u64,
    begun: u64,
    /// How far the latest call has come, as far as it concerns what the server may have changed for it.
    progress: Progress,
    /// A statement was found to be outdated or lost.
    was_outdated: bool,
    /// What the last failure said of another try of the whole call.
    retry: Retry,
    /// What it is called.
    fault: Fault,
}

/// What of a call the server may have seen.
#[derive(Debug, Clone, Copy)]
enum Progress {
    /// Nothing that changes anything: a Parse, or the data of a COPY without their end. What does is still on this side, and not given to the driver.
    Preparing,
    /// What changes something was given to the driver after so many writes had been attempted.
    Executing { attempts: u64 },
}

impl Default for Progress {
    fn default() -> Self {
        Self::Executing { attempts: 0 }
    }
}

impl CallsState {
    fn may_begin(&self) -> bool {
        !self.is_stopping && !self.is_exclusive
    }
}

impl Calls {
    /// Whether no call is under way, and none was given up.
    pub(super) fn are_over(&self) -> bool {
        let state = self.lock();
        state.under_way == 0 && !state.given_up
    }

    /// Whether one was given up, since the connection was last known to be quiet.
    pub(super) fn were_given_up(&self) -> bool {
        self.lock().given_up
    }

    pub(super) fn are_under_way(&self) -> bool {
        self.lock().under_way > 0
    }

    /// Since when any call is under way.
    pub(super) fn running_since(&self) -> Option<Instant> {
        let state = self.lock();
        state.since.filter(|_| state.under_way > 0)
    }

    /// Calls that timed out, since start-up.
    pub(super) fn timeouts(&self) -> u64 {
        self.lock().timeouts
    }

    /// Calls that were begun, since start-up.
    pub(super) fn begun(&self) -> u64 {
        self.lock().begun
    }

    /// From here on until [`executes`](Self::executes), the call sends nothing that changes anything.
    pub(super) fn prepares(&self) {
        self.lock().progress = Progress::Preparing;
    }

    /// The call now gives to the driver what may change something; so many writes were attempted before.
    pub(super) fn executes(&self, attempts: u64) {
        self.lock().progress = Progress::Executing { attempts };
    }

    pub(super) fn were_outdated(&self) -> bool {
        self.lock().was_outdated
    }

    pub(super) fn set_outdated(&self, was_outdated: bool) {
        self.lock().was_outdated = was_outdated;
    }

    /// What the last failure since [`forget_failure`](Self::forget_failure) said of another try of the whole call.
    pub(super) fn retry(&self) -> Retry {
        self.lock().retry
    }

    /// What that failure is called; without one, as the caller's own.
    pub(super) fn fault(&self) -> Fault {
        self.lock().fault
    }

    pub(super) fn forget_failure(&self) {
        let mut state = self.lock();
        (state.retry, state.fault) = (Retry::Never, Fault::default());
    }

    pub(super) fn forget_fault(&self) {
        self.lock().fault = Fault::default();
    }

    /// The connection is quiet: nothing of the calls given up is left.
    pub(super) fn clear_abandoned(&self) {
        self.lock().given_up = false;
    }

    /// A cancel is about to be sent.
    pub(super) fn mark_cancel_sent(&self) {
        self.lock().mark_cancel_sent = true;
    }

    /// Whether a cancel might hit the next statement.
    pub(super) fn may_be_hit(&self) -> bool {
        self.lock().mark_cancel_sent
    }

    /// Whether a call given up may have begun a transaction.
    pub(super) fn may_be_open(&self) -> bool {
        self.lock().may_be_open
    }

    /// Nothing is left of the calls given up: no cancel that could hit another, no transaction.
    pub(super) fn clear_leftovers(&self) {
        let mut state = self.lock();
        (state.mark_cancel_sent, state.may_be_open) = (false, false);
    }

    /// Waits while calls given up are being stopped in the background, or one has the connection to itself.
    pub(super) async fn stopped(&self) {
        loop {
            let stopped = self.stopped.notified();
            if self.lock().may_begin() {
                return;
            }
            stopped.await;
        }
    }

    /// For the only call under way: no other begins until it [admits](Self::admit_others) them or is over. If it is given up, what it leaves is known
    /// by then. Tells whether it is the only one.
    pub(super) fn exclude_others(&self) -> bool {
        let mut state = self.lock();
        state.is_exclusive = state.under_way == 1;
        state.is_exclusive
    }

    pub(super) fn admit_others(&self) {
        self.lock().is_exclusive = false;
        self.stopped.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, CallsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way. Dropped without its answer, it is given up.
pub(crate) struct InFlightCall {
    link: Arc<Link>,
    /// Writes attempted before it began.
    attempts: u64,
    /// Commits heard before it began.
    commits: u64,
    /// Rows and pieces of COPY data read before it began.
    items: u64,
    /// Which call of the connection it is; `None` if others were under way when it began.
    number: Option<u64>,
    begun: Instant,
    options: CallOptions,
    /// Whether it began within a transaction.
    was_open: bool,
    is_answered: bool,
    /// When the operation began whose end is that of this call, if the operation is more than the call.
    whole: Option<Stamp>,
    /// Ends with it.
    span: Span,
}

impl InFlightCall {
    /// Begins a call, unless something of the calls given up before may be left.
    pub(super) fn begin_at_once(link: &Arc<Link>, options: CallOptions) -> Option<Self> {
        let mut state = link.calls.lock();
        if state.mark_cancel_sent || state.may_be_open { None } else { Self::begin_in(&mut state, link, options) }
    }

    fn begin_in(state: &mut CallsState, link: &Arc<Link>, options: CallOptions) -> Option<Self> {
        if state.given_up || !state.may_begin() {
            return None;
        }
        let begun = now();
        if state.under_way == 0 {
            state.since = Some(begun);
        }
        state.under_way += 1;
        state.begun += 1;
        let number = Some(state.begun).filter(|_| state.under_way == 1);
        state.progress = Progress::default();
        link.set_used(true);
        let was_open = link.wire.status() != TransactionStatus::Idle;
        let wire = &link.wire;
        let (attempts, commits, items) = (wire.attempts(), wire.commits(), wire.items());
        Some(Self {
            link: Arc::clone(link),
            attempts,
            commits,
            items,
            number,
            begun,
            options,
            was_open,
            is_answered: false,
            whole: None,
            span: Span::default(),
        })
    }

    /// Begins a call once nothing of the calls given up before is under way. Not bounded. Something may be left: see
    /// [`clear_up`](super::settle::clear_up).
    pub(super) async fn begin(link: &Arc<Link>, options: CallOptions) -> Self {
        loop {
            let begun = Self::begin_in(&mut link.calls.lock(), link, options);
            if let Some(flight) = begun {
                return flight;
            }
            link.calls.stopped().await;
            // A connection that has ended is quiet, too: its driver says so to the call.
            link.pulse.quiet().await;
            link.calls.clear_abandoned();
        }
    }

    /// It begins only now.
    pub(super) fn anew(mut self) -> Self {
        self.was_open = self.link.wire.status() != TransactionStatus::Idle;
        self.attempts = self.link.wire.attempts();
        self.commits = self.link.wire.commits();
        self.items = self.link.wire.items();
        self
    }

    /// Its end is also that of the operation that began at `begun`.
    pub(super) fn measure_from(&mut self, begun: Stamp) {
        self.whole = Some(begun);
    }

    /// What becomes of it is told to this span.
    pub(super) fn under(mut self, span: Span) -> Self {
        self.span = span;
        self
    }

    /// What `step` comes to, or `None` at the deadline.
    pub(super) async fn within<T>(&self, limit: Deadline, step: impl Future<Output = T>) -> Option<T> {
        self.link.calls.timer.within(limit.instant().into(), step).await
    }

    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// Whether no other call has been under way on the connection since it began.
    pub(super) fn is_alone(&self) -> bool {
        self.number == Some(self.link.calls.begun())
    }

    /// What changes something is now given to the driver.
    pub(super) fn executes(&self) {
        self.link.calls.executes(self.link.wire.attempts());
    }

    /// Whether nothing was sent that can have changed anything. If other calls are or were under way at the same time, what any of them sent counts.
    fn has_changed_nothing(&self) -> bool {
        let progress = self.link.calls.lock().progress;
        let before = match progress {
            Progress::Preparing if self.is_alone() => return true,
            Progress::Executing { attempts } if self.is_alone() => attempts.max(self.attempts),
            _ => self.attempts,
        };
        self.link.wire.attempts() == before
    }
}

impl Drop for InFlightCall {
    fn drop(&mut self) {
        self.link.watcher.on_end();
        let mut state = self.link.calls.lock();
        state.under_way -= 1;
        state.given_up |= !self.is_answered;
        state.may_be_open |= !self.is_answered && !self.was_open;
        let was_exclusive = mem::take(&mut state.is_exclusive);
        // Calls that are not tracked could be hit: then only the clean-up after the lease may cancel.
        let is_to_stop = state.under_way == 0 && state.given_up && !state.is_stopping && !self.link.is_untracked();
        let runtime = if is_to_stop { Handle::try_current().ok() } else { None };
        state.is_stopping |= runtime.is_some();
        drop(state);
        match runtime {
            Some(runtime) => _ = runtime.spawn(Stopping(Arc::clone(&self.link)).run()),
            None if was_exclusive => self.link.calls.stopped.notify_waiters(),
            None => {}
        }
    }
}

/// The statements given up are being stopped.
struct Stopping(Arc<Link>);

impl Stopping {
    async fn run(self) {
        if time::timeout(self.0.trips.settling(), self.0.stop()).await == Ok(true) {
            self.0.calls.clear_abandoned();
        }
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        self.0.calls.lock().is_stopping = false;
        self.0.calls.stopped.notify_waiters();
    }
}

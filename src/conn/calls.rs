//! The calls on one connection: which are under way, whether one was abandoned, and what the last failure was.
//!
//! [`Activity`] decides which calls may begin. A call may end without its answer: by a timeout, a dropped future, or a
//! stream that was not read to its end. The pool then stops it on the server, once the cancel can hit no other call.

mod activity;
mod bulk;
pub(super) mod copy;
mod endings;
pub(super) mod in_flight;
mod many;
#[cfg(feature = "testing")]
mod pretended;
pub(super) mod queries;
mod reading;
pub(super) mod rows;
pub(super) mod statements;
mod timer;
mod tracked;
pub(super) mod watcher;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use self::activity::{Activity, Exclusion, Leftovers};
#[cfg(feature = "testing")]
pub(super) use self::in_flight::InFlightCall;
use self::timer::ReusableTimer;
use crate::policy::Retry;
use crate::telemetry::Fault;

/// The state of the calls of one connection.
#[derive(Default)]
pub(super) struct Calls {
    state: Mutex<CallsState>,
    /// Notified when the connection is no longer [reserved](Activity::is_reserved).
    released: Notify,
    timer: ReusableTimer,
    /// A COPY to the server is between two steps.
    awaits_copy_data: AtomicBool,
    /// The driver may have lost count of the answers, so the pool has sealed the connection.
    is_uncounted: AtomicBool,
    /// The statements on the server may be others than those that the caches and the driver know.
    suspects_statements: AtomicBool,
}

#[derive(Default)]
struct CallsState {
    activity: Activity,
    leftovers: Leftovers,
    /// Calls that timed out since the connection was dialed.
    timeouts: u64,
    /// Calls that failed after they had done a part of their work in the caller's transaction.
    done_in_part: u64,
    /// Calls that have begun since the connection was dialed.
    begun: u64,
    /// How far the latest call is.
    progress: Progress,
    /// A statement was found to be outdated or lost.
    is_outdated: bool,
    /// Whether the whole call may run again after the last failure.
    retry: Retry,
    /// How metrics name the last failure.
    fault: Fault,
    /// How many calls had begun when one last failed because the database gave no answer. 0 if none has.
    unanswered_at: u64,
}

/// How far a call is.
#[derive(Debug, Clone, Copy)]
enum Progress {
    /// Nothing was sent that changes data, only a Parse, or COPY data without its end.
    Preparing,
    /// The driver has the request that may change data. `attempts` writes had been attempted before.
    Executing { attempts: u64 },
}

impl Default for Progress {
    fn default() -> Self {
        Self::Executing { attempts: 0 }
    }
}

impl Calls {
    /// Returns whether no call is under way, and no abandoned one is left.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().activity == Activity::Idle
    }

    /// Returns whether a call was abandoned, and the connection is not known to be quiet.
    pub(super) fn has_abandoned(&self) -> bool {
        self.lock().activity.has_abandoned()
    }

    /// Returns whether any call is under way.
    pub(super) fn is_running(&self) -> bool {
        self.lock().activity.under_way() > 0
    }

    /// Returns since when calls have been under way without a pause.
    pub(super) fn running_since(&self) -> Option<Instant> {
        self.lock().activity.since()
    }

    /// Returns whether a COPY waits for its caller to send the next piece of data, or to finish.
    pub(super) fn awaits_copy_data(&self) -> bool {
        self.awaits_copy_data.load(Relaxed)
    }

    fn set_awaits_copy_data(&self, awaits: bool) {
        self.awaits_copy_data.store(awaits, Relaxed);
    }

    /// Returns whether the pool has sealed the connection because the driver may have lost count of the answers.
    pub(super) fn is_uncounted(&self) -> bool {
        self.is_uncounted.load(Relaxed)
    }

    fn mark_uncounted(&self) {
        self.is_uncounted.store(true, Relaxed);
    }

    /// Returns whether the server may have statements that nobody knows, or may have dropped some of the driver's own.
    pub(super) fn suspects_statements(&self) -> bool {
        self.suspects_statements.load(Relaxed)
    }

    pub(super) fn set_suspects_statements(&self, suspects: bool) {
        self.suspects_statements.store(suspects, Relaxed);
    }

    /// Calls that timed out since the connection was dialed.
    pub(super) fn timeouts(&self) -> u64 {
        self.lock().timeouts
    }

    /// Calls that failed after they had done a part of their work, since the connection was dialed.
    pub(super) fn done_in_part(&self) -> u64 {
        self.lock().done_in_part
    }

    fn on_done_in_part(&self) {
        self.lock().done_in_part += 1;
    }

    /// Calls that have begun since the connection was dialed.
    pub(super) fn begun(&self) -> u64 {
        self.lock().begun
    }

    /// From now on until [`mark_executing`](Self::mark_executing), the call sends nothing that changes data.
    pub(super) fn mark_preparing(&self) {
        self.lock().progress = Progress::Preparing;
    }

    /// Returns whether the latest call has sent nothing that changes data.
    fn is_preparing(&self) -> bool {
        matches!(self.lock().progress, Progress::Preparing)
    }

    /// The driver now gets the request that may change data. `attempts` writes were attempted before.
    pub(super) fn mark_executing(&self, attempts: u64) {
        self.lock().progress = Progress::Executing { attempts };
    }

    /// Returns whether a statement was found to be outdated or lost.
    pub(super) fn is_outdated(&self) -> bool {
        self.lock().is_outdated
    }

    pub(super) fn set_outdated(&self, is_outdated: bool) {
        self.lock().is_outdated = is_outdated;
    }

    /// Returns whether the whole call may run again, by the last failure since [`clear_failure`](Self::clear_failure).
    pub(super) fn retry(&self) -> Retry {
        self.lock().retry
    }

    /// How metrics name the last failure. Without a failure, the fault is the caller's own.
    pub(super) fn fault(&self) -> Fault {
        self.lock().fault
    }

    fn set_retry(&self, retry: Retry) {
        self.lock().retry = retry;
    }

    /// A call has failed. `is_unavailable`: the database gave no answer.
    fn on_failure(&self, fault: Fault, is_unavailable: bool) {
        let mut state = self.lock();
        state.fault = fault;
        state.unanswered_at = if is_unavailable { state.begun } else { 0 };
    }

    /// Returns whether the database gave no answer to the last call, since [`clear_failure`](Self::clear_failure).
    pub(super) fn is_unavailable(&self) -> bool {
        let state = self.lock();
        state.unanswered_at > 0 && state.unanswered_at == state.begun
    }

    /// Records that a call is abandoned because its time is up.
    fn on_timeout(&self, retry: Retry) {
        let mut state = self.lock();
        state.timeouts += 1;
        state.retry = retry;
    }

    pub(super) fn clear_failure(&self) {
        let mut state = self.lock();
        (state.retry, state.fault, state.unanswered_at) = (Retry::Never, Fault::default(), 0);
    }

    pub(super) fn clear_fault(&self) {
        self.on_failure(Fault::default(), false);
    }

    /// The connection is quiet: no abandoned statement runs any more.
    pub(super) fn clear_abandoned(&self) {
        self.lock().activity.clear_abandoned();
    }

    /// A cancel is about to be sent.
    pub(super) fn mark_cancel_sent(&self) {
        self.lock().leftovers.cancel = true;
    }

    /// Returns whether a cancel could still hit the next statement.
    pub(super) fn has_pending_cancel(&self) -> bool {
        self.lock().leftovers.cancel
    }

    /// Returns whether an abandoned call may have begun a transaction.
    pub(super) fn can_be_in_transaction(&self) -> bool {
        self.lock().leftovers.transaction
    }

    /// Abandoned calls have left no cancel that could hit another statement, and no transaction.
    pub(super) fn clear_leftovers(&self) {
        self.lock().leftovers.clear();
    }

    /// Waits until neither one call nor the background stop of abandoned calls has the connection to itself.
    pub(super) async fn wait_while_reserved(&self) {
        loop {
            let released = self.released.notified();
            if !self.lock().activity.is_reserved() {
                return;
            }
            released.await;
        }
    }

    /// Gives the connection to the only call under way. No other call begins before that call
    /// [admits](Self::admit_others) others or ends. Changes nothing if it is not the only one.
    fn exclude_others(&self) -> Exclusion {
        self.lock().activity.exclude_others()
    }

    fn admit_others(&self) {
        self.lock().activity.admit_others();
        self.released.notify_waiters();
    }

    fn end_stop(&self, is_quiet: bool) {
        self.lock().activity.end_stop(is_quiet);
        self.released.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, CallsState> {
        self.state.lock()
    }
}

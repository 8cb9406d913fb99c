//! The findings of the task that drives a connection: whether the connection is at rest, which role the server has, and
//! why the connection ended.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use tokio::sync::{Notify, watch};
use tokio_postgres::{Connection, Notification};

use crate::conn::Role;
use crate::conn::inbox::{Inbox, Source};
use crate::conn::stream::Stream;
use crate::error::Lost;

#[derive(Debug)]
pub(in crate::conn) struct Monitor {
    pub(super) questions: Questions,
    /// An index into [`IS_READ_ONLY`].
    read_only: AtomicU8,
    dialed_as: Role,
    close_reason: CloseReason,
    /// Where notifications go, and the number of this connection there.
    inbox: OnceLock<(Arc<Inbox>, Source)>,
}

/// Not reported, no, yes.
const IS_READ_ONLY: [Option<bool>; 3] = [None, Some(false), Some(true)];
const READ_ONLY: u8 = 2;

impl Monitor {
    pub(super) fn new(connection: &Connection<Stream, Stream>) -> Self {
        let read_only = read_only(connection);
        let dialed_as = match read_only {
            READ_ONLY if is_on(connection, "in_hot_standby") == Some(true) => Role::Standby,
            READ_ONLY => Role::ReadOnly,
            _ => Role::Primary,
        };
        let (questions, close_reason) = (Questions::default(), CloseReason::default());
        Self { questions, read_only: read_only.into(), dialed_as, close_reason, inbox: OnceLock::new() }
    }

    /// The role of the server when the session began.
    pub(in crate::conn) fn dialed_as(&self) -> Role {
        self.dialed_as
    }

    pub(in crate::conn) fn close_reason(&self) -> &CloseReason {
        &self.close_reason
    }

    /// Passes notifications on to this inbox from now on. Only the first inbox counts.
    pub(in crate::conn) fn notify(&self, inbox: Arc<Inbox>, source: Source) {
        let _ = self.inbox.set((inbox, source));
    }

    /// The server has sent a notification. Without an inbox, a caller's LISTEN is the cause, and nobody reads it.
    pub(super) fn on_notification(&self, notification: Notification) {
        if let Some((inbox, source)) = self.inbox.get() {
            inbox.put(*source, notification.into());
        }
    }

    /// Waits until nothing is left to be written, read or answered. Returns `false` if the connection has ended.
    ///
    /// The answer is newer than the question: the task has polled the driver since, no request waits in the driver, and
    /// the driver does not wait for a caller to take rows from it. If the connection is at rest already, the answer
    /// comes at once and without a packet. Dropping the future withdraws the question.
    pub(in crate::conn) async fn quiet(&self) -> bool {
        self.questions.ask().await
    }

    /// Makes the task poll the driver, which then notices that the connection is sealed.
    pub(in crate::conn) fn wake(&self) {
        self.questions.task.wake();
    }

    /// Returns whether the server takes no writes: it is a standby, or its settings make sessions read-only. `None` if
    /// the server does not report its role. Servers before version 14 do not.
    pub(in crate::conn) fn is_read_only(&self) -> Option<bool> {
        IS_READ_ONLY[usize::from(self.read_only.load(Relaxed))]
    }

    /// Reads the server's role from the parameters that it has reported. A session that was made read-only from here
    /// says nothing about the server.
    pub(super) fn update_read_only(&self, connection: &Connection<Stream, Stream>, was_set_here: bool) {
        let read_only = read_only(connection);
        if !was_set_here || read_only != READ_ONLY {
            self.read_only.store(read_only, Relaxed);
        }
    }
}

/// An index into [`IS_READ_ONLY`].
fn read_only(connection: &Connection<Stream, Stream>) -> u8 {
    match (is_on(connection, "in_hot_standby"), is_on(connection, "default_transaction_read_only")) {
        (Some(true), _) | (_, Some(true)) => READ_ONLY,
        (Some(false), _) => 1,
        (None, _) => 0,
    }
}

fn is_on(connection: &Connection<Stream, Stream>, name: &str) -> Option<bool> {
    connection.parameter(name).map(|value| value == "on")
}

/// Questions to the task: is the connection at rest?
///
/// Only the task can answer, because requests wait in the driver's channel until the task polls. Questions are
/// numbered. When the task finds the connection at rest, it stores the number of the last question asked before its
/// poll. So there is no queue of questions, and a caller that loses interest has nothing to withdraw.
#[derive(Debug, Default)]
pub(super) struct Questions {
    asked: AtomicU64,
    /// The last question to which the answer is yes.
    answered: AtomicU64,
    is_over: AtomicBool,
    changed: Notify,
    task: AtomicWaker,
}

impl Questions {
    async fn ask(&self) -> bool {
        let question = self.asked.fetch_add(1, AcqRel) + 1;
        self.task.wake();
        loop {
            let changed = self.changed.notified(); // before the look: a later change is not missed
            if self.answered.load(Acquire) >= question {
                return true;
            }
            if self.is_over.load(Acquire) {
                return false;
            }
            changed.await;
        }
    }

    /// Registers the task, which is about to poll. Returns the last question that this poll can answer.
    pub(super) fn begin_poll(&self, task: &Waker) -> u64 {
        self.task.register(task);
        self.asked.load(Acquire)
    }

    /// The task polled after `question` had been asked, and found the connection at rest.
    pub(super) fn answer(&self, question: u64) {
        if self.answered.load(Acquire) < question {
            self.answered.store(question, Release);
            self.changed.notify_waiters();
        }
    }

    /// The task has ended: no question is answered any more.
    pub(super) fn end(&self) {
        self.is_over.store(true, Release);
        self.changed.notify_waiters();
    }
}

/// Why the connection ended.
///
/// The driver reports "connection closed" to its callers, and nothing else. The task knows the cause, and writes it
/// here before it drops the driver. So a caller that waits for an answer finds the cause.
#[derive(Debug, Default)]
pub(in crate::conn) struct CloseReason(watch::Sender<End>);

#[derive(Debug, Default)]
enum End {
    #[default]
    NotYet,
    /// The pool or the owner closed the connection.
    Graceful,
    Lost(Arc<Lost>),
}

impl CloseReason {
    /// Returns why the connection was lost, if that is known yet.
    pub(in crate::conn) fn cause(&self) -> Option<Arc<Lost>> {
        match &*self.0.borrow() {
            End::NotYet | End::Graceful => None,
            End::Lost(lost) => Some(Arc::clone(lost)),
        }
    }

    /// Waits for the end, and returns why the connection was lost. Call this only for a connection that has ended.
    ///
    /// The driver refuses requests a few instructions before its task can write the reason.
    pub(in crate::conn) async fn last_cause(&self) -> Option<Arc<Lost>> {
        let _ = self.0.subscribe().wait_for(|end| !matches!(end, End::NotYet)).await;
        self.cause()
    }

    /// Writes the reason, `None` after a graceful close. Only the first reason counts.
    pub(super) fn write(&self, lost: Option<Lost>) {
        self.0.send_if_modified(|end| {
            let is_first = matches!(end, End::NotYet);
            if is_first {
                *end = lost.map_or(End::Graceful, |lost| End::Lost(Arc::new(lost)));
            }
            is_first
        });
    }
}

//! The task that drives one connection, and its owner's side of it.
//!
//! It polls the driver for messages, so that it learns how the connection ends; watches the server's role; and answers the question
//! whether everything is at rest.

pub(super) mod close_reason;
mod questions;
mod said;

use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::select;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time;
use tokio_postgres::Connection;

use self::close_reason::CloseReason;
use self::questions::Questions;
use super::stream::Stream;
use super::wire::Wire;
use super::{ConnectionEvent, OutcomeRecorder, Role};
use crate::error::Lost;

/// A task that has not ended this long after its client is gone is cut off.
const LONGEST_GOODBYE: Duration = Duration::from_secs(1);

/// What the owner of a connection holds of its task. Dropped, the task has a second left.
#[derive(Debug)]
pub(crate) struct Task {
    handle: JoinHandle<()>,
    /// Dropped with the connection. Used to tell the task that the connection is no longer the pool's.
    alive: oneshot::Sender<()>,
    pulse: Arc<Pulse>,
    server_version: Option<String>,
}

/// What the task tells everybody who asks.
#[derive(Debug)]
pub(super) struct Pulse {
    questions: Questions,
    role: AtomicU8,
    dialed_as: Role,
    close_reason: CloseReason,
}

impl Task {
    /// Begins to drive `connection`, on whose stream `wire` listens.
    pub(super) fn spawn(
        connection: Connection<Stream, Stream>,
        wire: Arc<Wire>,
        recorder: Arc<OutcomeRecorder>,
    ) -> Self {
        let pulse = Arc::new(Pulse::of(&connection));
        let server_version = connection.parameter("server_version").map(str::to_owned);
        let (parameters, settings) = (wire.parameters(), wire.settings());
        let close_notifier = CloseNotifier { pulse: Arc::clone(&pulse), recorder };
        let ending = Ending { pulse: Arc::clone(&pulse), wire };
        let (alive, gone) = oneshot::channel();
        let is_read_only = pulse.is_read_only();
        let drive = Drive { ending, connection, close_notifier, parameters, settings, is_read_only };
        let handle = tokio::spawn(until_gone(drive, gone));
        Self { handle, alive, pulse, server_version }
    }

    pub(super) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// As the server told it at start-up: "17.2 (Debian 17.2-1)".
    pub(crate) fn server_version(&self) -> Option<&str> {
        self.server_version.as_deref()
    }

    /// The connection is no longer the pool's: it ends when its client does, however long that takes.
    pub(super) fn release(self) {
        let _ = self.alive.send(());
    }

    /// Waits for the end, at most a second. The client must be gone.
    pub(super) async fn ended(self) {
        drop(self.alive);
        let _ = self.handle.await;
    }
}

const ROLES: [Option<bool>; 3] = [None, Some(false), Some(true)];
const READ_ONLY: u8 = 2;

fn is_on(connection: &Connection<Stream, Stream>, name: &str) -> Option<bool> {
    connection.parameter(name).map(|value| value == "on")
}

/// Where in [`ROLES`].
fn role(connection: &Connection<Stream, Stream>) -> u8 {
    match (is_on(connection, "in_hot_standby"), is_on(connection, "default_transaction_read_only")) {
        (Some(true), _) | (_, Some(true)) => READ_ONLY,
        (Some(false), _) => 1,
        (None, _) => 0,
    }
}

impl Pulse {
    fn of(connection: &Connection<Stream, Stream>) -> Self {
        let role = role(connection);
        let dialed_as = match role {
            READ_ONLY if is_on(connection, "in_hot_standby") == Some(true) => Role::Standby,
            READ_ONLY => Role::ReadOnly,
            _ => Role::Primary,
        };
        Self { questions: Questions::default(), role: role.into(), dialed_as, close_reason: CloseReason::default() }
    }

    /// What the server was when the session began.
    pub(super) fn dialed_as(&self) -> Role {
        self.dialed_as
    }

    pub(super) fn close_reason(&self) -> &CloseReason {
        &self.close_reason
    }

    /// Resolves with `true` when nothing is left to be written, read or answered: after this was asked the driver was polled, nothing waits in
    /// it, and nobody has to take anything from it first. At once if it is so already, without asking the server. `false` if the
    /// connection has ended. Dropping the future withdraws the question.
    pub(super) async fn quiet(&self) -> bool {
        self.questions.ask().await
    }

    /// Has the driver look at the connection, and notice that it is sealed.
    pub(super) fn wake(&self) {
        self.questions.wake();
    }

    /// Whether the server takes no writes: a standby, or one made so by its settings. `None` if it does not tell, as before version 14.
    #[inline]
    pub(super) fn is_read_only(&self) -> Option<bool> {
        ROLES[usize::from(self.role.load(Relaxed))]
    }

    fn set_role(&self, connection: &Connection<Stream, Stream>) {
        self.role.store(role(connection), Relaxed);
    }
}

/// Until the connection ends, or until its client has been gone for a second.
async fn until_gone(drive: Drive, gone: oneshot::Receiver<()>) {
    let cut_off = async {
        match gone.await {
            Ok(()) => pending().await, // detached: it is its owner's affair
            Err(_) => time::sleep(LONGEST_GOODBYE).await,
        }
    };
    select(pin!(drive), pin!(cut_off)).await;
}

/// Moves bytes until the connection ends.
struct Drive {
    /// Dropped first: before the driver tells anybody.
    ending: Ending,
    connection: Connection<Stream, Stream>,
    /// Dropped after that: whoever is told finds the connection closed.
    close_notifier: CloseNotifier,
    /// How many the server had told when the role was last looked at.
    parameters: u64,
    /// How many were set from here by then.
    settings: u64,
    is_read_only: Option<bool>,
}

impl Future for Drive {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let (pulse, wire) = (&this.ending.pulse, &this.ending.wire);
        let question = pulse.questions.last(cx.waker());
        loop {
            wire.begin_reading();
            match this.connection.poll_message(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(message))) => said::pass_on(&message, &this.close_notifier.recorder),
                Poll::Ready(Some(Err(error))) => {
                    this.ending.lost(error);
                    return Poll::Ready(());
                }
                Poll::Ready(None) => {
                    pulse.close_reason.write(None);
                    return Poll::Ready(());
                }
            }
        }
        if wire.has_read_all() {
            let (parameters, settings) = (wire.parameters(), wire.settings());
            let was_set_here = this.settings != settings;
            this.settings = settings;
            if this.parameters != parameters {
                this.parameters = parameters;
                // A session that is made to read only says nothing of the server.
                if !was_set_here || role(&this.connection) != READ_ONLY {
                    pulse.set_role(&this.connection);
                }
                if pulse.is_read_only() == Some(true) && this.is_read_only == Some(false) {
                    this.close_notifier.recorder.tell(ConnectionEvent::WrongHost { dialed_as: pulse.dialed_as() });
                }
                this.is_read_only = pulse.is_read_only();
            }
            if wire.is_quiet() {
                pulse.questions.answer(question);
            }
        }
        Poll::Pending
    }
}

/// Says how it ended, in whatever way it ends.
struct Ending {
    pulse: Arc<Pulse>,
    wire: Arc<Wire>,
}

impl Ending {
    fn lost(&self, error: tokio_postgres::Error) {
        // A call that was told of the end may have sealed the connection.
        let last_words = self.wire.last_words();
        let is_our_doing = self.wire.is_sealed() && last_words.is_none();
        let lost = if is_our_doing { Lost::sealed() } else { Lost::new(last_words, error) };
        self.pulse.close_reason.write(Some(lost));
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.pulse.close_reason.write(Some(Lost::abandoned()));
        self.pulse.questions.end();
    }
}

/// Tells the pool that the connection was lost, if it was.
struct CloseNotifier {
    pulse: Arc<Pulse>,
    recorder: Arc<OutcomeRecorder>,
}

impl Drop for CloseNotifier {
    fn drop(&mut self) {
        if let Some(cause) = self.pulse.close_reason.cause().filter(|cause| !cause.is_our_doing()) {
            self.recorder.tell(ConnectionEvent::Lost { cause });
        }
    }
}

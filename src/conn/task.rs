//! The task that drives one connection, and the handle of it that the connection holds.
//!
//! The task polls the driver until the connection ends. It keeps the [`Monitor`] up to date, passes the server's
//! notices and notifications on, and reports a lost connection to the pool.

mod monitor;

use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::select;
use log::info;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time;
use tokio_postgres::error::Severity;
use tokio_postgres::{AsyncMessage, Connection};

pub(super) use self::monitor::Monitor;
use super::stream::Stream;
use super::wire::Wire;
use super::{ConnectionEvent, OutcomeRecorder};
use crate::error::{Lost, one_line};

/// After its client was dropped, the task has this long to end. Then it is aborted.
const LONGEST_GOODBYE: Duration = Duration::from_secs(1);

/// The connection's handle of its task. When the handle is dropped, the task has a second left.
#[derive(Debug)]
pub(crate) struct Task {
    handle: JoinHandle<()>,
    /// Dropped with the connection. A message says that the connection was detached from the pool.
    alive: oneshot::Sender<()>,
    monitor: Arc<Monitor>,
    server_version: Option<String>,
}

impl Task {
    /// Spawns the task for `connection`, whose stream `wire` observes.
    pub(super) fn spawn(
        connection: Connection<Stream, Stream>,
        wire: Arc<Wire>,
        recorder: Arc<OutcomeRecorder>,
    ) -> Self {
        let monitor = Arc::new(Monitor::new(&connection));
        let server_version = connection.parameter("server_version").map(str::to_owned);
        let (parameters, settings) = (wire.parameters(), wire.settings());
        let close_notifier = CloseNotifier { monitor: Arc::clone(&monitor), recorder };
        let ending = Ending { monitor: Arc::clone(&monitor), wire };
        let (alive, gone) = oneshot::channel();
        let is_read_only = monitor.is_read_only();
        let drive = Drive { ending, connection, close_notifier, parameters, settings, is_read_only };
        let handle = tokio::spawn(until_gone(drive, gone));
        Self { handle, alive, monitor, server_version }
    }

    pub(super) fn monitor(&self) -> Arc<Monitor> {
        Arc::clone(&self.monitor)
    }

    /// The version that the server reported at start-up, such as "17.2 (Debian 17.2-1)".
    pub(crate) fn server_version(&self) -> Option<&str> {
        self.server_version.as_deref()
    }

    /// Detaches the task from the pool: it ends with its client, however long that takes.
    pub(super) fn release(self) {
        let _ = self.alive.send(());
    }

    /// Waits for the end of the task, at most a second. Drop the client before.
    pub(super) async fn ended(self) {
        drop(self.alive);
        let _ = self.handle.await;
    }
}

/// Drives the connection until it ends, or until its client has been gone for a second.
async fn until_gone(drive: Drive, gone: oneshot::Receiver<()>) {
    let cut_off = async {
        match gone.await {
            Ok(()) => pending().await, // detached: only the owner decides
            Err(_) => time::sleep(LONGEST_GOODBYE).await,
        }
    };
    select(pin!(drive), pin!(cut_off)).await;
}

/// Moves bytes until the connection ends.
struct Drive {
    /// Dropped first, so the reason is written before the driver reports the end to its callers.
    ending: Ending,
    connection: Connection<Stream, Stream>,
    /// Dropped last, so the pool finds the connection closed when it hears of the loss.
    close_notifier: CloseNotifier,
    /// How many parameters the server had reported when the role was last read.
    parameters: u64,
    /// How many of them had been set from here.
    settings: u64,
    is_read_only: Option<bool>,
}

impl Future for Drive {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let (monitor, wire) = (&this.ending.monitor, &this.ending.wire);
        let question = monitor.questions.begin_poll(cx.waker());
        loop {
            wire.begin_reading();
            match this.connection.poll_message(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(AsyncMessage::Notification(notification)))) => {
                    monitor.on_notification(notification);
                }
                Poll::Ready(Some(Ok(message))) => pass_on(&message, &this.close_notifier.recorder),
                Poll::Ready(Some(Err(error))) => {
                    this.ending.lost(error);
                    return Poll::Ready(());
                }
                Poll::Ready(None) => {
                    monitor.close_reason().write(None);
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
                monitor.update_read_only(&this.connection, was_set_here);
                if monitor.is_read_only() == Some(true) && this.is_read_only == Some(false) {
                    this.close_notifier.recorder.pass_on(ConnectionEvent::WrongHost { dialed_as: monitor.dialed_as() });
                }
                this.is_read_only = monitor.is_read_only();
            }
            if wire.is_quiet() {
                monitor.questions.answer(question);
            }
        }
        Poll::Pending
    }
}

/// The driver's own log target, so that a service's filters for it stay valid.
const TARGET: &str = "tokio_postgres::connection";
/// The SQLSTATE classes of a server that ends sessions. The pool reports them with the end of the connection.
const ENDS: &str = "57P";

/// Logs a notice, as the driver does for connections without a pool. Reports a warning to the pool as well, which makes
/// an event of it.
fn pass_on(message: &AsyncMessage, recorder: &OutcomeRecorder) {
    let AsyncMessage::Notice(notice) = message else { return };
    let text = one_line(notice.message());
    info!(target: TARGET, "{}: {text}", one_line(notice.severity()));
    let is_warning = match notice.parsed_severity() {
        Some(severity) => severity == Severity::Warning,
        None => notice.severity() == "WARNING",
    };
    if is_warning && !notice.code().code().starts_with(ENDS) {
        recorder.pass_on(ConnectionEvent::Warned { message: text.into_owned(), sqlstate: notice.code().clone() });
    }
}

/// Writes the close reason, in whatever way the task ends.
struct Ending {
    monitor: Arc<Monitor>,
    wire: Arc<Wire>,
}

impl Ending {
    fn lost(&self, error: tokio_postgres::Error) {
        // After the server's last words, a call that failed may have sealed the connection.
        let last_words = self.wire.last_words();
        let is_our_doing = self.wire.is_sealed() && last_words.is_none();
        let lost = if is_our_doing { Lost::sealed() } else { Lost::new(last_words, error) };
        self.monitor.close_reason().write(Some(lost));
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.wire.on_end();
        self.monitor.close_reason().write(Some(Lost::abandoned()));
        self.monitor.questions.end();
    }
}

/// Reports a lost connection to the pool.
struct CloseNotifier {
    monitor: Arc<Monitor>,
    recorder: Arc<OutcomeRecorder>,
}

impl Drop for CloseNotifier {
    fn drop(&mut self) {
        if let Some(cause) = self.monitor.close_reason().cause().filter(|cause| !cause.is_our_doing()) {
            self.recorder.pass_on(ConnectionEvent::Lost { cause });
        }
    }
}

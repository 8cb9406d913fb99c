//! LISTEN: a stream of notifications, on a connection of its own.
//!
//! [`Pool::listen`] makes the first connection. From then on a task looks after it (`listener`): it checks whether the
//! server answers, dials again, and says where notifications may be missing. The stream reads what the task of the
//! connection has put into the inbox (`conn/inbox`).

pub(crate) mod listener;

use std::collections::BTreeSet;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::select;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::listener::Listener;
use crate::conn::{Channels, Dialer, Inbox, Received};
use crate::error::{ConfigError, Error, one_line};
use crate::pool::Pool;
use crate::slots::Dial as _;

/// PostgreSQL's limit for a name, in bytes.
const LONGEST_NAME: usize = 63;

impl Pool {
    /// Listens on channels, and returns a stream of their notifications.
    ///
    /// **Listen once for the process, not once for each client.** Each stream has a connection of its own. `max_size`
    /// does not include it and nothing limits how many there are, but each counts against the server's
    /// `max_connections`. Pass the notifications on to clients with a [`tokio::sync::broadcast`] channel: the guide has
    /// an example for server-sent events.
    ///
    /// [`Status::listening`](crate::Status) is the number of these connections. Each is dialed as all others, with the
    /// pool's hosts, TLS, credentials and settings. At the end of its [lifetime](crate::PoolBuilder::max_lifetime) it
    /// hands over to a new one, and nothing is missed. When it is lost, or the server does not answer a health check,
    /// the pool dials again, with the pauses of its other dials, for as long as it takes. The stream then yields
    /// [`Received::Gap`], because notifications may have been missed.
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool) -> Result<(), Box<dyn std::error::Error>> {
    /// use failfast::Received;
    ///
    /// let mut notifications = pool.listen(["orders", "prices"])?.await?;
    /// // Read the present state here: everything that changes from now on is announced.
    /// while let Some(received) = notifications.next().await {
    ///     match received {
    ///         Received::Notification(one) => println!("{}: {}", one.channel, one.payload),
    ///         Received::Gap(_) => println!("read the state again"),
    ///         _ => {}
    ///     }
    /// }
    /// // The pool is closed.
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A name is used exactly as it is: `NOTIFY Orders` notifies the channel `orders`, and `NOTIFY "Orders"` the
    /// channel `Orders`. Dropping the future ends the dial, and dropping the stream ends the connection.
    ///
    /// Listening needs a session of its own, so it does not work behind PgBouncer in transaction or statement mode:
    /// `LISTEN` succeeds there, and no notification comes. Give the listener a pool that leads to the server itself. A
    /// standby does not accept `LISTEN`: with several hosts, set `target_session_attrs=read-write`.
    ///
    /// # Errors
    ///
    /// At once, [`ConfigError`] if there is no channel, or if a name is empty, contains NUL or is longer than 63 bytes.
    /// When awaited, [`Error::Closed`] if the pool is closed, [`Error::Connect`] if the first dial fails, and
    /// [`Error::Postgres`] or [`Error::QueryTimeout`] if the server does not accept the `LISTEN`. The first dial is not
    /// repeated, so that a service learns of a wrong setting when it starts.
    ///
    /// # Panics
    ///
    /// When awaited outside a Tokio runtime with timers and I/O enabled, unless
    /// [`PoolBuilder::runtime`](crate::PoolBuilder::runtime) names one.
    pub fn listen<I>(
        &self,
        channels: I,
    ) -> Result<impl Future<Output = Result<Notifications, Error>> + Send + use<I>, ConfigError>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let channels = check(channels)?;
        let runtime = self.shared.slots.fixed_runtime();
        let inbox = Arc::<Inbox>::default();
        let mut listener = Listener::new(&self.shared, channels, Arc::clone(&inbox));
        Ok(begin_on(runtime, async move {
            let first = listener.begin().await?;
            Ok(Notifications::fed_by(&inbox, async move { listener.run(first).await }))
        }))
    }
}

/// Begins to listen, on the runtime that the owner has named, or else on that of the caller.
pub(crate) async fn begin_on(
    runtime: Option<Handle>,
    beginning: impl Future<Output = Result<Notifications, Error>> + Send + 'static,
) -> Result<Notifications, Error> {
    match runtime {
        Some(runtime) => Beginning(runtime.spawn(beginning)).await,
        None => beginning.await,
    }
}

/// A beginning on another runtime. Dropping this ends it.
struct Beginning(JoinHandle<Result<Notifications, Error>>);

impl Future for Beginning {
    type Output = Result<Notifications, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|ended| match ended {
            Ok(begun) => begun,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // The runtime has ended.
            Err(_) => Err(Error::Connect { source: Dialer::abandoned(), retry_after: Duration::ZERO }),
        })
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Returns the LISTEN for these channels.
pub(crate) fn check(channels: impl IntoIterator<Item: AsRef<str>>) -> Result<Channels, ConfigError> {
    let names: BTreeSet<String> = channels.into_iter().map(|channel| channel.as_ref().to_owned()).collect();
    if names.is_empty() {
        return Err(ConfigError::new("channels", "[]", "must have at least one"));
    }
    let mut statement = String::new();
    for name in &names {
        let problem = match name.len() {
            0 => Some("must not be empty"),
            1..=LONGEST_NAME => name.contains('\0').then_some("must not contain NUL"),
            _ => Some("must not be longer than 63 bytes, which is the server's limit"),
        };
        if let Some(problem) = problem {
            return Err(ConfigError::new("channel", format_args!("\"{}\"", one_line(name)), problem));
        }
        statement += &format!("LISTEN \"{}\";", name.replace('"', "\"\""));
    }
    Ok(Channels { statement, count: names.len() })
}

/// The notifications of some channels, in the order in which the server sent them. From
/// [`Pool::listen`](crate::Pool::listen). Read it as a `futures::Stream`, or with [`next`](Self::next).
///
/// It keeps up to 16 MiB of unread notifications, whether it is polled or not. If the reader is slower than that, it
/// finds a [`Gap`](crate::Gap), and the notifications after the reader has come to it.
///
/// Each notification comes once and in order, except that after a [gap](Received::Gap) one may come a second time.
///
/// The stream ends when the pool is closed, or its runtime has ended: the one that
/// [`PoolBuilder::runtime`](crate::PoolBuilder::runtime) names, else the one that called
/// [`listen`](crate::Pool::listen). While the pool is drained, it goes on. So a graceful shutdown that waits for a
/// client of this stream never gets as far as closing the pool: end such responses yourself, as the guide shows.
#[must_use = "dropping it ends the connection that listens"]
pub struct Notifications {
    inbox: Arc<Inbox>,
    /// The task ends when this is dropped.
    _alive: oneshot::Sender<()>,
}

/// The stream ends with its task, in whatever way that ends.
struct End(Arc<Inbox>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Notifications {
    /// The stream of an inbox that a task fills. The task ends when the stream is dropped, and the stream when the task
    /// has ended.
    pub(crate) fn fed_by(inbox: &Arc<Inbox>, task: impl Future<Output = ()> + Send + 'static) -> Self {
        let (end, (alive, gone)) = (End(Arc::clone(inbox)), oneshot::channel());
        tokio::spawn(async move {
            let _end = end;
            select(pin!(task), gone).await;
        });
        Self { inbox: Arc::clone(inbox), _alive: alive }
    }

    /// Waits for the next notification or gap. Returns `None` when the pool is closed. Cancel safe: a dropped future
    /// loses nothing.
    pub async fn next(&mut self) -> Option<Received> {
        poll_fn(|cx| self.inbox.poll_next(cx)).await
    }
}

impl Stream for Notifications {
    type Item = Received;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        self.inbox.poll_next(cx)
    }
}

impl fmt::Debug for Notifications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifications").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_each_is_listened_to_once() {
        let listen = |names: &[&str]| {
            let channels = check(names).unwrap();
            (channels.statement, channels.count)
        };
        assert_eq!(listen(&["orders", "orders"]), ("LISTEN \"orders\";".to_owned(), 1));
        let expected = "LISTEN \"Mixed Case\";LISTEN \"a\"\"b\";LISTEN \"a'; DROP TABLE users; --\";LISTEN \"ä-ö\";";
        assert_eq!(listen(&["Mixed Case", "ä-ö", "a\"b", "a'; DROP TABLE users; --"]), (expected.to_owned(), 4));
        assert!(check(["x".repeat(63)]).is_ok());
    }

    #[test]
    fn a_name_that_the_server_cannot_have_is_refused() {
        let line = |name: &str| check([name]).unwrap_err().to_string();
        assert_eq!(line(""), "channel = \"\": must not be empty");
        assert_eq!(line("a\0b"), "channel = \"a\\u{0}b\": must not contain NUL");
        let long = "ä".repeat(32);
        let expected = format!("channel = \"{long}\": must not be longer than 63 bytes, which is the server's limit");
        assert_eq!(line(&long), expected);
        assert_eq!(check([""; 0]).unwrap_err().to_string(), "channels = []: must have at least one");
    }
}

//! The guard that a caller holds.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::CancelToken;

use super::call_options::CallOptions;
use super::connection::Conn;
use super::dial::Dialer;
use super::link::Link;
use crate::clock::now;
use crate::operation::Operation;
use crate::policy::{Retry, Ticket};
use crate::slots::Lease;
use crate::telemetry::Fault;

/// A connection on loan from a [`Pool`](crate::Pool), given back when dropped.
///
/// Its own methods are tracked: each has a deadline, each is stopped on the server if it is given up, and a connection used only through them
/// goes straight to the next caller. It also derefs to [`deadpool_postgres::Client`], so code written for that works on `&*client` and
/// `&mut *client`; statements run that way have no timeout, and the pool makes sure that the connection is at rest before the
/// next caller gets it. Either way, a session that a request may have changed is [reset](crate::Reset::WhenSeen).
///
/// Dropping it never blocks and works outside a runtime: the connection goes to the caller that has waited longest, or to the idle
/// ones; one with unfinished work or an open transaction is cleaned up first, in the background; one that has been closed by the server is
/// replaced when it is next needed.
///
/// ```no_run
/// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
/// let client = pool.get().await?;
/// let item = client.query_one("SELECT name, stock FROM items WHERE id = $1", &[&1_i64]).await?;
/// let orders = client.query("SELECT id FROM orders WHERE item = $1", &[&1_i64]).await?;
/// drop(client); // or at the end of its scope
/// println!("{}: {} orders", item.get::<_, &str>("name"), orders.len());
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping a client gives its connection back"]
pub struct Client {
    lease: Lease<Dialer>,
    options: CallOptions,
    /// Dropped after the lease, which may still tell how it went.
    _probe: Option<Probe>,
}

/// What can be known of a lease after it has been given away.
pub(crate) struct Trail {
    link: Arc<Link>,
    attempts: u64,
    timeouts: u64,
    begun: u64,
}

impl Trail {
    /// It failed and nothing was written: the connection had ended before.
    pub(crate) fn is_stale(&self) -> bool {
        self.retry() != Retry::Never && self.link.wire.attempts() == self.attempts
    }

    /// What the last failure said of another try.
    pub(crate) fn retry(&self) -> Retry {
        self.link.calls.retry()
    }

    /// What the last failure is called.
    pub(crate) fn fault(&self) -> Fault {
        self.link.calls.fault()
    }

    /// How many statements were begun.
    pub(crate) fn statements(&self) -> u32 {
        u32::try_from(self.link.calls.begun() - self.begun).unwrap_or(u32::MAX)
    }

    pub(crate) fn has_timed_out(&self) -> bool {
        self.link.calls.timeouts() > self.timeouts
    }
}

/// A lease that is a probe of the circuit breaker's.
struct Probe(Arc<Link>, u64);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.end_probe(self.1);
    }
}

impl Client {
    #[inline]
    pub(crate) fn new(mut lease: Lease<Dialer>, options: CallOptions, ticket: Ticket) -> Self {
        let conn = &mut *lease;
        conn.since = conn.handling.meter.start();
        let admitted = conn.link.begin_lease(ticket);
        let operation = options.operation.map_or(Operation::At(options.taken), Operation::Named);
        conn.purpose.write(&conn.link.lease_info, operation, options.taken);
        let probe = ticket.is_probe().then(|| Probe(Arc::clone(&conn.link), admitted));
        Self { lease, options, _probe: probe }
    }

    /// What is left of the call's [`deadline`](crate::Call::deadline), if it has one.
    pub fn time_left(&self) -> Option<Duration> {
        self.options.deadline.map(|deadline| deadline.left(now()))
    }

    /// The server's process, as in `pg_stat_activity.pid` and in the server's log; `None` if it has not told.
    pub fn process_id(&self) -> Option<i32> {
        self.conn().link.process_id()
    }

    /// Whether the connection is known to have ended.
    pub fn is_closed(&self) -> bool {
        self.conn().object.is_closed()
    }

    /// What cancels this connection's statements from elsewhere. With care: it hits whatever runs when it arrives.
    pub fn cancel_token(&self) -> CancelToken {
        self.driver().cancel_token()
    }

    /// Closes the connection instead of giving it back: for one that you have reason to mistrust.
    pub fn discard(self) {
        self.lease.discard();
    }

    /// Takes the connection out of the pool for good: it is yours, and its slot is free for another. It ends when you drop it.
    #[must_use = "a connection that is detached and dropped is closed; to close one, discard it"]
    pub fn detach(self) -> deadpool_postgres::ClientWrapper {
        self.lease.detach().detach()
    }

    /// What will be known of this lease when it is over.
    pub(crate) fn trail(&self) -> Trail {
        let link = &self.conn().link;
        link.calls.clear_failure();
        let (timeouts, begun) = (link.calls.timeouts(), link.calls.begun());
        Trail { attempts: link.wire.attempts(), timeouts, begun, link: Arc::clone(link) }
    }

    pub(super) fn conn(&self) -> &Conn {
        &self.lease
    }

    /// The driver's client, for a tracked call.
    pub(super) fn driver(&self) -> &tokio_postgres::Client {
        &self.conn().object
    }

    pub(super) fn options(&self) -> CallOptions {
        self.options
    }

    /// From now on its statements belong to a [`Transaction`](super::Transaction).
    pub(super) fn set_transaction(&mut self) {
        self.options.is_transaction = true;
    }
}

impl Deref for Client {
    type Target = Object;

    fn deref(&self) -> &Object {
        let conn = self.conn();
        conn.link.set_untracked(true);
        conn.statements.renew(&conn.object);
        &conn.object
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Object {
        let conn = self.conn();
        conn.link.set_untracked(true);
        conn.statements.renew(&conn.object);
        self.lease.object_mut()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("process_id", &self.process_id()).finish_non_exhaustive()
    }
}

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
use super::trail::{Trail, TrailEnd};
use crate::clock::now;
use crate::operation::Operation;
use crate::policy::Ticket;
use crate::rates::Charge;
use crate::slots::Lease;

/// A connection of a [`Pool`](crate::Pool). Dropping the client gives the connection back.
///
/// The methods of `Client` are tracked. Each has a timeout. If a caller drops the future of such a method, or the
/// timeout passes, the pool cancels the statement on the server. A connection that was used only through these methods
/// goes straight to the next caller.
///
/// `Client` also derefs to [`deadpool_postgres::Client`], so existing code works on `&*client` and `&mut *client`.
/// Statements that run that way have no timeout. The pool makes sure that the connection is at rest before the next
/// caller gets it. In both cases the pool [resets](crate::Reset::WhenSeen) a session that a request may have changed.
///
/// Run no statement through the deref right after a tracked one that timed out or was dropped. It would wait for that
/// one, which the pool no longer cancels before the lease ends, or be hit by a cancel that is on its way. Await
/// `simple_query("")` first: it waits until the earlier statement is stopped. Once the lease has used the deref, the
/// pool stops a late tracked statement only after the lease: drop the client then.
///
/// Dropping a client never blocks and works outside a runtime. The connection goes to the caller that has waited
/// longest, or becomes idle. The pool first cleans up a connection with unfinished work or an open transaction, in the
/// background. It replaces a connection that the server has closed.
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
    /// Declared before the lease, so dropped before it: what comes later belongs to another lease.
    trails: TrailEnd,
    lease: Lease<Dialer>,
    options: CallOptions,
    /// Declared after the lease, so dropped after it: the end of the lease may still report a result.
    dues: Option<Box<Dues>>,
}

/// What few leases have, and what has to end with them.
#[derive(Default)]
struct Dues {
    _probe: Option<Probe>,
    /// What the lease takes of the rates of its lane and its operation. Settled when it is dropped.
    charge: Option<Box<Charge>>,
}

/// Ends the probe of the circuit breaker when the lease ends.
struct Probe(Arc<Link>, u64);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.end_probe(self.1);
    }
}

impl Client {
    #[inline]
    pub(crate) fn new(mut lease: Lease<Dialer>, options: CallOptions, ticket: Ticket) -> Self {
        lease.mark_used();
        let moment = lease.moment();
        let conn = &mut *lease;
        conn.since = conn.handling.meter.start();
        let admitted = conn.link.begin_lease(ticket);
        let operation = options.operation.map_or(Operation::At(options.taken), Operation::Named);
        conn.purpose.write(&conn.link.lease_info, operation, options.taken, moment, options.lane);
        let dues = ticket.is_probe().then(|| {
            let probe = Some(Probe(Arc::clone(&conn.link), admitted));
            Box::new(Dues { _probe: probe, charge: None })
        });
        Self { trails: TrailEnd::default(), lease, options, dues }
    }

    /// Begins the charge to the rates of the lane and the operation, if there is one. It ends with the lease.
    pub(crate) fn charge(mut self, charge: Option<Box<Charge>>) -> Self {
        if let Some(mut charge) = charge {
            charge.begin();
            self.dues.get_or_insert_default().charge = Some(charge);
        }
        self
    }

    /// The time left until the call's [`deadline`](crate::Call::deadline): zero once it has passed, `None` if the call
    /// has no deadline.
    pub fn time_left(&self) -> Option<Duration> {
        self.options.deadline.map(|deadline| deadline.left(now()))
    }

    /// The id of the server's process, as in `pg_stat_activity.pid` and in the server's log. `None` if the server did
    /// not report it.
    pub fn process_id(&self) -> Option<i32> {
        self.conn().link.process_id()
    }

    /// Returns whether the connection is known to have ended.
    pub fn is_closed(&self) -> bool {
        self.conn().object.is_closed()
    }

    /// Returns a token that cancels this connection's running statement from elsewhere.
    ///
    /// Use it with care: the cancel hits whichever statement runs when it arrives, even that of a later caller.
    pub fn cancel_token(&self) -> CancelToken {
        self.driver().cancel_token()
    }

    /// Closes the connection instead of giving it back. Use it when you have reason to mistrust the connection.
    pub fn discard(self) {
        self.lease.discard();
    }

    /// Takes the connection out of the pool for good. It belongs to you, and ends when you drop it. Its slot is free at
    /// once.
    #[must_use = "a connection that is detached and dropped is closed; to close one, discard it"]
    pub fn detach(self) -> deadpool_postgres::ClientWrapper {
        self.lease.detach().detach()
    }

    /// Returns the record of this lease. It begins now.
    pub(crate) fn trail(&self) -> Trail {
        self.trails.begin(&self.conn().link)
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

    /// The statements from now on belong to a [`Transaction`](super::Transaction).
    pub(super) fn set_transaction(&mut self) {
        self.options.is_transaction = true;
    }
}

impl Deref for Client {
    type Target = Object;

    fn deref(&self) -> &Object {
        let conn = self.conn();
        conn.link.set_untracked(true);
        conn.statements.look_for_changes(&conn.link);
        conn.statements.renew(&conn.object);
        &conn.object
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Object {
        let conn = self.conn();
        conn.link.set_untracked(true);
        conn.statements.look_for_changes(&conn.link);
        conn.statements.renew(&conn.object);
        self.lease.object_mut()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("process_id", &self.process_id()).finish_non_exhaustive()
    }
}

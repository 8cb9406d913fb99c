//! Settles a connection: makes it fit for the next caller, after a lease that did not leave it clean.
//!
//! The pool stops what still runs on the server. If it has sent a cancel, it runs a throwaway statement that a late
//! cancel may hit. Then it rolls back an open transaction, and resets the session if it was changed. If all that takes
//! longer than [`RoundTrips::settling`](super::round_trips::RoundTrips::settling), the pool seals and closes the
//! connection. The owner's hook, which runs after a reset, may take `connect_timeout`, as in a dial.

use futures_util::FutureExt;
use futures_util::future::join;
use tokio::time;

use super::connection::Conn;
use super::connection_event::ConnectionEvent;
use super::link::Link;
use super::orphans;
use super::reset::reset;
use super::set_up::set_up;
use super::wire::TransactionStatus;

/// Returns whether the next caller may have the connection.
pub(super) async fn settle(conn: &mut Conn) -> bool {
    let limit = conn.link.trips.settling();
    let cleaned = time::timeout(limit, clean(conn)).await;
    if cleaned.is_err() {
        conn.handling.recorder.on_server_silent();
    }
    let is_settled = match cleaned {
        // After a reset, the session counts as changed until the hook has run.
        Ok(Some(quiet_at)) => (!conn.needs_reset() || set_up_again(conn).await) && confirm_rest(conn, quiet_at).await,
        Ok(None) | Err(_) => false,
    };
    if !is_settled {
        if !conn.object.is_closed() && !conn.link.wire.has_lost_look_up() {
            conn.handling.recorder.pass_on(ConnectionEvent::SettleFailed);
        }
        conn.link.wire.seal();
    }
    is_settled
}

/// Returns how many writes had been attempted when the connection was found quiet. `None` if the next caller cannot
/// have the connection.
async fn clean(conn: &Conn) -> Option<u64> {
    let link = &conn.link;
    link.calls.wait_while_reserved().await;
    if link.calls.is_running() {
        return None;
    }
    if link.is_untracked() {
        drop_unsent(&conn.object);
    }
    // Only the answer to a later request shows whether a failed COPY has ended. An empty request will do.
    let (writes, is_due) = (link.wire.attempts(), link.wire.unanswered() > 0);
    let after = async {
        if is_due {
            let _ = conn.object.simple_query("").await;
        }
    };
    if !join(link.stop(), after).await.0 {
        return None;
    }
    let quiet_at = link.wire.attempts();
    if link.wire.has_lost_look_up() {
        return None;
    }
    if link.is_untracked() && (is_due || quiet_at != writes) {
        // The caller may have dropped a future in which the driver prepared a statement.
        link.calls.set_suspects_statements(true);
    }
    link.calls.clear_abandoned();
    if link.has_odd_statements() {
        let is_fenced = !link.calls.has_pending_cancel() || fence(&conn.object).await;
        if !is_fenced || !orphans::drop_all(conn).await {
            return None;
        }
    }
    if !clear_up(link, &conn.object).await {
        return None;
    }
    if link.wire.status() != TransactionStatus::Idle && conn.object.simple_query("ROLLBACK").await.is_err() {
        return None;
    }
    if conn.needs_reset() {
        return reset(conn).await.then_some(quiet_at);
    }
    link.statement_timeout.restore(&conn.object).await.then_some(quiet_at)
}

/// Drops what the driver has encoded and not sent. After the panic of a value in a statement through the deref, the
/// driver would send the unfinished message with its next one. If it has done so, the connection is not quiet any more.
///
/// The driver refuses a text that contains a NUL, and clears its buffer then. It sends nothing, so nothing is awaited.
fn drop_unsent(client: &tokio_postgres::Client) {
    let _ = client.batch_execute("\0").now_or_never();
}

/// Returns whether the connection is at rest, and marks it as clean then. If nothing was written since it was found
/// quiet, the task need not be asked.
async fn confirm_rest(conn: &Conn, quiet_at: u64) -> bool {
    let link = &conn.link;
    link.set_untracked(false);
    let is_quiet =
        link.wire.attempts() == quiet_at || time::timeout(link.trips.answer(), link.monitor.quiet()).await == Ok(true);
    // The hook may have dropped the driver's statements.
    let is_clean = is_quiet && link.wire.status() == TransactionStatus::Idle && !link.wire.has_lost_look_up();
    if is_clean {
        link.wire.forget_unused();
    }
    link.set_used(!is_clean);
    is_clean
}

/// Removes what abandoned calls may have left: a cancel that could come late, and a transaction that no caller owns.
/// Returns `false` if that failed, because the connection has ended.
pub(super) async fn clear_up(link: &Link, client: &tokio_postgres::Client) -> bool {
    if link.calls.has_pending_cancel() && !fence(client).await {
        return false;
    }
    let is_open = link.calls.can_be_in_transaction() && link.wire.status() != TransactionStatus::Idle;
    if is_open && client.simple_query("ROLLBACK").await.is_err() {
        return false;
    }
    link.calls.clear_leftovers();
    true
}

/// Runs a throwaway statement, which a late cancel may hit. Returns whether the server has answered it. An error is an
/// answer, too: the statement may be cancelled, or refused in a failed transaction.
async fn fence(client: &tokio_postgres::Client) -> bool {
    match client.simple_query("SELECT 1").await {
        Ok(_) => true,
        Err(error) => error.as_db_error().is_some() && !client.is_closed(),
    }
}

/// Runs the owner's hook for new connections. Returns whether it succeeded and left nothing.
async fn set_up_again(conn: &Conn) -> bool {
    let set_up = set_up(conn, &conn.address);
    if !matches!(time::timeout(conn.handling.connect_timeout, set_up).await, Ok(Ok(()))) {
        return false;
    }
    if conn.cache.size() > conn.handling.statements {
        conn.cache.clear();
    }
    true
}

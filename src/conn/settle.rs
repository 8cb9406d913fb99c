//! Making a connection fit for the next caller, after a lease that left it in a state that is not known to be clean.
//!
//! In this order: whatever still runs is stopped on the server; if a cancel was sent, a throwaway statement takes the blow, should it come
//! late; an open transaction is rolled back; the session is reset, if it was changed. All in the time of so many round trips, or the connection
//! is sealed, and closed. The owner's hook, which runs after a reset, has the time that it has in a dial.

use deadpool_postgres::RecyclingMethod;
use futures_util::future::join;
use tokio::time;
use tokio_postgres::SimpleQueryMessage;

use super::calls::unhurried::RESTORE;
use super::connection::Conn;
use super::connection_event::ConnectionEvent;
use super::handling::Reset;
use super::link::Link;
use super::wire::TransactionStatus;

/// Tells whether the next caller may have the connection.
pub(super) async fn settle(conn: &mut Conn) -> bool {
    let limit = conn.link.trips.settling();
    let cleaned = time::timeout(limit, clean(conn)).await;
    if cleaned.is_err() {
        conn.handling.recorder.on_server_silent();
    }
    let is_settled = match cleaned {
        // A reset shows as a change of the session, too, until the hook has run.
        Ok(Some(quiet_at)) => (!conn.needs_reset() || set_up(conn).await) && is_at_rest(conn, quiet_at).await,
        Ok(None) | Err(_) => false,
    };
    if !is_settled {
        if !conn.object.is_closed() {
            conn.handling.recorder.tell(ConnectionEvent::SettleFailed);
        }
        conn.link.wire.seal();
    }
    is_settled
}

/// Returns how many writes had been attempted when the connection was found quiet; `None` if the next caller cannot have it.
async fn clean(conn: &Conn) -> Option<u64> {
    let link = &conn.link;
    link.calls.wait_while_reserved().await;
    if link.calls.is_running() {
        return None;
    }
    // Whether a failed copy is over shows in the answer to whatever comes after it, be it nothing.
    let after = async {
        if link.wire.unanswered() > 0 {
            let _ = conn.object.simple_query("").await;
        }
    };
    if !join(link.stop(), after).await.0 {
        return None;
    }
    let quiet_at = link.wire.attempts();
    link.calls.clear_abandoned();
    if !clear_up(link, &conn.object).await {
        return None;
    }
    if link.wire.status() != TransactionStatus::Idle && conn.object.simple_query("ROLLBACK").await.is_err() {
        return None;
    }
    if conn.needs_reset() {
        return reset(conn).await.then_some(quiet_at);
    }
    if link.is_unhurried() && conn.object.batch_execute(RESTORE).await.is_err() {
        return None;
    }
    link.set_unhurried(false);
    Some(quiet_at)
}

/// Whether the connection is at rest. If nothing was written since it was found quiet, nothing needs to be asked.
async fn is_at_rest(conn: &Conn, quiet_at: u64) -> bool {
    let link = &conn.link;
    link.set_untracked(false);
    let is_quiet =
        link.wire.attempts() == quiet_at || time::timeout(link.trips.answer(), link.pulse.quiet()).await == Ok(true);
    let is_clean = is_quiet && link.wire.status() == TransactionStatus::Idle;
    link.set_used(!is_clean);
    is_clean
}

/// Removes what calls given up may have left behind: a cancel that could come late, a transaction that nobody knows of.
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

/// A statement that nobody misses: it may be cancelled, or refused in a failed transaction. Tells whether it has passed.
async fn fence(client: &tokio_postgres::Client) -> bool {
    match client.simple_query("SELECT 1").await {
        Ok(_) => true,
        Err(error) => error.as_db_error().is_some() && !client.is_closed(),
    }
}

/// Commands that drop the statements which were prepared by SQL. The driver's own stay.
const PREPARED: &str = "SELECT format('DEALLOCATE %I', name) FROM pg_catalog.pg_prepared_statements WHERE from_sql";

/// What deadpool's `RecyclingMethod::Clean` runs, and one round trip more if a statement was prepared by SQL.
async fn reset(conn: &Conn) -> bool {
    let Some(clean) = RecyclingMethod::Clean.query() else { return false };
    let looks = conn.handling.reset == Reset::Always || conn.link.wire.may_have_prepared();
    let sql = if looks { &format!("{clean} {PREPARED}") } else { clean };
    let Ok(answers) = conn.object.simple_query(sql).await else { return false };
    conn.link.set_unhurried(false);
    let rows = answers.iter().filter_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let drops: Vec<_> = rows.filter(|sql| sql.starts_with("DEALLOCATE ")).collect();
    drops.is_empty() || conn.object.batch_execute(&drops.join("; ")).await.is_ok()
}

/// Whatever the owner does with a new connection.
async fn set_up(conn: &Conn) -> bool {
    let set_up = conn.handling.hooks.set_up(&conn.object);
    if !matches!(time::timeout(conn.handling.connect_timeout, set_up).await, Ok(Ok(()))) {
        return false;
    }
    if conn.cache.size() > conn.handling.statements {
        conn.cache.clear();
    }
    conn.link.wire.begin_session();
    true
}

//! Making a connection fit for the next caller, after a lease that left it in a state that is not known to be clean.
//!
//! In this order: whatever still runs is stopped on the server; if a cancel was sent, a throwaway statement takes the blow, should it come
//! late; an open transaction is rolled back; the session is reset, if it was changed. All within two seconds, or the connection
//! is sealed, and closed.

use std::time::Duration;

use deadpool_postgres::RecyclingMethod;
use futures_util::future::join;
use tokio::time;

use super::link::Link;
use super::wire::TransactionStatus;
use super::{Conn, News};

pub(super) const LONGEST_SETTLING: Duration = Duration::from_secs(2);

/// Tells whether the next caller may have the connection.
pub(super) async fn settle(conn: &mut Conn) -> bool {
    let settled = time::timeout(LONGEST_SETTLING, steps(conn)).await;
    if settled.is_err() {
        conn.handling.witness.server_is_silent();
    }
    if settled != Ok(true) {
        if !conn.object.is_closed() {
            conn.handling.witness.tell(News::SettleFailed);
        }
        conn.link.wire.seal();
    }
    settled == Ok(true)
}

async fn steps(conn: &mut Conn) -> bool {
    let link = &conn.link;
    link.calls.stopped().await;
    if link.calls.are_under_way() {
        return false;
    }
    // Whether a failed copy is over shows in the answer to whatever comes after it, be it nothing.
    let after = async {
        if link.wire.unanswered() > 0 {
            let _ = conn.object.simple_query("").await;
        }
    };
    if !join(link.stop(), after).await.0 {
        return false;
    }
    link.calls.are_gone();
    if !clear_up(link, &conn.object).await {
        return false;
    }
    if link.wire.status() != TransactionStatus::Idle && conn.object.simple_query("ROLLBACK").await.is_err() {
        return false;
    }
    if conn.needs_reset() && !reset(conn).await {
        return false;
    }
    link.set_untracked(false);
    let is_clean = link.pulse.quiet().await && link.wire.status() == TransactionStatus::Idle;
    link.set_used(!is_clean);
    is_clean
}

/// Removes what calls given up may have left behind: a cancel that could come late, a transaction that nobody knows of.
pub(super) async fn clear_up(link: &Link, client: &tokio_postgres::Client) -> bool {
    if link.calls.may_be_hit() && !fence(client).await {
        return false;
    }
    let is_open = link.calls.may_be_open() && link.wire.status() != TransactionStatus::Idle;
    if is_open && client.simple_query("ROLLBACK").await.is_err() {
        return false;
    }
    link.calls.have_passed();
    true
}

/// A statement that nobody misses: it may be cancelled, or refused in a failed transaction. Tells whether it has passed.
async fn fence(client: &tokio_postgres::Client) -> bool {
    match client.simple_query("SELECT 1").await {
        Ok(_) => true,
        Err(error) => error.as_db_error().is_some() && !client.is_closed(),
    }
}

/// What deadpool's `RecyclingMethod::Clean` runs, and whatever the owner does with a new connection.
async fn reset(conn: &Conn) -> bool {
    let Some(sql) = RecyclingMethod::Clean.query() else { return false };
    if conn.object.batch_execute(sql).await.is_err() || conn.handling.hooks.set_up(&conn.object).await.is_err() {
        return false;
    }
    if conn.cache.size() > conn.handling.statements {
        conn.cache.clear();
    }
    conn.link.wire.forget_session();
    true
}

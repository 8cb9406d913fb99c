//! Sets a session up: runs the owner's `after_connect` hook, at a dial and after a reset, and checks what it leaves.
//!
//! The hook has the driver's client, so it can leave anything: a transaction, in which the next caller's writes would
//! be lost, or a request whose answer would come to the next caller.

use futures_util::future::join;
use tokio::time;

use super::connection::Conn;
use super::wire::TransactionStatus;
use crate::error::{ConnectError, HookLeft};

/// Runs the hook, if there is one. If it succeeds and leaves nothing, the session begins with what the hook has set.
/// `target` is the server's name, for the error. Only the wait for what the hook leaves has a limit.
pub(super) async fn set_up(conn: &Conn, target: &str) -> Result<(), ConnectError> {
    let hooks = &conn.handling.hooks;
    if hooks.has_after_connect() {
        hooks.set_up(&conn.object).await.map_err(|error| ConnectError::after_connect(target, error))?;
        check(conn, target).await?;
    }
    conn.link.wire.begin_session();
    Ok(())
}

/// Waits for the answers that are still to come, and checks that no transaction is open.
///
/// A stream that the hook dropped before its end does no harm once the rest of its rows has come.
async fn check(conn: &Conn, target: &str) -> Result<(), ConnectError> {
    let link = &conn.link;
    let errors = link.wire.errors();
    // Only the answer to a later request shows whether a failed COPY has ended. An empty request will do.
    let after = async {
        if link.wire.unanswered() > 0 {
            let _ = conn.object.simple_query("").await;
        }
    };
    let left = match time::timeout(link.trips.answer(), join(link.monitor.quiet(), after)).await {
        Ok((false, ())) => return Err(ConnectError::failed_before_first_use()),
        Ok((true, ())) => match link.wire.status() {
            TransactionStatus::Open => HookLeft::OpenTransaction,
            TransactionStatus::Failed => HookLeft::FailedTransaction,
            TransactionStatus::Idle if link.wire.errors() > errors => HookLeft::FailedRequest,
            TransactionStatus::Idle => return Ok(()),
        },
        Err(_) => HookLeft::UnansweredRequest,
    };
    Err(ConnectError::hook_left(target, left))
}

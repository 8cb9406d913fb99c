//! Sets a session up: runs the owner's `after_connect` hook, at a dial and after a reset, and checks what it leaves.
//!
//! The hook has the driver's client, so it can leave anything: a transaction, in which the next caller's writes would
//! be lost, or a request whose answer would come to the next caller.

use futures_util::future::join;

use super::connection::Conn;
use super::wire::TransactionStatus;
use crate::error::{ConnectError, HookLeft};

/// Runs the hook and checks what it leaves. Then the session begins. `connect_timeout` is the limit, as in a dial.
/// `target` is the server's name, for the error.
pub(super) async fn set_up(conn: &Conn, target: &str) -> Result<(), ConnectError> {
    run_hook(conn, target).await?;
    begin_session(conn, target).await
}

/// Runs the hook, if there is one.
pub(super) async fn run_hook(conn: &Conn, target: &str) -> Result<(), ConnectError> {
    conn.handling.hooks.set_up(&conn.object).await.map_err(|error| ConnectError::after_connect(target, error))
}

/// Waits until the hook's requests are answered, and checks that no transaction is open. Then the session begins, with
/// what the hook has set.
///
/// A stream that the hook dropped before its end does no harm once the rest of its rows has come.
pub(super) async fn begin_session(conn: &Conn, target: &str) -> Result<(), ConnectError> {
    if conn.handling.hooks.has_after_connect() {
        check(conn, target).await?;
    }
    conn.link.wire.begin_session();
    Ok(())
}

async fn check(conn: &Conn, target: &str) -> Result<(), ConnectError> {
    let wire = &conn.link.wire;
    let errors = wire.errors();
    // Only the answer to a later request shows whether a failed COPY has ended. An empty request will do.
    let after = async {
        if wire.unanswered() > 0 {
            let _ = conn.object.simple_query("").await;
        }
    };
    if !join(conn.link.monitor.quiet(), after).await.0 {
        return Err(ConnectError::failed_before_first_use());
    }
    let left = match wire.status() {
        TransactionStatus::Open => HookLeft::OpenTransaction,
        TransactionStatus::Failed => HookLeft::FailedTransaction,
        TransactionStatus::Idle if wire.errors() > errors => HookLeft::FailedRequest,
        TransactionStatus::Idle => return Ok(()),
    };
    Err(ConnectError::hook_left(target, left))
}

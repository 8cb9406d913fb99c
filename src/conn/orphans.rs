//! Drops the statements that abandoned calls have left on the server.
//!
//! The driver closes a statement when its last handle is dropped. A call that was dropped while the driver prepared its
//! statement leaves one without a handle. The wire knows the names of all statements that were never used. Such a
//! statement in the caches is dropped, too, and forgotten.
//!
//! A pooler that tracks prepared statements gives them other names. It answers that it does not know them, and keeps
//! only a bounded number on its connections to the server.

use futures_util::future::join_all;

use super::connection::Conn;
use super::wire::TransactionStatus;

/// Drops them in one round trip. Returns `false` if that failed, because the connection has ended. Call it only while
/// the connection is at rest, no cancel can come late, and the connection belongs to no caller.
pub(super) async fn drop_all(conn: &Conn) -> bool {
    let (link, client) = (&conn.link, &conn.object);
    // A failed transaction refuses every other command. A pooler may have another server after its end.
    let rollback = if link.wire.status() == TransactionStatus::Idle { "" } else { "ROLLBACK; " };
    let names = link.wire.take_unused();
    let drops = names.iter().enumerate().map(|(number, name)| {
        let rollback = if number == 0 { rollback } else { "" };
        let sql = format!("{rollback}DEALLOCATE \"{}\"", name.replace('"', "\"\""));
        async move { client.batch_execute(&sql).await }
    });
    let answers = join_all(drops).await;
    link.calls.set_suspects_statements(false);
    conn.statements.forget_unused();
    answers.iter().all(|answer| answer.as_ref().err().is_none_or(|error| error.as_db_error().is_some()))
}

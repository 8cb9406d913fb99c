//! Begins a session on a finished stream: start-up, check of the server's role, the `after_connect` hook.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Error, SimpleQueryMessage};

use super::progress::DialProgress;
use super::route::Route;
use crate::conn::Conn;
use crate::conn::handling::Handling;
use crate::conn::set_up::{begin_session, run_hook};
use crate::conn::stream::Stream;
use crate::conn::task::Task;
use crate::error::{ConnectError, ConnectErrorKind, Stage};
use crate::slots::Connection as _;

/// Makes a connection of `stream`. `opening` is how long it took to open the stream over `route`.
pub(crate) async fn begin(
    stream: Stream,
    route: Route,
    opening: Duration,
    handling: &Handling,
    progress: &mut DialProgress<'_>,
) -> Result<Box<Conn>, ConnectError> {
    let (wire, over_tls) = (stream.wire(), stream.is_tls());
    let (target, config) = (route.name.clone(), route.config.clone());
    let started = progress.server(stream.start_up((*config).clone())).await;
    let (client, connection) = started.map_err(|error| ConnectError::handshake(&target, error, over_tls))?;
    let task = Task::spawn(connection, wire.clone(), Arc::clone(&handling.recorder));
    let conn = Box::new(Conn::new(client, task, wire, route, opening, handling.clone()).await);
    match prepare(&conn, &target, over_tls, config.get_target_session_attrs(), progress).await {
        Ok(()) => Ok(conn),
        Err(error) => {
            conn.close().await;
            Err(error)
        }
    }
}

/// Checks the server's role and runs the owner's hook, before any caller gets the connection.
async fn prepare(
    conn: &Conn,
    target: &str,
    over_tls: bool,
    wanted: TargetSessionAttrs,
    progress: &mut DialProgress<'_>,
) -> Result<(), ConnectError> {
    if wanted != TargetSessionAttrs::Any {
        let read_only = progress.server(is_read_only(&conn.object)).await;
        let read_only = read_only.map_err(|error| ConnectError::handshake(target, error, over_tls))?;
        if read_only != (wanted == TargetSessionAttrs::ReadOnly) {
            return Err(ConnectError::new(ConnectErrorKind::WrongRole { read_only }, target));
        }
    }
    progress.other(Stage::AfterConnect, run_hook(conn, target)).await?;
    progress.other(Stage::HookLeftovers, begin_session(conn, target)).await
}

/// Returns whether the server is a standby, or read-only by its settings.
async fn is_read_only(object: &Object) -> Result<bool, Error> {
    let answer = object.simple_query("SHOW transaction_read_only").await?;
    Ok(answer.iter().any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("on"))))
}

//! A session on a finished stream: start-up, the server's role, the owner's hook.

use deadpool_postgres::Object;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Config, Error, SimpleQueryMessage};

use super::Conn;
use super::hooks::Hooks;
use super::stream::Stream;
use super::task::Task;
use crate::error::{ConnectError, ConnectErrorKind};
use crate::slots::Connection as _;

/// Makes a connection of `stream`. `target` is what errors call the server.
pub(super) async fn begin(
    stream: Stream,
    target: &str,
    config: &Config,
    hooks: &Hooks,
) -> Result<Box<Conn>, ConnectError> {
    let wire = stream.wire();
    let started = stream.start_up(config.clone()).await;
    let (client, connection) = started.map_err(|error| ConnectError::handshake(target, error))?;
    let task = Task::spawn(connection, wire);
    let conn = Box::new(Conn::new(client, task).await);
    match prepare(&conn.object, target, config, hooks).await {
        Ok(()) => Ok(conn),
        Err(error) => {
            conn.close().await;
            Err(error)
        }
    }
}

/// Whatever is due before anybody gets the connection.
async fn prepare(object: &Object, target: &str, config: &Config, hooks: &Hooks) -> Result<(), ConnectError> {
    let wanted = config.get_target_session_attrs();
    if wanted != TargetSessionAttrs::Any {
        let read_only = is_read_only(object).await;
        let read_only = read_only.map_err(|error| ConnectError::handshake(target, error))?;
        if read_only != (wanted == TargetSessionAttrs::ReadOnly) {
            return Err(ConnectError::new(ConnectErrorKind::WrongRole { read_only }, target));
        }
    }
    let set_up = hooks.set_up(object).await;
    set_up.map_err(|error| ConnectError::after_connect(target, error))
}

/// A standby is, and a server that was made so by its settings.
async fn is_read_only(object: &Object) -> Result<bool, Error> {
    let answer = object.simple_query("SHOW transaction_read_only").await?;
    Ok(answer.iter().any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("on"))))
}

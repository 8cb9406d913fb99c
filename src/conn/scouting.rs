//! A connection for questions of the pool's own: about a host's role, the beacons of a fleet, the sessions that wait
//! for a lock, or before a deployment. It takes no slot of the pool, and serves no caller.

use std::time::Duration;

use tokio::time;
use tokio_postgres::SimpleQueryMessage;

use super::connection::Conn;
use super::dial::Dialer;
use crate::error::{ConnectError, Error};
use crate::human::HumanDuration;

/// A connection for questions. Dropping it ends it.
pub(crate) struct Scouting(Box<Conn>);

impl Dialer {
    /// Makes a connection for questions, within `connect_timeout`.
    pub(crate) async fn dial_to_ask(&self) -> Result<Scouting, ConnectError> {
        self.dial_to_listen().await.map(Scouting)
    }

    /// As [`dial_to_ask`](Self::dial_to_ask), with the error as text.
    #[cfg(any(feature = "cluster", feature = "fleet"))]
    pub(crate) async fn scout(&self) -> Result<Scouting, String> {
        self.dial_to_ask().await.map_err(|error| error.to_string())
    }
}

impl Scouting {
    /// The server's process, as the driver was told. Behind a pooler, the server knows another one.
    #[cfg(any(feature = "fleet", feature = "preflight"))]
    pub(crate) fn process_id(&self) -> Option<i32> {
        self.0.link.process_id()
    }

    /// Asks one question, and returns the first row of the answer, as text. After an error, the connection may not be
    /// used again.
    pub(crate) async fn ask(&self, question: &str, within: Duration) -> Result<Vec<Option<String>>, String> {
        let answer = match time::timeout(within, self.0.object.simple_query(question)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(Error::from(error).to_string()),
            Err(_) => return Err(format!("no answer within {}", HumanDuration(within))),
        };
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.ok_or_else(|| "an answer without a row".to_owned())?;
        Ok((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
    }
}

//! A connection on which a cluster asks a host about its role. It takes no slot of the pool, and serves no caller.

use std::time::Duration;

use tokio::time;
use tokio_postgres::SimpleQueryMessage;

use super::connection::Conn;
use super::dial::Dialer;
use crate::human::HumanDuration;

/// A connection for questions. Dropping it ends it.
pub(crate) struct Scouting(Box<Conn>);

impl Dialer {
    /// Makes a connection for questions.
    pub(crate) async fn scout(&self) -> Result<Scouting, String> {
        self.dial_to_listen().await.map(Scouting).map_err(|error| error.to_string())
    }
}

impl Scouting {
    /// Asks one question, and returns the first row of the answer, as text. After an error, the connection may not be
    /// used again.
    pub(crate) async fn ask(&self, question: &str, within: Duration) -> Result<Vec<Option<String>>, String> {
        let answer = match time::timeout(within, self.0.object.simple_query(question)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(crate::error::Error::from(error).to_string()),
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

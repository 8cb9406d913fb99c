//! A connection that listens: its dial, its LISTEN, its health check and its end. It takes no slot of the pool.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::time::{self, Instant};
use tokio_postgres::SimpleQueryMessage;

use super::connection::Conn;
use super::dial::Dialer;
use super::dial::listen_control::Counted;
use super::inbox::{Inbox, Source};
use crate::error::{Error, Lost};
use crate::human::HumanDuration;
use crate::policy::{Effect, StatementPhase, Trouble};
use crate::slots::Dial as _;

/// The channels of a listener.
#[derive(Debug, Clone)]
pub(crate) struct Channels {
    /// The LISTEN for all of them.
    pub(crate) statement: String,
    pub(crate) count: usize,
}

/// A connection that listens. Dropping it ends it.
pub(crate) struct Listening {
    conn: Box<Conn>,
    source: Source,
    channels: usize,
    begun: Instant,
    limit: Duration,
    _counted: Counted,
}

impl Dialer {
    /// Makes a connection that listens. The inbox keeps its notifications from [`deliver`](Listening::deliver) on.
    pub(crate) async fn listen(&self, channels: &Channels, inbox: &Arc<Inbox>) -> Result<Listening, Error> {
        let conn =
            self.dial_to_listen().await.map_err(|source| Error::Connect { source, retry_after: Duration::ZERO })?;
        let (source, counted) = (inbox.next_source(), self.listen_control().count_one());
        conn.link.monitor.notify(Arc::clone(inbox), source);
        let (begun, limit) = (Instant::now(), self.connect_timeout());
        let listening = Listening { conn, source, channels: channels.count, begun, limit, _counted: counted };
        listening.execute(&channels.statement).await?;
        Ok(listening)
    }

    /// Returns whether another attempt to listen may succeed soon.
    pub(crate) fn trouble_of(&self, error: &Error) -> Trouble {
        match error {
            Error::Connect { source, .. } => self.trouble(source),
            _ => Trouble::Passing,
        }
    }
}

impl Listening {
    /// The inbox takes the notifications of this connection, and of no other, from now on.
    pub(crate) fn deliver(&self, inbox: &Inbox) {
        inbox.take_from(self.source);
    }

    /// Hands over to a newer connection, which listens already, within this time. Returns whether every notification is
    /// delivered once.
    pub(crate) async fn hand_over(&self, to: &Listening, within: Duration, inbox: &Inbox) -> bool {
        // Behind another address there is usually another server, which knows nothing of these notifications.
        if self.conn.address != to.conn.address {
            return false;
        }
        let marker = format!("failfast_{:016x}", fastrand::u64(..));
        let listen = format!("LISTEN {marker}");
        let change = async {
            self.execute(&listen).await?;
            to.execute(&listen).await?;
            inbox.begin_change(to.source, marker.clone());
            to.execute(&format!("NOTIFY {marker}")).await?;
            inbox.change_ended().await;
            to.execute(&format!("UNLISTEN {marker}")).await
        };
        let bounded = time::timeout(within, change);
        match select(pin!(bounded), pin!(self.ended())).await {
            Either::Left((changed, _)) => matches!(changed, Ok(Ok(()))),
            Either::Right(_) => false,
        }
    }

    /// Runs a statement without rows.
    async fn execute(&self, statement: &str) -> Result<(), Error> {
        let begun = Instant::now();
        let answer = match time::timeout(self.limit, self.conn.object.batch_execute(statement)).await {
            Ok(answer) => answer,
            Err(_) => {
                let (operation, process_id) = (Some("LISTEN"), self.conn.link.process_id());
                let after = begun.elapsed();
                return Err(Error::QueryTimeout { operation, after, process_id, effect: Effect::NotApplied });
            }
        };
        match answer {
            Ok(()) => Ok(()),
            Err(error) => {
                let lost = if error.is_closed() { self.ended().await } else { None };
                Err(Error::of_statement(error, false, StatementPhase::Preparing, lost))
            }
        }
    }

    /// Waits until the connection has ended. Returns why it was lost.
    pub(crate) async fn ended(&self) -> Option<Arc<Lost>> {
        self.conn.link.monitor.close_reason().last_cause().await
    }

    /// Checks that the server answers within this time, or sends notifications meanwhile, and that the session still
    /// listens. Otherwise returns what is wrong.
    ///
    /// A proxy or a pooler may have led the connection to another session, which listens to nothing.
    pub(crate) async fn check(&self, within: Duration, inbox: &Inbox) -> Result<(), String> {
        let received = inbox.received();
        let asked = self.conn.object.simple_query("SELECT count(*) FROM pg_listening_channels()");
        match time::timeout(within, asked).await {
            Ok(Ok(answer)) if count(&answer) >= self.channels => Ok(()),
            Ok(Ok(_)) => Err("its session no longer listens, as behind a pooler in transaction mode".to_owned()),
            Ok(Err(error)) => Err(Error::from(error).to_string()),
            Err(_) if inbox.received() != received => Ok(()),
            Err(_) => Err(format!("the server did not answer a health check within {}", HumanDuration(within))),
        }
    }

    /// How long the connection has existed.
    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// The number in the first row of an answer.
fn count(answer: &[SimpleQueryMessage]) -> usize {
    let value = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
}

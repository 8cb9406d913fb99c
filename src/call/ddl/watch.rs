//! Watches who waits for a transaction, on a connection beside the pool's limit.
//!
//! `pg_locks` shows to every role which process waits for which lock, and since when. `pg_blocking_pids` says who is in
//! its way, also by a place in the queue. It locks the server's lock table for a moment, so it is asked only about
//! processes that wait for something of this transaction's.
//!
//! A watch that sees nothing is no watch: if its connection is lost, or leads to another server, it connects anew,
//! once. If that does not help, the transaction gives way.

use std::time::Duration;

use tokio::time::{self, Instant};
use tokio_postgres::SimpleQueryRow;

use crate::clock::now;
use crate::conn::{Dialer, Scouting};
use crate::error::{ConnectError, ConnectErrorKind, GiveWayReason};
use crate::policy::{Deadline, LockQueue, NextStep};
use crate::slots::Dial as _;

/// The columns that identify what is locked.
const LOCKED: [&str; 10] = [
    "locktype",
    "database",
    "relation",
    "page",
    "tuple",
    "virtualxid",
    "transactionid",
    "classid",
    "objid",
    "objsubid",
];

/// How the server names a transaction. Behind a pooler, the driver knows another process than the server does.
#[derive(Debug, Default)]
pub(super) struct OwnTransaction {
    process: i32,
    /// The place of the process among the others, and the number of its transaction.
    virtual_transaction: String,
    /// When the server was started, in seconds.
    server_started: String,
}

impl OwnTransaction {
    /// Asked within the transaction.
    pub(super) const QUESTION: &str = "SELECT pg_catalog.pg_backend_pid(), \
        (SELECT virtualtransaction FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid() LIMIT 1), \
        extract(epoch FROM pg_catalog.pg_postmaster_start_time())";

    pub(super) fn read(row: &SimpleQueryRow) -> Self {
        let text = |column| row.get(column).unwrap_or_default().to_owned();
        let process = row.get(0).and_then(|process| process.parse().ok()).unwrap_or_default();
        Self { process, virtual_transaction: text(1), server_started: text(2) }
    }

    /// Asks whether the server has this transaction, how many processes wait for it, and how long the first has waited.
    fn question(&self) -> String {
        let Self { process, virtual_transaction, server_started } = self;
        let of = |table: &str| LOCKED.map(|column| format!("{table}.{column}")).join(", ");
        let (own, other) = (of("own"), of("other"));
        format!(
            "WITH locks AS MATERIALIZED (SELECT * FROM pg_catalog.pg_locks), \
             own AS MATERIALIZED (SELECT * FROM locks WHERE pid = {process}) \
             SELECT extract(epoch FROM pg_catalog.pg_postmaster_start_time())::text = '{server_started}' \
             AND EXISTS (SELECT FROM own WHERE virtualtransaction = '{virtual_transaction}'), \
             count(*), coalesce(max(extract(epoch FROM pg_catalog.clock_timestamp() - waitstart)), 0) \
             FROM locks other WHERE NOT granted AND locktype <> 'advisory' AND pid <> {process} \
             AND EXISTS (SELECT FROM own WHERE ROW({own}) IS NOT DISTINCT FROM ROW({other})) \
             AND {process} = ANY (pg_catalog.pg_blocking_pids(pid))"
        )
    }
}

/// A connection that looks at the queue behind one transaction.
pub(super) struct QueueWatch<'a> {
    dialer: &'a Dialer,
    connection: Scouting,
    limit: Duration,
}

impl<'a> QueueWatch<'a> {
    /// Connects, before the deadline of the call. Nobody may wait longer than `limit` for the transaction.
    pub(super) async fn begin(
        dialer: &'a Dialer,
        limit: Duration,
        until: Option<Deadline>,
    ) -> Result<Self, ConnectError> {
        let (begun, dial) = (now(), dialer.dial_to_ask());
        let dialed = match until {
            Some(until) => time::timeout_at(until.instant().into(), dial).await,
            None => Ok(dial.await),
        };
        let left = || until.map_or(Duration::ZERO, |until| until.left(begun));
        let late = |_| ConnectError::new(ConnectErrorKind::Timeout(left()), "");
        Ok(Self { dialer, connection: dialed.map_err(late)??, limit })
    }

    /// Waits until the transaction has to give way, and returns why.
    pub(super) async fn give_way(&mut self, own: &OwnTransaction) -> GiveWayReason {
        let (begun, question) = (Instant::now(), own.question());
        loop {
            let queue = match self.look(&question).await {
                Ok(queue) => queue,
                Err(why) => return GiveWayReason::NotWatched { why: why.into() },
            };
            match queue.next_step(begun.elapsed(), self.limit) {
                NextStep::LookIn(pause) => time::sleep(pause).await,
                NextStep::GiveWay(LockQueue { sessions, longest }) => {
                    return GiveWayReason::Waiting { sessions, longest };
                }
            }
        }
    }

    /// Looks at the queue. After a failure it looks once more, on a new connection. Both together take at most as long
    /// as two looks at a server's health.
    async fn look(&mut self, question: &str) -> Result<LockQueue, String> {
        let within = self.dialer.answer_limit();
        if let Ok(queue) = ask(&self.connection, question, within).await {
            return Ok(queue);
        }
        let again = async {
            self.connection = self.dialer.dial_to_ask().await.map_err(|error| error.to_string())?;
            ask(&self.connection, question, within).await
        };
        let late = |_| "its second connection did not answer in time".to_owned();
        time::timeout(within, again).await.map_err(late)?
    }
}

async fn ask(connection: &Scouting, question: &str, within: Duration) -> Result<LockQueue, String> {
    let row = connection.ask(question, within).await?;
    read(&row).ok_or_else(|| format!("an answer that makes no sense: {row:?}"))?
}

/// Reads the answer. `None` if it is none. An error if the server does not have the transaction.
fn read(row: &[Option<String>]) -> Option<Result<LockQueue, String>> {
    let [is_here, sessions, longest] = row else { return None };
    if is_here.as_deref()? != "t" {
        return Some(Err("the server that was asked does not have the transaction".to_owned()));
    }
    let sessions = sessions.as_deref()?.parse().ok()?;
    let longest: f64 = longest.as_deref()?.parse().ok()?;
    let longest = Duration::try_from_secs_f64(longest.max(0.0)).ok()?;
    Some(Ok(LockQueue { sessions, longest }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_nothing_else_is() {
        let row = |row: [&str; 3]| row.map(|text| Some(text.to_owned()));
        let queue = LockQueue { sessions: 2, longest: Duration::from_millis(251) };
        assert_eq!(read(&row(["t", "2", "0.251000"])), Some(Ok(queue)));
        assert!(read(&row(["f", "0", "0"])).is_some_and(|read| read.is_err()));
        let queue = LockQueue { sessions: 1, longest: Duration::ZERO };
        assert_eq!(read(&row(["t", "1", "-0.000003"])), Some(Ok(queue)), "the server's clock went back");
        assert_eq!(read(&row(["t", "many", "0"])), None);
        assert_eq!(read(&[]), None);
    }
}

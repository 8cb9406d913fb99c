//! One caller of the soak test. Its actions are random, and each result is checked.

mod turns;

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use failfast::{Client, Error, ErrorKind, Pool};
use fastrand::Rng;
use tokio::time::{sleep, timeout};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use super::{PROMPT, Record};

/// Finds what an earlier caller left: an open transaction, or a changed session.
const LEFT_BEHIND: &str = "concat_ws(', ',
    CASE WHEN now() <> statement_timestamp() THEN 'an open transaction' END,
    CASE WHEN pg_current_xact_id_if_assigned() IS NOT NULL THEN 'writes' END,
    'the token ' || nullif(current_setting('soak.token', true), ''),
    'work_mem ' || nullif(current_setting('work_mem'), '4MB'),
    (SELECT 'the channel ' || min(c) FROM pg_listening_channels() c),
    (SELECT 'the cursor ' || min(name) FROM pg_cursors),
    'the table ' || to_regclass('pg_temp.soak_temporary')::text,
    (SELECT 'an advisory lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() LIMIT 1))";

/// The results of the callers.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) turns: u64,
    dropped: u64,
    errors: BTreeMap<String, u64>,
    slowest: Duration,
    pub(super) record: Record,
}

impl Tally {
    pub(super) fn add(&mut self, other: Tally) {
        self.turns += other.turns;
        self.dropped += other.dropped;
        self.slowest = self.slowest.max(other.slowest);
        other.errors.into_iter().for_each(|(kind, count)| *self.errors.entry(kind).or_default() += count);
        self.record.add(other.record);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} turns, {} futures dropped, ", self.turns, self.dropped)?;
        write!(f, "slowest first answer {:?}, errors {:?}", self.slowest, self.errors)
    }
}

pub(super) struct Caller {
    pool: Pool,
    rng: Rng,
    number: u64,
    seen: Tally,
    /// In this turn the caller timed out or dropped a future. It caused the cancel of that statement itself.
    has_given_up: bool,
    /// In this turn the caller used the driver directly, so nothing protects it from its own cancels.
    is_direct: bool,
}

impl Caller {
    pub(super) fn new(pool: Pool, rng: Rng, number: u64) -> Self {
        Self { pool, rng, number, seen: Tally::default(), has_given_up: false, is_direct: false }
    }

    pub(super) async fn work_until(mut self, end: Instant) -> Tally {
        while Instant::now() < end {
            self.seen.turns += 1;
            (self.has_given_up, self.is_direct) = (false, false);
            if let Err(error) = self.turn().await {
                self.check(&error);
            }
            sleep(Duration::from_millis(self.rng.u64(..10))).await;
        }
        self.seen
    }

    /// Accepts the errors that a caller may get: its connection was killed, or its own timeout. Any other error is due
    /// to another caller.
    fn check(&mut self, error: &Error) {
        let lost = matches!(error, Error::Postgres { lost: Some(_), .. });
        let state = error.sqlstate().map(SqlState::code);
        let is_own = match error.kind() {
            ErrorKind::QueryTimeout | ErrorKind::Busy => self.has_given_up,
            // The connection was killed after the last statement, and the caller heard of it before it sent COMMIT.
            ErrorKind::TransactionAborted => self.has_given_up || state == Some("57P01"),
            ErrorKind::CommitUnknown => true,
            ErrorKind::AcquireTimeout | ErrorKind::Shed => true,
            ErrorKind::Postgres => match state {
                Some("57P01") => true,
                Some("57014") => self.has_given_up && self.is_direct,
                Some("25P02") => self.has_given_up,
                // The driver's error on a connection that was killed.
                _ => lost || is_closed(error),
            },
            _ => false,
        };
        assert!(is_own, "{}: {error}; gave a statement up in this turn: {}", self.token(), self.has_given_up);
        let state = state.map(|state| format!(" {state}")).unwrap_or_default();
        *self.seen.errors.entry(format!("{}{state}", error.kind())).or_default() += 1;
    }

    /// Returns a token that is unique to each turn.
    fn token(&self) -> String {
        format!("{}-{}", self.number, self.seen.turns)
    }

    fn moment(&mut self) -> Duration {
        Duration::from_millis(self.rng.u64(1..30))
    }

    /// Drops the future after a random time or number of polls, unless it ends before.
    async fn perhaps<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let (moment, polls) = (self.moment(), if self.rng.bool() { self.rng.u32(..6) } else { u32::MAX });
        let done = timeout(moment, polled(future, polls)).await.ok().flatten();
        self.has_given_up |= done.is_none();
        self.seen.dropped += u64::from(done.is_none());
        done
    }

    /// Returns a connection, after a check that earlier callers left nothing on it.
    async fn fresh(&mut self) -> Result<Client, Error> {
        let client = self.pool.get().await?;
        self.check_fresh(&client).await?;
        Ok(client)
    }

    async fn check_fresh(&mut self, client: &Client) -> Result<(), Error> {
        let asked = Instant::now();
        let messages = client.simple_query(&self.what_is_left()).await?;
        let took = asked.elapsed();
        self.check_nothing_is_left(&messages);
        assert!(took < PROMPT, "{}: waited behind another statement for {took:?}", self.token());
        self.seen.slowest = self.seen.slowest.max(took);
        Ok(())
    }

    /// Returns the query as text, because a simple query is a transaction of its own.
    fn what_is_left(&self) -> String {
        format!("SELECT '{}', {LEFT_BEHIND}", self.token())
    }

    fn check_nothing_is_left(&self, answer: &[SimpleQueryMessage]) {
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((row.get(0), row.get(1))),
            _ => None,
        });
        assert_eq!(
            row,
            Some((Some(&*self.token()), Some(""))),
            "the answer to another query, or the leftovers of another caller"
        );
    }

    /// Asks for a token of its own, on a connection that may be in use.
    async fn echo(&self, client: &Client, sleep: f64) -> Result<(), Error> {
        let token = format!("{}-{sleep}", self.token());
        let row = client.query_one("SELECT $1::text FROM pg_sleep($2)", &[&token, &sleep]).await?;
        assert_eq!(row.get::<_, String>(0), token, "the answer to another query");
        Ok(())
    }
}

fn is_closed(error: &Error) -> bool {
    matches!(error, Error::Postgres { source, .. } if source.is_closed())
}

/// Polls the future at most `most` times.
async fn polled<F: Future>(future: F, most: u32) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = most;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

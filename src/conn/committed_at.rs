//! The position of a commit in the write-ahead log, asked for in the round trip of the COMMIT.
//!
//! The question follows the COMMIT at once, so the answer is a place behind the commit's record. It asks for the place
//! at which the server inserts next, because with `synchronous_commit=off` the record may not be written yet. A replica
//! answers how far its replay is: whatever the transaction has read lies before that.
//!
//! What becomes of the question never matters to the transaction: the wire counts commits, whatever follows them.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::maybe_done;
use parking_lot::Mutex;
use tokio::time;
use tokio_postgres::SimpleQueryMessage;

use super::Client;
use super::calls::in_flight::InFlightCall;
use super::wire::Tag;
use crate::clock::now;
use crate::error::{AbortReason, Error};
use crate::policy::{Deadline, Lsn};

/// The first eight digits of the name of a file of the log are its timeline. Places are rounded by the headers of pages
/// of 8 kB ([`Lsn::rounded`]), so a server with other pages gives none.
const QUESTION: &str = "SELECT CASE WHEN is_replica THEN pg_catalog.pg_last_wal_replay_lsn() \
                        ELSE pg_catalog.pg_current_wal_insert_lsn() END, \
                        CASE WHEN NOT is_replica THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) \
                        END FROM pg_catalog.pg_is_in_recovery() is_replica \
                        WHERE pg_catalog.current_setting('wal_block_size') = '8192'";

/// The answer comes right behind that of the COMMIT. A caller whose transaction has been decided waits no longer for
/// it.
const LATE: Duration = Duration::from_millis(250);

/// Where the timeline and the place of a commit are written. Empty until then, and if the server does not say it. A
/// replica does not say its timeline.
#[derive(Debug, Clone, Default)]
pub(crate) struct CommittedAt(Arc<Mutex<Option<Place>>>);

type Place = (Option<u32>, Lsn);

impl CommittedAt {
    pub(crate) fn get(&self) -> Option<Place> {
        *self.0.lock()
    }
}

impl Client {
    /// [`send_commit`](Self::send_commit), and the question for its position behind it.
    pub(super) async fn send_commit_and_ask(
        &self,
        call: InFlightCall,
        limit: Deadline,
        committed_at: &CommittedAt,
    ) -> Result<(), Error> {
        #[cfg(feature = "testing")]
        let call = Box::pin(self.pretended_commit(call)).await?;
        let wire = &self.conn().link.wire;
        let (commits, completed) = (wire.commits(), wire.completed());
        let mut commit = pin!(self.driver().batch_execute("COMMIT"));
        let mut question = pin!(maybe_done(self.driver().simple_query(QUESTION)));
        // The first poll writes both requests, so that one round trip answers them.
        let both = poll_fn(|cx| {
            let answer = commit.as_mut().poll(cx);
            let _ = question.as_mut().poll(cx);
            answer
        });
        let answer = time::timeout_at(limit.instant().into(), both).await;
        let until = limit.instant().min(now() + LATE);
        let _ = time::timeout_at(until.into(), question.as_mut()).await;
        let place = question.as_mut().take_output();
        if wire.commits() != commits {
            match place {
                Some(rows) => {
                    *committed_at.0.lock() = rows.ok().as_deref().and_then(read);
                    call.answered();
                }
                None => call.answered_in_part(),
            }
            return Ok(());
        }
        let was_rolled_back = wire.completed() != completed && wire.last_tag() == Tag::Rollback;
        match answer {
            Ok(Ok(())) => Err(call.answered_with(rolled_back())),
            _ if was_rolled_back => Err(call.answered_with(rolled_back())),
            Ok(Err(error)) => Err(call.explain_commit(error).await),
            Err(_) => Err(call.commit_timed_out()),
        }
    }
}

fn rolled_back() -> Error {
    Error::TransactionAborted { reason: AbortReason::RolledBack }
}

/// Reads the timeline and the place from an answer.
fn read(rows: &[SimpleQueryMessage]) -> Option<Place> {
    rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let timeline = match row.get(1) {
                Some(file) => Some(u32::from_str_radix(file.get(..8)?, 16).ok()?),
                None => None,
            };
            Some((timeline, row.get(0)?.parse().ok()?))
        }
        _ => None,
    })
}

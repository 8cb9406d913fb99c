//! One statement for many rows, all or nothing.
//!
//! The statements are pipelined: the server has the next ones while it answers the first. The server answers them in
//! order, so the first error belongs to the row whose turn it is. After it, in a transaction, the others do nothing.

mod counted;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use futures_util::TryStreamExt;
use parking_lot::Mutex;
use tokio_postgres::Error as DriverError;
use tokio_postgres::types::{BorrowToSql, Type};

use self::counted::Encoded;
use super::activity::Exclusion;
use super::statements::{AsStatement, Form};
use crate::clock::now;
use crate::conn::Client;
use crate::error::Error;

/// How many rows are sent and not yet answered. It bounds the memory of small rows, and is enough for a server that is
/// 5 ms away and needs 20 us for a row.
const WINDOW: usize = 256;
/// No further row is sent while those without an answer have so many bytes.
const MOST_BYTES: usize = 4 << 20;

/// What is known of the rows while the call is under way.
struct Progress {
    known: Mutex<Known>,
    encoded: Encoded,
}

struct Known {
    /// When the server answered last.
    answered: Instant,
    /// The first row that failed.
    failed: Option<u64>,
}

impl Client {
    /// Runs a statement for each row. Returns how many rows were changed in all.
    ///
    /// In a transaction the statements belong to it. Otherwise the call has a transaction of its own, and no other call
    /// begins on the connection meanwhile.
    pub(super) async fn many<T, I, R, P>(&self, statement: &T, rows: I) -> Result<u64, Error>
    where
        T: ?Sized + AsStatement,
        I: IntoIterator<Item = R> + Clone,
        I::IntoIter: Send,
        R: IntoIterator<Item = P>,
        R::IntoIter: ExactSizeIterator,
        P: BorrowToSql,
    {
        let (link, options) = (&self.conn().link, self.options());
        let span = self.span("execute_many");
        #[cfg(feature = "testing")]
        let (span, delay) = self.pretended(span).await?;
        let mut call = self.begin(options.limit(now()), span).await?;
        let is_own = !call.before.was_open;
        if is_own && link.calls.exclude_others() == Exclusion::NotAlone {
            return Err(call.not_alone());
        }
        call.is_uncommitted = is_own;
        let progress = &Progress::new();
        let run = |form| {
            // An earlier run may have failed because the statement was outdated.
            progress.set_failed(None);
            // Boxed, because rustc cannot show that a future with an iterator of borrowed values is `Send` (issue
            // 102211).
            let rows: Box<dyn Iterator<Item = R> + Send + '_> = Box::new(rows.clone().into_iter());
            async move {
                let done = async {
                    match &form {
                        Form::Prepared(statement) => {
                            let send =
                                |row: R| self.driver().execute_raw(statement, progress.encoded.count(row.into_iter()));
                            pipelined(rows.map(send), progress).await
                        }
                        Form::Typed(sql, types) => {
                            let send = |row: R| self.execute_typed(sql, types, progress.encoded.count(row.into_iter()));
                            pipelined(rows.map(send), progress).await
                        }
                    }
                };
                if is_own { self.in_transaction(done).await } else { done.await }
            }
        };
        let work = self.run(statement, run);
        #[cfg(feature = "testing")]
        let work = async move {
            if let Some(delay) = delay {
                delay.await;
            }
            work.await
        };
        let work = pin!(work);
        match call.bounded_by(|| options.limit(progress.answered()), work).await {
            Ok((changed, call)) if !is_own => {
                call.answered();
                Ok(changed)
            }
            Ok((changed, mut call)) => {
                call.is_uncommitted = false;
                self.send_commit(call, options.limit(now())).await?;
                Ok(changed)
            }
            Err(error) => {
                // If the statement could not be prepared again, no row is at fault.
                let failed = progress.failed().filter(|_| !link.calls.is_preparing());
                // The driver refused to send a row, so the server does not know that the others must not be committed.
                if !is_own && failed.is_some_and(|row| row > 0) && error.sqlstate().is_none() {
                    link.calls.on_done_in_part();
                }
                Err(match failed {
                    Some(row) => error.at_row(row),
                    None => error,
                })
            }
        }
    }

    async fn in_transaction<T>(&self, work: impl Future<Output = Result<T, DriverError>>) -> Result<T, DriverError> {
        self.driver().batch_execute("BEGIN").await?;
        let done = work.await;
        if done.as_ref().is_err_and(|error| !error.is_closed()) {
            // If this fails, the connection has ended.
            let _ = self.driver().batch_execute("ROLLBACK").await;
        }
        done
    }

    async fn execute_typed<P>(
        &self,
        sql: &str,
        types: &[Type],
        params: impl Iterator<Item = P>,
    ) -> Result<u64, DriverError>
    where
        P: BorrowToSql,
    {
        let types = types.iter().cloned().chain(std::iter::repeat(Type::UNKNOWN));
        let mut rows = pin!(self.driver().query_typed_raw(sql, params.zip(types)).await?);
        while rows.try_next().await?.is_some() {}
        Ok(rows.rows_affected().unwrap_or(0))
    }
}

/// Runs the statements, with at most [`WINDOW`] of them under way, and about [`MOST_BYTES`]. After an error it sends no
/// more, and awaits the answers that are due.
async fn pipelined<F>(statements: impl Iterator<Item = F>, progress: &Progress) -> Result<u64, DriverError>
where
    F: Future<Output = Result<u64, DriverError>>,
{
    let mut statements = statements.fuse();
    let mut sent = VecDeque::with_capacity(WINDOW);
    // The clock is read once for all answers of a poll, because that costs a short statement some percent. Before the
    // poll, `known` rows were answered.
    let (mut changed, mut answered, mut known, mut failed) = (0, 0, 0, None);
    let mut bytes = 0;
    poll_fn(|cx| {
        loop {
            while failed.is_none() && sent.len() < WINDOW && bytes < MOST_BYTES {
                let Some(statement) = statements.next() else { break };
                let mut statement = Box::pin(statement);
                // The first poll sends the statement.
                let polled = statement.as_mut().poll(cx);
                let size = progress.encoded.take();
                match polled {
                    Poll::Pending => {
                        bytes += size;
                        sent.push_back((statement, size));
                    }
                    Poll::Ready(Ok(rows)) => changed += rows,
                    Poll::Ready(Err(error)) => failed = Some((answered + sent.len() as u64, error)),
                }
            }
            let Some((first, size)) = sent.front_mut() else { return Poll::Ready(()) };
            // Other tasks get their turn, and the limit is looked at, even if the answers never run out.
            let is_enough = answered >= known + WINDOW as u64;
            let answer = if is_enough { Poll::Pending } else { first.as_mut().poll(cx) };
            let Poll::Ready(answer) = answer else {
                if is_enough {
                    cx.waker().wake_by_ref();
                }
                if answered > known {
                    known = answered;
                    progress.on_answer();
                }
                return Poll::Pending;
            };
            bytes -= *size;
            sent.pop_front();
            match answer {
                Ok(rows) => changed += rows,
                // All statements behind this one fail, too.
                Err(error) if failed.as_ref().is_none_or(|(row, _)| answered < *row) => {
                    failed = Some((answered, error))
                }
                Err(_) => {}
            }
            answered += 1;
        }
    })
    .await;
    progress.set_failed(failed.as_ref().map(|(row, _)| *row));
    match failed {
        Some((_, error)) => Err(error),
        None => Ok(changed),
    }
}

impl Progress {
    fn new() -> Self {
        Self { known: Mutex::new(Known { answered: now(), failed: None }), encoded: Encoded::default() }
    }

    fn answered(&self) -> Instant {
        self.known.lock().answered
    }

    fn failed(&self) -> Option<u64> {
        self.known.lock().failed
    }

    fn on_answer(&self) {
        self.known.lock().answered = now();
    }

    fn set_failed(&self, row: Option<u64>) {
        self.known.lock().failed = row;
    }
}

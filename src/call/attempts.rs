//! Attempts: a call that failed runs again if that is safe, if there is time, and if the budget bears it.
//!
//! Between attempts nothing is held: no connection, no ticket, no place in the queue. Each passes the breaker and the queue like a new call, and
//! has the limits of the first. How long all of them have taken decides only whether another begins.
//!
//! The work on a connection is boxed once there is a connection: a future that waits in the queue, or is moved into a task, holds none of it.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::{task, time};

use super::Call;
use crate::clock::now;
use crate::conn::{Client, Trail};
use crate::error::Error;
use crate::policy::{Condition, Deadline, Failed, Retry};
use crate::retry::Pauses;
use crate::telemetry::{Fault, Span};

/// What an attempt that failed says of another.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Attempted {
    pub(super) retry: Retry,
    pub(super) was_stale: bool,
    pub(super) timed_out: bool,
    /// Another transaction was in the way, or a statement outdated: nothing that burdens a server in trouble.
    pub(super) is_free: bool,
    /// How many statements it had begun.
    pub(super) statements: u32,
    /// For the call's span and its metric.
    pub(super) fault: Fault,
}

impl Attempted {
    /// The whole may succeed if it runs again.
    pub(super) fn conflict() -> Self {
        Self { retry: Retry::NewConnection(Condition::Scheduled), is_free: true, ..Self::default() }
    }

    /// After so many statements.
    pub(super) fn after(self, statements: u32) -> Self {
        Self { statements, ..self }
    }

    /// What the connection shows of the work that was done on it, whatever error was made of it.
    fn of_run(trail: &Trail) -> Self {
        let (was_stale, retry) = (trail.is_stale(), trail.retry());
        // Other statements may have gone before: all of it is done again.
        let retry = match retry {
            retry if was_stale => retry,
            Retry::Never => Retry::Never,
            _ => Retry::NewConnection(Condition::IfIdempotent),
        };
        let (timed_out, statements) = (trail.has_timed_out(), trail.statements());
        Self { retry, was_stale, timed_out, is_free: false, statements, fault: trail.fault() }
    }

    /// Why it runs again, in a word.
    fn reason(&self) -> &str {
        if self.was_stale {
            "stale"
        } else if self.is_free {
            "conflict"
        } else {
            self.fault.error_type()
        }
    }

    /// Whether it may have been applied.
    fn is_doubtful(self) -> bool {
        let (Retry::SameConnection(condition) | Retry::NewConnection(condition) | Retry::OtherHost(condition)) =
            self.retry
        else {
            return false;
        };
        condition == Condition::IfIdempotent
    }

    /// The error, if what it stands for may have been applied.
    fn doubt<E>(self, error: E) -> Option<E> {
        self.is_doubtful().then_some(error)
    }

    /// Of the last error and an earlier one, the one that says what has become of the whole call: a refusal says nothing of what was sent before.
    fn last_word<E>(self, error: E, doubt: Option<E>) -> E {
        if self.is_doubtful() { error } else { doubt.unwrap_or(error) }
    }

    /// What an error of ours says, beside the error.
    pub(super) fn in_error<E: From<Error>>(error: Error) -> (E, Self) {
        let timed_out = matches!(error, Error::QueryTimeout { .. });
        let (retry, was_stale, fault) = (error.retry(), error.was_stale(), Fault::from(&error));
        let seen = Self { retry, was_stale, timed_out, is_free: false, statements: 1, fault };
        (error.into(), seen)
    }
}

/// A call, attempt by attempt.
struct Attempts<'a> {
    call: Call<'a>,
    made: u32,
    begun: Instant,
    /// When the latest attempt began.
    latest: Instant,
    pauses: Pauses,
}

impl<'a> Attempts<'a> {
    fn of(call: Call<'a>) -> Self {
        let (call, begun) = (Call { is_part: true, ..call }, now());
        Self { call, made: 0, begun, latest: begun, pauses: call.shared.retries.pauses() }
    }

    /// By when another attempt has to begin, and how long it is expected to take. With a deadline, as long as the latest one took. Without one,
    /// the limits of its parts decide how long it takes; and another may begin while all have taken less than the limits of one attempt add up to.
    fn time(&self, now: Instant, statements: u32) -> (Deadline, Duration) {
        let shared = self.call.shared;
        match self.call.deadline {
            Some(deadline) => (deadline, now.saturating_duration_since(self.latest).max(shared.recorder.typical())),
            None => {
                let each = self.call.timeout.unwrap_or(shared.query_timeout);
                let limits = shared.acquire_timeout.saturating_add(each.saturating_mul(statements.max(1)));
                (Deadline::after(self.begun, limits), Duration::ZERO)
            }
        }
    }

    /// The next attempt.
    fn next(&mut self) -> Call<'a> {
        self.made += 1;
        self.call
    }

    /// The latest attempt went well.
    fn succeeded(&self) {
        self.call.shared.retries.succeeded(now);
    }

    /// Waits for the next attempt, if there is to be one.
    async fn go_on(&mut self, seen: Attempted) -> bool {
        let (deadline, work) = self.time(now(), seen.statements);
        let failed = Failed {
            retry: seen.retry,
            attempts: self.made,
            is_idempotent: self.call.is_idempotent,
            was_stale: seen.was_stale,
            timed_out: seen.timed_out,
            is_free: seen.is_free,
            deadline,
            work,
        };
        let (retries, meter) = (&self.call.shared.retries, self.call.shared.meter());
        let Some(pause) = retries.pause(now(), &failed, &mut self.pauses) else {
            if retries.are_exhausted(&failed) {
                meter.gave_up();
            }
            return false;
        };
        meter.retried(seen.reason());
        if pause > Duration::ZERO {
            time::sleep(pause).await;
        } else {
            // The others may be as dead, and about to find out.
            task::yield_now().await;
        }
        self.latest = now();
        true
    }
}

/// Tells where the work is done. By value: a future would keep the room of a client that it has lent.
pub(super) fn located(client: Client, span: &Span) -> Client {
    span.set_server(client.server());
    client
}

impl<'a> Call<'a> {
    /// Of the call as a whole. By value, for the same reason.
    pub(super) fn span(self, does: &'static str) -> Span {
        self.shared.tracer.call(self.operation, does)
    }

    /// The loop. An attempt that fails tells what was seen, from which it is read whether there is another: never from `E`.
    pub(super) async fn again<T, E, Fut>(self, span: Span, attempt: impl Fn(Call<'a>, Span) -> Fut) -> Result<T, E>
    where
        Fut: Future<Output = Result<T, (E, Attempted)>>,
    {
        let begun = self.shared.meter().start();
        let (mut attempts, mut doubt, mut fault) = (Attempts::of(self), None, Fault::default());
        loop {
            let (error, seen) = match span.scope(attempt(attempts.next(), span.clone())).await {
                Ok(value) => {
                    attempts.succeeded();
                    if !self.is_stream {
                        self.shared.meter().operated_since(begun, self.operation, None);
                    }
                    span.set_attempts(attempts.made);
                    return Ok(value);
                }
                Err(failed) => failed,
            };
            if seen.is_doubtful() || doubt.is_none() {
                fault = seen.fault;
            }
            if !attempts.go_on(seen).await {
                self.shared.meter().operated_since(begun, self.operation, Some(fault));
                span.set_attempts(attempts.made);
                span.failed(fault);
                return Err(seen.last_word(error, doubt));
            }
            doubt = seen.doubt(error).or(doubt);
        }
    }

    /// Runs `work` on a connection of its own, which it gives back; if it failed, perhaps again, on another.
    pub(super) async fn attempts<T, Fut>(self, span: Span, work: impl Fn(Client) -> Fut) -> Result<T, Error>
    where
        Fut: Future<Output = Result<T, Error>>,
    {
        let work = &work;
        let attempt = |call: Call<'a>, span: Span| async move {
            let result = match call.get().await {
                Ok(client) => Box::pin(work(located(client, &span))).await,
                Err(error) => Err(error),
            };
            result.map_err(Attempted::in_error)
        };
        self.again(span, attempt).await
    }

    /// Runs `work` with a connection of its own, for several statements on one lease.
    ///
    /// **It may run several times**, on another connection each time: if the connection had been dead before anything was written on it, and, if
    /// the call is [`idempotent`](Self::idempotent), whenever the last statement that failed may be tried again. What its statements
    /// did before stays done: for all or nothing, use [`transaction`](Self::transaction).
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
    /// let stock: i64 = pool
    ///     .call()
    ///     .idempotent()
    ///     .run(|client| async move {
    ///         client.execute("SELECT set_config('app.tenant', 'a', false)", &[]).await?;
    ///         let row = client.query_one("SELECT sum(stock) FROM items", &[]).await?;
    ///         Ok::<_, failfast::Error>(row.get(0))
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// What `work` returns; and as [`get`](Self::get).
    pub async fn run<T, E, F, Fut>(self, work: F) -> Result<T, E>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let work = &work;
        let attempt = |call: Call<'a>, span: Span| async move {
            let client = call.get().await.map_err(Attempted::in_error)?;
            span.set_server(client.server());
            let trail = client.trail();
            Box::pin(work(client)).await.map_err(|error| (error, Attempted::of_run(&trail)))
        };
        self.again(self.span("run"), attempt).await
    }
}

//! Attempts: a failed call runs again if that is safe, if there is time, and if the retry budget allows it.
//!
//! Between attempts the call has no connection, no ticket and no place in the queue. Each attempt passes the breaker
//! and the queue like a new call, and has the limits of the first. The time that all attempts have taken decides only
//! whether another begins.
//!
//! The work is boxed once there is a connection. So a future that waits in the queue, or moves into a task, stays
//! small.

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

/// What a failed attempt says about another one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Attempted {
    pub(super) retry: Retry,
    pub(super) was_stale: bool,
    pub(super) timed_out: bool,
    /// The retry costs no budget: another transaction was in the way, or a statement was outdated.
    pub(super) is_free: bool,
    /// The number of statements that the attempt began.
    pub(super) statements: u32,
    /// For the call's span and its metric.
    pub(super) fault: Fault,
}

impl Attempted {
    /// A conflict with another transaction: the whole may succeed if it runs again.
    pub(super) fn conflict() -> Self {
        Self { retry: Retry::NewConnection(Condition::Scheduled), is_free: true, ..Self::default() }
    }

    /// Adds the number of statements that the attempt began.
    pub(super) fn after(self, statements: u32) -> Self {
        Self { statements, ..self }
    }

    /// Reads the outcome of the work from its connection, whatever error the caller made of it.
    fn of_run(trail: &Trail) -> Self {
        let (was_stale, retry) = (trail.is_stale(), trail.retry());
        // Earlier statements of the work may have been applied, and a retry runs all of them again.
        let retry = match retry {
            retry if was_stale => retry,
            Retry::Never => Retry::Never,
            _ => Retry::NewConnection(Condition::IfIdempotent),
        };
        let (timed_out, statements) = (trail.has_timed_out(), trail.statements());
        Self { retry, was_stale, timed_out, is_free: false, statements, fault: trail.fault() }
    }

    /// The reason for another attempt, as a label of the metric.
    fn reason(&self) -> &str {
        if self.was_stale {
            "stale"
        } else if self.is_free {
            "conflict"
        } else {
            self.fault.error_type()
        }
    }

    /// Returns whether the attempt may have been applied.
    fn is_doubtful(self) -> bool {
        let (Retry::SameConnection(condition) | Retry::NewConnection(condition) | Retry::OtherHost(condition)) =
            self.retry
        else {
            return false;
        };
        condition == Condition::IfIdempotent
    }

    /// Returns the error if the attempt may have been applied.
    fn doubt<E>(self, error: E) -> Option<E> {
        self.is_doubtful().then_some(error)
    }

    /// Chooses between the last error and an earlier one. If an earlier attempt may have been applied, its error
    /// counts: a refusal of the last attempt says nothing about that.
    fn last_word<E>(self, error: E, doubt: Option<E>) -> E {
        if self.is_doubtful() { error } else { doubt.unwrap_or(error) }
    }

    /// Reads the outcome from an error of this crate, and returns both.
    pub(super) fn in_error<E: From<Error>>(error: Error) -> (E, Self) {
        let timed_out = matches!(error, Error::QueryTimeout { .. });
        let (retry, was_stale, fault) = (error.retry(), error.was_stale(), Fault::from(&error));
        let seen = Self { retry, was_stale, timed_out, is_free: false, statements: 1, fault };
        (error.into(), seen)
    }
}

/// The attempts of one call.
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

    /// By when another attempt has to begin, and how long it is expected to take.
    ///
    /// With a deadline, it is expected to take as long as the latest attempt. Without a deadline, another attempt may
    /// begin until the limits of one attempt, added up, have passed since the first attempt began.
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

    /// Begins the next attempt.
    fn next(&mut self) -> Call<'a> {
        self.made += 1;
        self.call
    }

    /// The latest attempt succeeded: refills the retry budget.
    fn succeeded(&self) {
        self.call.shared.retries.succeeded(now);
    }

    /// Waits for the next attempt. Returns `false` if there is none.
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
            // Other idle connections may be dead as well, and their tasks find out now.
            task::yield_now().await;
        }
        self.latest = now();
        true
    }
}

/// Records the server in the span. Takes the client by value, because a future would keep space for a borrowed one.
pub(super) fn located(client: Client, span: &Span) -> Client {
    span.set_server(client.server());
    client
}

impl<'a> Call<'a> {
    /// Begins the span of the whole call. Takes the call by value, because a future would keep space for a borrowed
    /// one.
    pub(super) fn span(self, does: &'static str) -> Span {
        self.shared.tracer.call(self.operation, does)
    }

    /// Runs attempts until one succeeds or no other may begin. [`Attempted`] decides that, never the caller's error
    /// `E`.
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

    /// Runs `work` with a connection of its own. If it fails, may run it again with another connection.
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
    /// **The pool may run `work` several times**, each time with another connection: if the connection was dead before
    /// anything was written on it, and, for an [`idempotent`](Self::idempotent) call, whenever the last failed
    /// statement may run again. The effects of earlier statements remain. For all or nothing, use
    /// [`transaction`](Self::transaction).
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
    /// Those that `work` returns, and those of [`get`](Self::get).
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

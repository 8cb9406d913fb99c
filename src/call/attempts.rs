//! The loop of attempts: a failed call runs again if that is safe, if there is time, and if the budget can pay.
//!
//! The rules are in `src/policy/retry.rs`, the settings in `src/retry.rs`. Between attempts a call holds nothing: no
//! connection, no ticket, no place in the queue. Each attempt passes the breaker and the queue like a new call, with
//! the limits of the first. The time that all of them took decides only whether another one begins.
//!
//! The future of the work is boxed once there is a connection. So a call that waits in the queue, or is moved into a
//! task, does not hold its memory.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::{task, time};

use super::Call;
use crate::clock::now;
use crate::conn::{Client, Trail};
use crate::error::Error;
use crate::policy::{Condition, Deadline, Failed, Retry};
use crate::retry::ForeignBackoff;
use crate::telemetry::{Fault, Span, Stamp};

/// The facts about a failed attempt that decide whether another one follows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Attempted {
    pub(super) retry: Retry,
    pub(super) was_stale: bool,
    pub(super) timed_out: bool,
    /// Another transaction was in the way, or a statement was outdated. Another attempt is no burden for a server in
    /// trouble.
    pub(super) is_free: bool,
    /// How many statements the attempt began.
    pub(super) statements: u32,
    /// The fault that the call's span and metric show.
    pub(super) fault: Fault,
    /// The database gave no answer, so a fallback may answer.
    pub(super) is_unavailable: bool,
}

impl Attempted {
    /// The whole transaction may succeed if it runs again.
    pub(super) fn conflict() -> Self {
        Self { retry: Retry::NewConnection(Condition::Scheduled), is_free: true, ..Self::default() }
    }

    pub(super) fn after(self, statements: u32) -> Self {
        Self { statements, ..self }
    }

    /// Reads from the trail of the connection how its work failed, whatever error the caller's closure returned.
    fn of_run(trail: &Trail) -> Self {
        let (was_stale, retry) = (trail.is_stale(), trail.retry());
        // Statements before the failed one may have been applied, and all of them would run again.
        let retry = match retry {
            retry if was_stale => retry,
            Retry::Never => Retry::Never,
            _ => Retry::NewConnection(Condition::IfIdempotent),
        };
        let (timed_out, statements) = (trail.has_timed_out(), trail.statements());
        let (fault, is_unavailable) = (trail.fault(), trail.is_unavailable());
        Self { retry, was_stale, timed_out, is_free: false, statements, fault, is_unavailable }
    }

    /// Returns why the call runs again, in one word.
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
        self.retry.condition() == Some(Condition::IfIdempotent)
    }

    /// Returns the error, and what it says about another attempt.
    pub(super) fn in_error<E: From<Error>>(error: Error) -> (E, Self) {
        let timed_out = matches!(error, Error::QueryTimeout { .. });
        let (retry, was_stale, fault) = (error.retry(), error.was_stale(), Fault::from(&error));
        let is_unavailable = error.is_unavailable();
        let seen = Self { retry, was_stale, timed_out, is_free: false, statements: 1, fault, is_unavailable };
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
    backoff: ForeignBackoff,
}

impl<'a> Attempts<'a> {
    fn of(call: Call<'a>) -> Self {
        let (call, begun) = (Call { is_part: true, ..call }, now());
        Self { call, made: 0, begun, latest: begun, backoff: call.shared.retries.backoff() }
    }

    /// Returns the deadline for another attempt, and how long that attempt is expected to take.
    ///
    /// A call with a deadline is expected to take as long as the latest attempt. A call without one has limits for its
    /// parts. Another attempt may begin while all together have taken less than the sum of the limits of one.
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

    /// Counts the next attempt.
    fn next(&mut self) -> Call<'a> {
        self.made += 1;
        self.call
    }

    /// The latest attempt succeeded.
    fn on_success(&self) {
        self.call.shared.retries.on_success(now);
    }

    /// Waits until the next attempt may begin. Returns whether there is one.
    async fn wait_for_next(&mut self, seen: Attempted) -> bool {
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
        let Some(pause) = retries.next_pause(now(), &failed, &mut self.backoff) else {
            if retries.lacks_means(&failed) {
                meter.gave_up();
            }
            return false;
        };
        meter.retried(seen.reason());
        if pause > Duration::ZERO {
            time::sleep(pause).await;
        } else {
            // The other connections may be dead, too. Their tasks get the chance to notice it.
            task::yield_now().await;
        }
        self.latest = now();
        true
    }
}

/// The fallback of a call without one.
pub(super) fn no_fallback<T, E>(_: &E) -> Option<T> {
    None
}

/// Records in the span which server the client is connected to. Takes the client by value, because the caller's future
/// would keep memory for a borrowed one.
pub(super) fn located(client: Client, span: &Span) -> Client {
    span.set_server(client.server());
    client
}

impl<'a> Call<'a> {
    /// Returns the span of the whole call. Takes `self` by value for the same reason.
    pub(super) fn span(self, does: &'static str) -> Span {
        self.shared.tracer.call(self.operation, does)
    }

    /// Runs `attempt` until it succeeds or may not run again. A failed attempt returns what it says about another one;
    /// the loop never reads that from `E`. After the last attempt, `instead` may answer.
    pub(super) async fn run_attempts<T, E, Fut>(
        self,
        span: Span,
        attempt: impl Fn(Call<'a>, Span) -> Fut,
        instead: impl FnOnce(&E) -> Option<T>,
    ) -> Result<T, E>
    where
        Fut: Future<Output = Result<T, (E, Attempted)>>,
    {
        let begun = self.shared.meter().start();
        // `doubt`: the latest failure after which the call may have been applied.
        let (mut attempts, mut doubt) = (Attempts::of(self), None);
        loop {
            let (error, seen) = match span.scope(attempt(attempts.next(), span.clone())).await {
                Ok(value) => {
                    attempts.on_success();
                    if !self.is_stream {
                        self.shared.meter().operated_since(begun, self.operation, None);
                    }
                    span.set_attempts(attempts.made);
                    return Ok(value);
                }
                Err(failed) => failed,
            };
            if !attempts.wait_for_next(seen).await {
                span.set_attempts(attempts.made);
                // A refusal says nothing about what was sent before.
                let last = if seen.is_doubtful() { None } else { doubt };
                let (error, seen) = last.unwrap_or((error, seen));
                return self.conclude(begun, &span, error, seen, instead);
            }
            if seen.is_doubtful() {
                doubt = Some((error, seen));
            }
        }
    }

    /// The call has failed. Returns the answer of `instead`, if the database gave none.
    pub(super) fn conclude<T, E>(
        self,
        begun: Stamp,
        span: &Span,
        error: E,
        seen: Attempted,
        instead: impl FnOnce(&E) -> Option<T>,
    ) -> Result<T, E> {
        let answer = if seen.is_unavailable { instead(&error) } else { None };
        let meter = self.shared.meter();
        match answer {
            Some(value) => {
                meter.fell_back(begun, self.operation, seen.fault);
                span.fell_back(seen.fault);
                Ok(value)
            }
            None => {
                meter.operated_since(begun, self.operation, Some(seen.fault));
                span.failed(seen.fault);
                Err(error)
            }
        }
    }

    /// Runs `work` on a connection of its own and returns the connection. After a failure it may run again, on another.
    pub(super) fn attempts<T, Fut>(
        self,
        span: Span,
        work: impl Fn(Client) -> Fut,
    ) -> impl Future<Output = Result<T, Error>>
    where
        Fut: Future<Output = Result<T, Error>>,
    {
        self.attempts_or(span, work, no_fallback)
    }

    /// [`attempts`](Self::attempts) with a fallback.
    pub(super) async fn attempts_or<T, Fut>(
        self,
        span: Span,
        work: impl Fn(Client) -> Fut,
        instead: impl FnOnce(&Error) -> Option<T>,
    ) -> Result<T, Error>
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
        self.run_attempts(span, attempt, instead).await
    }

    /// Runs `work` with a connection of its own, for several statements on one lease.
    ///
    /// **It may run several times**, on another connection each time: if the connection had been dead before anything
    /// was written on it; and, if the call is [`idempotent`](Self::idempotent), whenever the last statement that failed
    /// may run again. Statements that succeeded before stay applied. For all or nothing, use
    /// [`transaction`](Self::transaction).
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
    /// let stock: i64 = pool
    ///     .call()
    ///     .idempotent()
    ///     .run(async |client| {
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
    /// The errors of `work` and of [`get`](Self::get).
    pub fn run<T, E, F, Fut>(self, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.run_or(work, no_fallback)
    }

    /// [`run`](Self::run) with a fallback.
    pub(super) async fn run_or<T, E, F, Fut>(self, work: F, instead: impl FnOnce(&E) -> Option<T>) -> Result<T, E>
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
        self.run_attempts(self.span("run"), attempt, instead).await
    }
}

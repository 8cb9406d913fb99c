//! What `tracing` is told: each operation as a span, with OpenTelemetry's names for databases, and each event as a line. Feature `tracing`; without
//! it `untraced` stands here, and nothing is left of any of this.
//!
//! `call` is a call on the pool as a whole, `statement` one on a connection, `acquire` a wait for one. All are INFO, under the target `failfast::spans`.
//! None holds SQL, a parameter, a password, or what the server says: errors are words and SQLSTATEs. A span that nobody wants is a null pointer.

use std::borrow::Cow;
use std::future::Future;
use std::mem;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio_postgres::Config;
use tracing::field::Empty;
use tracing::instrument::{Instrument, Instrumented};
use tracing::{Level, error, info, span, warn};

use super::{Fault, Observer};
use crate::error::Error;
use crate::event::{Event, Severity};

/// Of events. A prefix of the other, so that a filter for this is one for both.
const EVENTS: &str = "failfast";
const SPANS: &str = "failfast::spans";
const SYSTEM: &str = "postgresql";

/// Begins the spans of one pool, and writes its events. Knows what all of them have in common.
#[derive(Debug, Clone)]
pub(crate) struct Tracer {
    pool: Arc<str>,
    /// Unknown if it is left to the user's name, which a provider of credentials may tell.
    database: Option<Arc<str>>,
}

impl Tracer {
    pub(crate) fn new(pool: &str, config: &Config) -> Self {
        let database = config.get_dbname().or(config.get_user());
        Self { pool: pool.into(), database: database.map(Into::into) }
    }

    /// Writes each event as a line.
    #[expect(clippy::unnecessary_wraps, reason = "without the feature there is none")]
    pub(crate) fn log(&self) -> Option<Arc<dyn Observer>> {
        Some(Arc::new(write))
    }

    /// A call on the pool as a whole: all its attempts, and the waits before them.
    pub(crate) fn call(&self, operation: Option<&'static str>, does: &'static str) -> Span {
        Span::of(span!(
            target: SPANS,
            Level::INFO,
            "call",
            otel.name = operation.map_or_else(|| self.title(does), Cow::Borrowed).as_ref(),
            otel.kind = "client",
            otel.status_code = Empty,
            db.system.name = SYSTEM,
            db.namespace = self.database.as_deref(),
            db.operation.name = does,
            db.response.status_code = Empty,
            error.type = Empty,
            server.address = Empty,
            server.port = Empty,
            failfast.pool = &*self.pool,
            failfast.operation = operation,
            failfast.attempts = Empty,
        ))
    }

    /// A statement, from its begin to its last answer.
    pub(crate) fn statement(&self, operation: Option<&'static str>, does: &'static str, server: &Server) -> Span {
        Span::of(span!(
            target: SPANS,
            Level::INFO,
            "statement",
            otel.name = self.title(does).as_ref(),
            otel.kind = "client",
            otel.status_code = Empty,
            db.system.name = SYSTEM,
            db.namespace = self.database.as_deref(),
            db.operation.name = does,
            db.response.status_code = Empty,
            error.type = Empty,
            server.address = server.address.as_str(),
            server.port = server.port,
            failfast.pool = &*self.pool,
            failfast.operation = operation,
        ))
    }

    /// Who gets an answer at once has not waited, and has no span.
    pub(crate) fn wait<F: Future + Unpin>(&self, wait: F) -> Wait<'_, F> {
        Wait { tracer: self, wait: Some(wait), span: Span::default() }
    }

    fn acquire(&self) -> Span {
        Span::of(span!(
            target: SPANS,
            Level::INFO,
            "acquire",
            otel.kind = "internal",
            otel.status_code = Empty,
            db.system.name = SYSTEM,
            db.namespace = self.database.as_deref(),
            db.response.status_code = Empty,
            error.type = Empty,
            failfast.pool = &*self.pool,
        ))
    }

    /// There are few of them, whatever the statements.
    fn title(&self, does: &'static str) -> Cow<'static, str> {
        self.database.as_ref().map_or(does.into(), |database| format!("{does} {database}").into())
    }
}

fn write(event: &Event) {
    let pool = &*event.pool;
    match event.severity() {
        Severity::Info => info!(target: EVENTS, pool, "{event}"),
        Severity::Warning => warn!(target: EVENTS, pool, "{event}"),
        Severity::Critical => error!(target: EVENTS, pool, "{event}"),
    }
}

/// Where a connection leads.
#[derive(Debug)]
pub(crate) struct Server {
    address: String,
    /// A socket in the file system has none.
    port: Option<u16>,
}

impl Server {
    pub(crate) fn at(place: &str) -> Self {
        match place.parse::<SocketAddr>() {
            Ok(address) => Self { address: address.ip().to_string(), port: Some(address.port()) },
            Err(_) => Self { address: place.to_owned(), port: None },
        }
    }
}

/// Ends when its last clone is dropped. Small: each caller who waits has one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Span(Option<Arc<tracing::Span>>);

impl Span {
    fn of(span: tracing::Span) -> Self {
        Self((!span.is_disabled()).then(|| Arc::new(span)))
    }

    /// What `work` begins, here or in the caller's code, is part of it.
    pub(crate) fn scope<F: Future>(&self, work: F) -> Instrumented<F> {
        work.instrument(self.0.as_deref().map_or_else(tracing::Span::none, Clone::clone))
    }

    /// It is done on this server; of several, the last counts.
    pub(crate) fn is_at(&self, server: &Server) {
        if let Some(span) = &self.0 {
            span.record("server.address", server.address.as_str()).record("server.port", server.port);
        }
    }

    /// It took so many attempts.
    pub(crate) fn took(&self, attempts: u32) {
        if let Some(span) = &self.0 {
            span.record("failfast.attempts", attempts);
        }
    }

    pub(crate) fn failed(&self, fault: Fault) {
        let Some(span) = &self.0 else { return };
        span.record("otel.status_code", "ERROR").record("db.response.status_code", fault.state());
        span.record("error.type", fault.word());
    }

    /// It failed with this error, which is passed on.
    pub(crate) fn with(&self, error: Error) -> Error {
        self.failed(Fault::from(&error));
        error
    }
}

/// A wait for a connection. Its span begins when there is nothing yet. At the end it gives back what has waited, for what that knows.
#[must_use = "futures do nothing unless awaited"]
pub(crate) struct Wait<'a, F> {
    tracer: &'a Tracer,
    wait: Option<F>,
    span: Span,
}

impl<F: Future + Unpin> Future for Wait<'_, F> {
    type Output = (F::Output, F, Span);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let wait = this.wait.as_mut().expect(super::POLLED);
        let Poll::Ready(output) = Pin::new(wait).poll(context) else {
            if this.span.0.is_none() {
                this.span = this.tracer.acquire();
            }
            return Poll::Pending;
        };
        Poll::Ready((output, this.wait.take().expect(super::POLLED), mem::take(&mut this.span)))
    }
}

#[cfg(test)]
mod tests;

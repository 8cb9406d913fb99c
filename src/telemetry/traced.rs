//! Passes each operation to the `tracing` crate as a span, with OpenTelemetry's names for databases, and each event as
//! a line. Feature `tracing`; without it, `untraced` replaces this module.
//!
//! The span `call` is a call on the pool as a whole, `statement` a statement on a connection, and `acquire` a wait for
//! a connection. All have the level INFO and the target `failfast::spans`. No span has SQL, a parameter, a password or
//! the server's message: errors are words and SQLSTATEs. A span that no subscriber wants is a null pointer.

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

/// The target of events. It is a prefix of `SPANS`, so a filter for it is a filter for both.
const EVENTS: &str = "failfast";
const SPANS: &str = "failfast::spans";
const SYSTEM: &str = "postgresql";

/// Begins the spans of one pool and writes its events, with the attributes that all of them have in common.
#[derive(Debug, Clone)]
pub(crate) struct Tracer {
    pool: Arc<str>,
    /// `None` if the connection string has neither a database nor a user.
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

    /// The span of a call on the pool as a whole: all its attempts, and the waits before them.
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
            failfast.fallback = Empty,
        ))
    }

    /// The span of a statement, from its first byte to its last answer.
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

    /// Adds a span to a wait for a connection. A wait that ends at the first poll has none.
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

    /// The name of a span. It has no SQL, so there are few names.
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

/// The address of a server, as attributes of a span.
#[derive(Debug)]
pub(crate) struct Server {
    address: String,
    /// `None` for a Unix socket.
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

/// A span, which ends when its last clone is dropped. It is small, because each waiter has one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Span(Option<Arc<tracing::Span>>);

impl Span {
    fn of(span: tracing::Span) -> Self {
        Self((!span.is_disabled()).then(|| Arc::new(span)))
    }

    /// Spans that begin in `work`, here or in the caller's code, become children of this span.
    pub(crate) fn scope<F: Future>(&self, work: F) -> Instrumented<F> {
        work.instrument(self.0.as_deref().map_or_else(tracing::Span::none, Clone::clone))
    }

    /// Records the server. If there are several attempts, the last server remains.
    pub(crate) fn set_server(&self, server: &Server) {
        if let Some(span) = &self.0 {
            span.record("server.address", server.address.as_str()).record("server.port", server.port);
        }
    }

    /// Records the number of attempts.
    pub(crate) fn set_attempts(&self, attempts: u32) {
        if let Some(span) = &self.0 {
            span.record("failfast.attempts", attempts);
        }
    }

    /// Records a failure.
    pub(crate) fn failed(&self, fault: Fault) {
        let Some(span) = &self.0 else { return };
        span.record("otel.status_code", "ERROR").record("db.response.status_code", fault.state());
        span.record("error.type", fault.error_type());
    }

    /// Records that a fallback has answered, because of `fault`.
    pub(crate) fn fell_back(&self, fault: Fault) {
        if let Some(span) = &self.0 {
            span.record("failfast.fallback", fault.error_type());
        }
    }

    /// Records a failure, and returns the error.
    pub(crate) fn with(&self, error: Error) -> Error {
        self.failed(Fault::from(&error));
        error
    }
}

/// A wait for a connection. Its span begins when the first poll finds no connection. At the end it also returns the
/// inner future, which knows more about the wait.
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

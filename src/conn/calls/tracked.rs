//! How a tracked call runs: it begins once the connection admits it, works until its limit, and ends with its answer.
//!
//! Every call passes through here: the methods in `queries.rs`, and BEGIN, savepoints and COMMIT. `in_flight.rs` is the
//! call between its begin and its end.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::time;

use super::in_flight::InFlightCall;
use crate::clock::now;
use crate::conn::{Client, settle};
use crate::error::{BusyReason, Error};
use crate::policy::Deadline;
use crate::telemetry::{Fault, Server, Span, Stamp};

impl Client {
    /// Runs a call from its begin to its answer.
    ///
    /// `work` is pinned where it was made, because a future of the driver is large: passed by value, each of the
    /// functions on its way would copy it.
    pub(crate) async fn tracked<T>(
        &self,
        span: Span,
        work: Pin<&mut impl Future<Output = Result<T, tokio_postgres::Error>>>,
    ) -> Result<T, Error> {
        let (value, call) = self.begun(span, work).await?;
        call.answered();
        Ok(value)
    }

    /// Runs a call from its begin to its first answer. The call goes on, because more answers may come.
    pub(super) async fn begun<T>(
        &self,
        span: Span,
        work: Pin<&mut impl Future<Output = Result<T, tokio_postgres::Error>>>,
    ) -> Result<(T, InFlightCall), Error> {
        #[cfg(feature = "testing")]
        let (span, delay) = self.pretended(span).await?;
        #[cfg(feature = "testing")]
        let work = pin!(async move {
            if let Some(delay) = delay {
                delay.await;
            }
            work.await
        });
        let limit = self.options().limit(now());
        let call = self.begin(limit, span).await?;
        call.bounded(limit, work).await
    }

    /// Begins a call. Returns an error if `limit` passes before; then nothing of the call was sent.
    pub(crate) async fn begin(&self, limit: Deadline, span: Span) -> Result<InFlightCall, Error> {
        let link = &self.conn().link;
        self.conn().statements.look_for_changes(link);
        self.conn().statements.renew(self.driver());
        if let Some(call) = InFlightCall::begin_at_once(link, self.options()) {
            let call = call.with_span(span);
            return if limit.has_passed(call.begun) { Err(call.not_begun()) } else { Ok(call) };
        }
        let clean = async {
            let call = InFlightCall::begin(link, self.options()).await;
            // If this fails, the connection has ended, and the driver reports that to the call.
            settle::clear_up(link, self.driver()).await;
            call.restarted()
        };
        let begun = now();
        match time::timeout_at(limit.instant().into(), clean).await {
            Ok(call) => Ok(call.with_span(span)),
            Err(_) => Err(self.busy(now().saturating_duration_since(begun), span)),
        }
    }

    /// The error of a call that has `waited` for an earlier one to be stopped.
    pub(in crate::conn) fn busy(&self, waited: Duration, span: Span) -> Error {
        let link = &self.conn().link;
        let error = Error::Busy { reason: BusyReason::Stopping, waited, process_id: link.process_id() };
        if !self.options().is_part {
            link.meter.operated(self.options().operation, waited, Some(Fault::from(&error)));
        }
        span.with(error)
    }

    /// Runs a statement of the pool's own, which spans show as `name`. It comes to no pretended outcome.
    pub(crate) async fn batch(&self, name: &'static str, sql: &str) -> Result<(), Error> {
        let limit = self.options().limit(now());
        let call = self.begin(limit, self.span(name)).await?;
        let ((), call) = call.bounded(limit, pin!(self.driver().batch_execute(sql))).await?;
        call.answered();
        Ok(())
    }

    /// Does `work`, which begins a stream or a COPY, without the session's `statement_timeout`.
    pub(super) async fn without_statement_timeout<T>(
        &self,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, tokio_postgres::Error> {
        self.conn().link.statement_timeout.lift_for(self.driver(), work).await
    }

    /// The span of a statement that begins now.
    pub(crate) fn span(&self, name: &'static str) -> Span {
        let conn = self.conn();
        conn.handling.tracer.statement(self.options().operation, name, &conn.server)
    }

    /// The server that the connection leads to.
    pub(crate) fn server(&self) -> &Server {
        &self.conn().server
    }

    /// Records the operation that the lease was taken for. It began at `begun` and ends now.
    pub(super) fn measure_whole(&self, begun: Stamp, fault: Option<Fault>) {
        self.conn().link.meter.operated_since(begun, self.options().operation, fault);
    }
}

//! The layer that gives each request a deadline.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum_core::response::{IntoResponse, Response};
use futures_util::TryFutureExt;
use futures_util::future::{Either, MapOk, Ready, ready};
use http::{Request, StatusCode};
use tower_layer::Layer;
use tower_service::Service;

use super::header::{InvalidTimeout, timeout};
use super::response::problem;
use crate::call::Until;
use crate::clock::now;
use crate::policy::Deadline;

/// A layer that gives each request a deadline, for [`Conn`](super::Conn) and [`Tx`](super::Tx).
///
/// The client names the time that it is willing to wait in a header:
///
/// - `grpc-timeout`, as gRPC writes it: 1 to 8 digits and one of the units `H`, `M`, `S`, `m`, `u`, `n`, as in `250m`;
/// - `x-request-timeout`: seconds as a decimal number, or a number with the unit `s` or `ms`: `0.25`, `2s`, `250ms`.
///
/// If there are several, the shortest counts. None is longer than the layer's maximum, which is also the deadline of a
/// request without a header. The pool's `acquire_timeout` and `query_timeout` do not apply to calls
/// with a deadline, so a long maximum also gives each wait and each statement more time.
///
/// A header with another value is the client's mistake, and so is a timeout of 0: the response is a 400 that says which
/// header is wrong. If it were ignored, the client would wait for less time than the service works.
///
/// The layer does not end a late handler. The deadline ends only the calls of `Conn` and `Tx`. For whatever else a
/// handler waits for, such as another service or the body of the request, take the [`RequestDeadline`]:
///
/// ```no_run
/// use axum::Extension;
/// use axum::http::StatusCode;
/// use failfast::axum::RequestDeadline;
///
/// # async fn ask_another_service() -> String { String::new() }
/// async fn handler(Extension(deadline): Extension<RequestDeadline>) -> Result<String, StatusCode> {
///     let asked = tokio::time::timeout_at(deadline.instant().into(), ask_another_service());
///     asked.await.map_err(|_| StatusCode::GATEWAY_TIMEOUT)
/// }
/// ```
///
/// If a request passes several of these layers, the earliest deadline counts.
///
/// The time begins when the request reaches this layer. Other handlers find it in the extensions of the request, as
/// [`RequestDeadline`].
#[derive(Debug, Clone, Copy)]
pub struct DeadlineLayer {
    max: Duration,
}

impl DeadlineLayer {
    /// Gives each request `max`, or less if the client asks for less.
    pub fn new(max: Duration) -> Self {
        Self { max }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> DeadlineService<S> {
        DeadlineService { inner, max: self.max }
    }
}

/// When a request has to be answered. [`DeadlineLayer`] puts it into the extensions of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestDeadline(Deadline);

impl RequestDeadline {
    /// The end of the request.
    pub fn instant(self) -> Instant {
        self.0.instant()
    }
}

impl From<RequestDeadline> for Until {
    fn from(deadline: RequestDeadline) -> Self {
        deadline.instant().into()
    }
}

impl IntoResponse for InvalidTimeout {
    fn into_response(self) -> Response {
        problem(StatusCode::BAD_REQUEST, Some(&self.to_string()))
    }
}

/// The service of a [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub struct DeadlineService<S> {
    inner: S,
    max: Duration,
}

impl<S, B> Service<Request<B>> for DeadlineService<S>
where
    S: Service<Request<B>>,
    S::Response: IntoResponse,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Either<MapOk<S::Future, fn(S::Response) -> Response>, Ready<Result<Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match timeout(request.headers()) {
            Ok(asked) => {
                let within = asked.unwrap_or(self.max).min(self.max);
                let deadline = RequestDeadline(Deadline::after(now(), within));
                let outer = request.extensions().get::<RequestDeadline>().copied();
                let is_earlier = outer.is_none_or(|outer| deadline.instant() < outer.instant());
                if is_earlier {
                    request.extensions_mut().insert(deadline);
                }
                Either::Left(
                    self.inner.call(request).map_ok(IntoResponse::into_response as fn(S::Response) -> Response),
                )
            }
            Err(invalid) => Either::Right(ready(Ok(invalid.into_response()))),
        }
    }
}

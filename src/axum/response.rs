//! [`Error`] as the response of an axum handler. Feature `axum`.

use std::sync::Arc;

use axum_core::body::Body;
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};

use crate::error::Error;
use crate::policy::Effect;

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

// The details speak of the request, never of the database.
const BUSY: &str = "The service cannot do this at the moment. Please try again later.";
const LATE: &str = "This took longer than it may.";
const UNKNOWN: &str = "Whether this was done is not known.";

/// Returns a problem by RFC 9457. One of the type about:blank has the title of its status. `detail` has no quotes.
pub(super) fn problem(status: StatusCode, detail: Option<&str>) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    let detail = detail.map(|detail| format!(r#","detail":"{detail}""#)).unwrap_or_default();
    let status_code = status.as_u16();
    let body = format!(r#"{{"type":"about:blank","title":"{title}","status":{status_code}{detail}}}"#);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, PROBLEM);
    response
}

/// The status is that of [`http_status`](Error::http_status), and `Retry-After` that of
/// [`http_retry_after`](Error::http_retry_after). The body is a fixed text for each status, as
/// `application/problem+json`. It shows nothing of the database: no message, no SQL, no parameter, no address.
///
/// The error itself is in the response's extensions, as `Arc<failfast::Error>`, for a layer that logs it.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let detail = match status {
            StatusCode::SERVICE_UNAVAILABLE => Some(BUSY),
            StatusCode::GATEWAY_TIMEOUT => Some(LATE),
            _ if self.effect() == Effect::Unknown => Some(UNKNOWN),
            _ => None,
        };
        let mut response = problem(status, detail);
        if let Some(seconds) = self.http_retry_after() {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

//! [`Error`] as the response of an axum handler. Feature `axum`.

use std::sync::Arc;

use axum_core::body::Body;
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};

use crate::error::Error;
use crate::policy::Effect;

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

// By RFC 9457, a problem of the type about:blank has the title of its status. The details speak of the request, never
// of the database.
const BUSY: &str = r#"{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"The service cannot do this at the moment. Please try again later."}"#;
const LATE: &str =
    r#"{"type":"about:blank","title":"Gateway Timeout","status":504,"detail":"This took longer than it may."}"#;
const UNKNOWN: &str = r#"{"type":"about:blank","title":"Internal Server Error","status":500,"detail":"Whether this was done is not known."}"#;
const FAILED: &str = r#"{"type":"about:blank","title":"Internal Server Error","status":500}"#;

/// The status is that of [`http_status`](Error::http_status), and `Retry-After` that of
/// [`http_retry_after`](Error::http_retry_after). The body is a fixed text for each status, as
/// `application/problem+json`. It shows nothing of the database: no message, no SQL, no parameter, no address.
///
/// The error itself is in the response's extensions, as `Arc<failfast::Error>`, for a layer that logs it.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = match status {
            StatusCode::SERVICE_UNAVAILABLE => BUSY,
            StatusCode::GATEWAY_TIMEOUT => LATE,
            _ if self.effect() == Effect::Unknown => UNKNOWN,
            _ => FAILED,
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, PROBLEM);
        if let Some(seconds) = self.http_retry_after() {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_the_status_and_the_title_of_the_status() {
        for (body, status) in [(BUSY, 503), (LATE, 504), (UNKNOWN, 500), (FAILED, 500)] {
            let title = StatusCode::from_u16(status).unwrap().canonical_reason().unwrap();
            let begin = format!(r#"{{"type":"about:blank","title":"{title}","status":{status}"#);
            let rest = body.strip_prefix(&begin).unwrap();
            let detail = rest.strip_prefix(r#","detail":""#).and_then(|rest| rest.strip_suffix(r#""}"#));
            assert!(rest == "}" || detail.is_some_and(|text| !text.contains(['"', '\\'])), "{body}");
        }
    }
}

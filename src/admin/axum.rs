//! The report as the response of an axum handler. Features `admin` and `axum`.

use std::future::{Ready, ready};

use axum_core::body::Body;
use axum_core::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};

use super::PoolReport;
use crate::pool::Pool;

/// The report as `application/json`, which no cache keeps.
impl IntoResponse for PoolReport {
    fn into_response(self) -> Response {
        json_response(self.to_json())
    }
}

/// A report as `application/json`, which no cache keeps.
pub(crate) fn json_response(json: String) -> Response {
    let mut response = Response::new(Body::from(json));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What [`handler`] reports on: a [`Pool`] or a `Cluster`.
pub trait Reporting: Clone + Send + Sync + 'static {
    /// The report, which is the response.
    type Report: IntoResponse;

    /// Returns what an operator sees at this instant.
    fn report(&self) -> Self::Report;
}

impl Reporting for Pool {
    type Report = PoolReport;

    fn report(&self) -> PoolReport {
        Pool::report(self)
    }
}

/// Returns a handler for axum that answers with the report of a [pool](crate::Pool::report) or a cluster as
/// [JSON](crate::admin#the-json). Put its route [behind authentication](crate::admin#an-endpoint).
///
/// ```no_run
/// # fn example(pool: failfast::Pool) -> axum::Router {
/// axum::Router::new().route("/admin/pool", axum::routing::get(failfast::admin::handler(pool)))
/// # }
/// ```
pub fn handler<R: Reporting>(of: R) -> impl Fn() -> Ready<R::Report> + Clone + Send + Sync + 'static {
    move || ready(of.report())
}

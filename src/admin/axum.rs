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
        let mut response = Response::new(Body::from(self.to_json()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Returns a handler for axum that answers with the pool's [report](crate::Pool::report) as
/// [JSON](crate::admin#the-json). Put its route [behind authentication](crate::admin#an-endpoint).
///
/// ```no_run
/// # fn example(pool: failfast::Pool) -> axum::Router {
/// axum::Router::new().route("/admin/pool", axum::routing::get(failfast::admin::handler(pool)))
/// # }
/// ```
pub fn handler(pool: Pool) -> impl Fn() -> Ready<PoolReport> + Clone + Send + Sync + 'static {
    move || ready(pool.report())
}

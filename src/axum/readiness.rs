//! The handler for readiness probes.

use axum_core::response::{IntoResponse, Response};
use http::StatusCode;

use super::conn::Conn;
use crate::maintenance::NotReady;

/// A handler for readiness probes: 200 if [`Pool::ready`](crate::Pool::ready), otherwise 503 with the reason as text.
/// It sends no query.
///
/// The reason names the database's address. Let only the orchestrator ask.
///
/// # Errors
///
/// [`NotReady`], which is the 503.
pub async fn ready(conn: Conn) -> Result<&'static str, NotReady> {
    conn.pool().ready().map(|()| "ready\n")
}

impl IntoResponse for NotReady {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{self}\n")).into_response()
    }
}

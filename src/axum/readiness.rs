//! The handler for readiness probes.

use axum_core::response::{IntoResponse, Response};
use http::StatusCode;

use super::conn::Conn;
#[cfg(feature = "cluster")]
use crate::cluster::Cluster;
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

/// [`ready`] for a cluster: 200 if [`Cluster::ready`], otherwise 503 with the reason as text. It sends no query.
///
/// # Errors
///
/// [`NotReady`], which is the 503.
#[cfg(feature = "cluster")]
pub async fn cluster_ready(conn: Conn<Cluster>) -> Result<&'static str, NotReady> {
    conn.cluster().ready().map(|()| "ready\n")
}

impl IntoResponse for NotReady {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{self}\n")).into_response()
    }
}

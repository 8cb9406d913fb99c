//! The pool in a service with axum. Feature `axum`.
//!
//! - [`Error`](crate::Error) is the response of a handler: 503 with `Retry-After`, 504 or 500, by
//!   [`http_status`](crate::Error::http_status).
//! - [`DeadlineLayer`] gives each request a deadline, from a header or by default.
//! - [`Conn`] makes calls that end by this deadline. Nothing else in a handler ends by it.
//! - [`TxLayer`] and [`Tx`] give a request one transaction, which is committed if the response is a success.
//! - [`ready`] answers the orchestrator.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use axum::Router;
//! use axum::http::StatusCode;
//! use axum::routing::{get, post};
//! use failfast::axum::{Conn, DeadlineLayer, Tx, TxLayer};
//! use failfast::{Error, Pool};
//!
//! async fn stock(conn: Conn) -> Result<String, Error> {
//!     let row = conn.call().name("stock").idempotent().query_one("SELECT sum(stock) FROM items", &[]).await?;
//!     Ok(row.get::<_, i64>(0).to_string())
//! }
//!
//! async fn order(tx: Tx) -> Result<StatusCode, Error> {
//!     let tx = tx.begin().await?;
//!     tx.execute("UPDATE items SET stock = stock - 1 WHERE id = 1", &[]).await?;
//!     tx.execute("INSERT INTO orders (item) VALUES (1)", &[]).await?;
//!     Ok(StatusCode::CREATED) // committed before the client gets it
//! }
//!
//! fn routes(pool: Pool) -> Router {
//!     Router::new()
//!         .route("/stock", get(stock))
//!         .route("/orders", post(order))
//!         .layer(TxLayer::new())
//!         .layer(DeadlineLayer::new(Duration::from_secs(2)))
//!         .route("/readyz", get(failfast::axum::ready))
//!         .with_state(pool)
//! }
//! ```
//!
//! The pool is the state of the router, or a part of it (`FromRef`). With a `Cluster` in its place, handlers take
//! `Conn<Cluster>` and `Tx<Cluster>`, and the handler of the orchestrator is `cluster_ready`.
//!
//! The crate depends on axum-core, http and tower's traits only, not on axum itself.

mod conn;
mod deadline;
mod header;
mod readiness;
mod response;
mod tx;

pub use self::conn::Conn;
pub use self::deadline::{DeadlineLayer, DeadlineService, RequestDeadline};
#[cfg(feature = "cluster")]
pub use self::readiness::cluster_ready;
pub use self::readiness::ready;
pub use self::tx::{Tx, TxLayer, TxService};

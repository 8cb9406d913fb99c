//! A PostgreSQL pool that fails fast instead of queueing into exhaustion.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = failfast::Pool::builder("postgres://app@localhost/orders".parse()?).name("orders").max_size(20).build()?;
//! let client = pool.get().await?;
//! let row = client.query_one("SELECT 1", &[]).await?;
//! # Ok(())
//! # }
//! ```
//!
//! In reading order: [`Pool`] (what a service holds), [`PoolBuilder`] (its settings and defaults), [`Client`] (a connection on loan),
//! [`Error`] (why there was none), [`Status`] (how the pool is). For everything else that a service calls: [`breaker`].
//!
//! # Features
//!
//! `metrics` is on by default: OpenTelemetry's metrics for databases and the pool's own, through the crate of that name: see the module `metrics`. `prometheus` adds an
//! exporter that knows their buckets.
//!
//! `rustls` and `native-tls` each bring a ready TLS connector, in the module `tls`; [`PoolBuilder::build_tls`] takes any other without them.
//!
//! `axum` makes [`Error`] the answer of an axum handler, by [`Error::http_status`]: 503 with `Retry-After` where the same may succeed later, 504 for a statement that was
//! too slow, 500 for the rest. Nothing of the database is in its body.
//!
//! `serde` has the builder's settings as plain data, `Settings`: for files in any format that serde reads, and for the environment.
//!
//! `tracing` tells the `tracing` crate what the pool does:
//!
//! - each [`Event`] is a line under the target `failfast`, at INFO, WARN or ERROR, with the field `pool`;
//! - each operation is a span under the target `failfast::spans`, at INFO, with OpenTelemetry's attributes for databases: `call` is a call on the pool as a
//!   whole, with all its attempts; `statement` is one statement, or the BEGIN or COMMIT of a transaction; `acquire` is a wait for a connection, if
//!   there is one. [`Call::name`] names the `call`.
//!
//! No span and no line holds SQL, a parameter or a password. The filter `failfast=warn` keeps the lines that matter,
//! beginnings and ends, and drops the spans.
//!
//! Two are for services that use these crates already:
//!
//! - `failsafe`: `PoolBuilder::breaker_with` runs a pool on any `failsafe::StateMachine`; `breaker::RollingWindow` is our window as a policy for one.
//! - `backoff`: `RetryConfig::backoff_with` takes any `backoff::backoff::Backoff` as the schedule. That crate is unmaintained
//!   (RUSTSEC-2025-0012): the pool's own schedule is the better choice where nothing speaks for it.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "axum")]
mod axum;
pub mod breaker;
mod builder;
mod call;
mod clock;
mod conn;
mod connection_string;
mod error;
mod event;
mod human;
mod maintenance;
#[cfg(feature = "metrics")]
pub mod metrics;
mod operation;
mod policy;
mod pool;
mod retry;
#[cfg(feature = "serde")]
pub mod settings;
mod slots;
mod status;
mod telemetry;
#[cfg(any(feature = "native-tls", feature = "rustls"))]
pub mod tls;

pub use breaker::{BreakerConfig, CircuitBreaker};
pub use builder::PoolBuilder;
pub use call::{Call, Fallback, Until};
pub use conn::{
    AsStatement, Client, CopyIn, CopyOut, Credentials, Reset, RowStream, ServerTimeouts, Socket, Transaction,
    TransactionOptions,
};
pub use connection_string::ConnectionString;
pub use error::{AbortReason, BusyReason, ConfigError, ConnectError, ConnectErrorKind, Error, ErrorKind, Lost};
pub use event::{Event, EventKind, Severity};
pub use maintenance::NotReady;
pub use operation::Operation;
pub use policy::{Effect, Refused, ShedReason, Shedding};
pub use pool::{Pool, PoolOrder};
pub use retry::RetryConfig;
#[cfg(feature = "serde")]
pub use settings::Settings;
pub use status::Status;
pub use telemetry::{Events, Observer};
pub use tokio_postgres::{Config, IsolationLevel};

#[cfg(fuzzing)]
#[doc(hidden)]
pub use conn::fuzz_wire;

pub use deadpool_postgres;
pub use tokio_postgres;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/migrating.md")]
struct Migrating;

#[cfg(all(doctest, feature = "rustls", feature = "serde"))]
#[doc = include_str!("../docs/guide.md")]
struct Guide;

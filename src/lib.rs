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
//! In reading order: [`Pool`] (what a service holds), [`PoolBuilder`] (its settings and defaults), [`Client`] (a
//! connection on loan), [`Error`] (why a call failed), [`Status`] (a snapshot of the pool). [`breaker`] is a circuit
//! breaker for everything else that a service calls.
//!
//! # Features
//!
//! - `metrics`, on by default: OpenTelemetry's metrics for databases and the pool's own, through the `metrics` crate.
//!   See the module `metrics`.
//! - `prometheus`: an exporter that knows the buckets of these metrics.
//! - `rustls` and `native-tls`: a ready TLS connector each, in the module `tls`. [`PoolBuilder::build_tls`] takes any
//!   other connector without them.
//! - `admin`: what an operator sees of a pool, as JSON: `Pool::report`. With `axum`, also a handler. See the module
//!   `admin`.
//! - `axum`: [`Error`] is the response of an axum handler, with [`Error::http_status`]: 503 with `Retry-After` if the
//!   same request may succeed later, 504 for a statement that was too slow, 500 for the rest. Its body shows nothing of
//!   the database. The module `axum` has deadlines from a header, extractors for calls and for one transaction in each
//!   request, and a handler for readiness probes.
//! - `cluster`: several servers, the primary for writes and replicas for reads that say how fresh they must be:
//!   `Cluster`.
//! - `fleet`: processes that share a server agree on their shares of its connections: `PoolBuilder::fleet`. The limit
//!   of a pool follows the database: `PoolBuilder::adaptive`.
//! - `preflight`: checks before a deployment or a migration, `Pool::preflight`. See the module `preflight`.
//! - `serde`: the builder's settings as plain data, `Settings`, from files in any format that serde reads, and from the
//!   environment.
//! - `tracing`: spans and log lines, see below.
//! - `testing`, for the tests of a service: `Pool::pretend` brings calls to a chosen outcome, and `TestDatabase` gives
//!   each test a database of its own. See the module `testing`. Enable it in `dev-dependencies` only.
//! - `failsafe`, for services that use this crate already: `PoolBuilder::breaker_with` runs a pool on any
//!   `failsafe::StateMachine`. `breaker::RollingWindow` is our window as a policy for such a machine.
//! - `backoff`, for services that use this crate already: `RetryConfig::backoff_with` takes any
//!   `backoff::backoff::Backoff` as the schedule. The crate is unmaintained (RUSTSEC-2025-0012). If you have no
//!   schedule of it yet, use the pool's own.
//!
//! # Spans and log lines
//!
//! With the feature `tracing`, the pool passes to the `tracing` crate:
//!
//! - each [`Event`] as a line under the target `failfast`, at INFO, WARN or ERROR, with the field `pool`;
//! - each operation as a span under the target `failfast::spans`, at INFO, with OpenTelemetry's attributes for
//!   databases. `call` is a call on the pool as a whole, with all its attempts. `statement` is one statement, or the
//!   BEGIN or COMMIT of a transaction. `acquire` is a wait for a connection. [`Call::name`] names the span `call`.
//!
//! No span and no line has SQL, a parameter or a password. The filter `failfast=warn` keeps warnings and critical
//! events, with the events that end them, and drops the spans.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "fleet")]
mod adaptive;
#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "axum")]
pub mod axum;
pub mod breaker;
mod builder;
mod call;
mod clock;
#[cfg(feature = "cluster")]
mod cluster;
mod conn;
mod connection_string;
mod error;
mod event;
#[cfg(feature = "fleet")]
mod fleet;
mod holder;
mod human;
mod lane_names;
mod listen;
mod maintenance;
#[cfg(feature = "metrics")]
pub mod metrics;
mod operation;
mod policy;
mod pool;
#[cfg(feature = "preflight")]
pub mod preflight;
#[cfg(feature = "testing")]
mod pretend;
mod rates;
mod retry;
#[cfg(feature = "serde")]
pub mod settings;
mod slots;
mod status;
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(any(feature = "native-tls", feature = "rustls"))]
pub mod tls;

pub use breaker::{BreakerConfig, CircuitBreaker};
pub use builder::PoolBuilder;
pub use call::ddl::Ddl;
pub use call::{Call, Fallback, Until};
#[cfg(feature = "cluster")]
pub use cluster::{
    After, Cluster, ClusterBuilder, ClusterCall, ClusterDdl, ClusterFallback, ClusterOrder, Freshness, HostStatus, Role,
};
#[cfg(all(feature = "admin", feature = "cluster"))]
pub use cluster::{ClusterReport, HostReport};
pub use conn::{
    AsStatement, BinaryCopyIn, BinaryCopyOut, Client, CopyIn, CopyOut, Credentials, Gap, Notification, Received, Reset,
    RowStream, ServerTimeouts, Socket, Transaction, TransactionOptions,
};
pub use connection_string::ConnectionString;
pub use error::{
    AbortReason, BusyReason, ConfigError, ConnectError, ConnectErrorKind, Error, ErrorKind, GiveWayReason, Lost,
};
pub use event::{Event, EventKind, Severity};
#[cfg(feature = "fleet")]
pub use fleet::FleetConfig;
pub use holder::{Holder, HolderState, LongestHeld};
pub use listen::Notifications;
pub use maintenance::NotReady;
pub use operation::Operation;
#[cfg(feature = "fleet")]
pub use policy::FleetState;
pub use policy::{
    Adaptive, Advice, AdviceReason, Effect, Lane, LaneLimits, RefusalCounts, ShedReason, Shedding, UnknownLane,
};
#[cfg(feature = "cluster")]
pub use policy::{InvalidPosition, Position};
pub use pool::{Pool, PoolOrder};
pub use rates::Rate;
pub use retry::RetryConfig;
#[cfg(feature = "serde")]
pub use settings::Settings;
#[cfg(feature = "fleet")]
pub use status::{AdaptiveStatus, CappedOperation, FleetStatus};
pub use status::{LaneStatus, Status};
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

#[cfg(all(doctest, feature = "fleet"))]
#[doc = include_str!("../docs/fleet.md")]
struct SeveralProcesses;

#[cfg(all(doctest, feature = "axum", feature = "cluster", feature = "rustls"))]
#[doc = include_str!("../docs/cluster.md")]
struct SeveralServers;

#[cfg(all(
    doctest,
    feature = "axum",
    feature = "preflight",
    feature = "prometheus",
    feature = "rustls",
    feature = "serde",
    feature = "testing"
))]
#[doc = include_str!("../docs/guide.md")]
struct Guide;

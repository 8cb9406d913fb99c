//! A PostgreSQL pool that fails fast instead of queueing into exhaustion.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod call;
mod conn;
mod error;
mod policy;
mod pool;
mod slots;
mod status;

pub use builder::PoolBuilder;
pub use conn::Client;
pub use error::{ConfigError, ConnectError, ConnectErrorKind, Error, ShedReason};
pub use pool::Pool;
pub use status::Status;
pub use tokio_postgres::Config;

pub use deadpool_postgres;
pub use tokio_postgres;

//! A PostgreSQL pool that fails fast instead of queueing into exhaustion.
#![allow(dead_code)]

mod policy;
mod slots;

pub use deadpool_postgres;
pub use tokio_postgres;

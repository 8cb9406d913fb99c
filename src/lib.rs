//! A PostgreSQL pool that fails fast instead of queueing into exhaustion.

pub use deadpool_postgres;
pub use tokio_postgres;

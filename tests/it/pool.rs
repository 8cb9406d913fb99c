//! The pool on a real server: what callers get, when, and what is left afterwards.

mod faults;
mod recovery;
mod serving;

use std::time::Duration;

use failfast::{Pool, PoolBuilder};

use crate::support::server::Server;

/// A builder for the shared server, under a name that only one test uses.
pub(crate) async fn shared(name: &str) -> PoolBuilder {
    Pool::builder(Server::shared().await.config()).name(name)
}

/// More than anything here takes, on however busy a machine.
pub(crate) const LONG: Duration = Duration::from_secs(20);

//! Tests of the pool on a real server: which callers it serves, when, and what remains on the server afterwards.

mod ending;
mod faults;
mod recovery;
mod serving;

use std::time::Duration;

use failfast::{Pool, PoolBuilder};

use crate::support::server::Server;

/// A builder for the shared server. Only one test uses each name.
pub(crate) async fn shared(name: &str) -> PoolBuilder {
    Pool::builder(Server::shared().await.config()).name(name)
}

/// Longer than anything in these tests takes, even on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(20);

//! The circuit breaker of a pool: when it opens and when not, how long it keeps callers from a server in trouble, and how soon it lets them back.

mod opening;
mod recovery;
mod slow_dials;

use std::time::Duration;

use failfast::breaker::State;
use failfast::{Error, Pool};

use crate::pool::LONG;
use crate::support::eventually;

/// The call that a healthy server answers at once.
async fn ask(pool: &Pool) -> Result<(), Error> {
    pool.query_one("SELECT 1", &[]).await.map(drop)
}

async fn comes_to(pool: &Pool, state: State) {
    eventually(&format!("the circuit is {state}"), LONG, async || pool.breaker().state() == state).await;
}

const MILLISECOND: Duration = Duration::from_millis(1);

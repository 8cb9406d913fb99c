//! The circuit breaker of a pool: when it opens, which callers it refuses while the server is in trouble, and how soon
//! it closes again.

mod opening;
mod recovery;
mod slow_dials;

use std::time::Duration;

use failfast::breaker::State;
use failfast::{Error, Pool};

use crate::pool::LONG;
use crate::support::eventually;

/// Makes a call that a healthy server answers at once.
async fn ask(pool: &Pool) -> Result<(), Error> {
    pool.query_one("SELECT 1", &[]).await.map(drop)
}

async fn comes_to(pool: &Pool, state: State) {
    eventually(&format!("the circuit is {state}"), LONG, async || pool.breaker().state() == state).await;
}

const MILLISECOND: Duration = Duration::from_millis(1);

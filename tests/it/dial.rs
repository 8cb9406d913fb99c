//! How a connection is made: hosts, roles, TLS, what the owner has called, and what the errors say and do not say.

mod files;
mod hooks;
mod hosts;
mod secrets;
#[cfg(all(feature = "native-tls", feature = "rustls"))]
mod tls;
mod unix;

use std::time::Duration;

use failfast::{ConnectError, Error, Pool};

/// More than anything here takes, on however busy a machine.
const LONG: Duration = Duration::from_secs(20);

/// Why this pool cannot connect.
async fn refusal(pool: &Pool) -> ConnectError {
    match pool.get_timeout(LONG).await {
        Err(Error::Connect { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

/// The first column of the answer, on a connection of this pool.
async fn scalar(pool: &Pool, sql: &str) -> String {
    let client = pool.get_timeout(LONG).await.unwrap();
    client.query_one(sql, &[]).await.unwrap().get(0)
}

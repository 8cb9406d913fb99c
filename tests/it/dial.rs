//! Dials: hosts, roles, TLS, the owner's code, and what the errors show and do not show.

mod causes;
mod files;
mod hooks;
mod hosts;
#[cfg(all(feature = "native-tls", feature = "rustls"))]
mod libpq;
pub(crate) mod matrix;
mod pauses;
mod secrets;
mod set_up;
#[cfg(all(feature = "native-tls", feature = "rustls"))]
pub(crate) mod tls;
mod unix;

use std::time::Duration;

use failfast::{ConnectError, Error, Pool};

use crate::support::eventually;

/// Longer than anything in these tests takes, even on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// Returns the error with which this pool cannot connect.
async fn refusal(pool: &Pool) -> ConnectError {
    match pool.get_timeout(LONG).await {
        Err(Error::Connect { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

/// Asserts that the pool stops a statement that timed out, and keeps its connection.
async fn stops_what_timed_out(pool: &Pool) {
    let watcher = pool.get_timeout(LONG).await.unwrap();
    let statement = pool.get_timeout(LONG).await.unwrap();
    let pid = statement.process_id().unwrap();
    drop(statement);
    let late = pool.call().timeout(Duration::from_millis(100)).query("SELECT pg_sleep(60)", &[]).await;
    let Err(Error::QueryTimeout { process_id, .. }) = late else { panic!("{late:?}") };
    assert_eq!(process_id, Some(pid));
    eventually("the statement is stopped", Duration::from_secs(10), async || {
        let state = watcher.query_one("SELECT state FROM pg_stat_activity WHERE pid = $1", &[&pid]).await;
        state.unwrap().get::<_, &str>(0) == "idle"
    })
    .await;
    let again = pool.get_timeout(LONG).await.unwrap();
    assert_eq!(again.process_id(), Some(pid));
}

/// Returns the first column of the answer.
async fn scalar(pool: &Pool, sql: &str) -> String {
    let client = pool.get_timeout(LONG).await.unwrap();
    client.query_one(sql, &[]).await.unwrap().get(0)
}

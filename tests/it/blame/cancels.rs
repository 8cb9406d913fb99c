//! SQLSTATE 57014 says that a statement was stopped. Only the message says by whom, and the server translates it.

use std::time::Duration;

use failfast::{Error, ErrorKind, Pool, ServerTimeouts};

use super::{LONG, counting, shared};
use crate::support::server::Server;

/// Runs a statement that an administrator cancels.
async fn cancelled(pool: &Pool, server: &Server) -> Error {
    let client = pool.get_timeout(LONG).await.unwrap();
    let process = client.process_id().unwrap();
    let cancel = format!(
        "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {process} AND state = 'active' AND query LIKE '%pg_sleep%')
         LOOP PERFORM pg_sleep(0.001); PERFORM pg_stat_clear_snapshot(); END LOOP; PERFORM pg_cancel_backend({process}); END $$"
    );
    let (stopped, ()) = tokio::join!(client.batch_execute("SELECT pg_sleep(60)"), server.execute(&cancel));
    stopped.unwrap_err()
}

#[tokio::test]
async fn statements_cancelled_by_an_administrator_open_no_circuit() {
    let server = Server::own(&[]).await;
    let pool = Pool::builder(server.config()).name("cancelled").max_size(2).build().unwrap();
    for _ in 0..12 {
        let error = cancelled(&pool, &server).await;
        assert_eq!(error.sqlstate().map(|state| state.code()), Some("57014"), "{error}");
    }
    let snapshot = pool.breaker().snapshot();
    assert_eq!((snapshot.state, snapshot.counts.failures), (failfast::breaker::State::Closed, 0));
}

/// The session's own `statement_timeout` is not the pool's.
#[tokio::test]
async fn only_the_pools_own_timeout_is_a_failure_of_the_server() {
    let timeouts = ServerTimeouts::new().longest_call(Duration::from_millis(1));
    let pool = shared("own_timeout").await.max_size(1).breaker(counting()).server_timeouts(timeouts).build().unwrap();
    let failures = || pool.breaker().snapshot().counts.failures;
    let client = pool.get_timeout(LONG).await.unwrap();
    client.batch_execute("SET statement_timeout = 20").await.unwrap();
    let error = client.batch_execute("SELECT pg_sleep(60)").await.unwrap_err();
    assert_eq!((error.kind(), failures()), (ErrorKind::Postgres, 0), "{error}");
    // A function that raises the same code after an equally long time.
    let raise = "DO $$ BEGIN PERFORM pg_sleep(1.1); RAISE query_canceled; END $$";
    client.batch_execute("SET statement_timeout = 0").await.unwrap();
    let error = client.batch_execute(raise).await.unwrap_err();
    assert_eq!((error.kind(), failures()), (ErrorKind::Postgres, 0), "{error}");
    drop(client);
    let error = pool.batch_execute("SELECT pg_sleep(60)").await.unwrap_err();
    assert_eq!((error.kind(), failures()), (ErrorKind::QueryTimeout, 1), "{error}");
}

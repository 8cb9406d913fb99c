//! Checks `docs/failure-semantics.md` on a real server: what the breaker counts and what happens to the connection,
//! where the pool itself detects the failure. `src/error/tests/documented.rs` tests the rest of its tables.

use std::time::Duration;

use failfast::breaker::BreakerConfig;
use failfast::{Error, ErrorKind, Pool, RetryConfig};
use tokio::time::{sleep, timeout};

use crate::pool::shared;
use crate::support::server::Server;

const SOON: Duration = Duration::from_millis(200);
const LONGER: Duration = Duration::from_secs(3_600);
/// Longer than anything else in these tests takes.
const SLEEP: &str = "SELECT pg_sleep(60)";

/// Returns the breaker and connection cells of the row that begins with `what`.
fn documented(what: &str) -> (&'static str, &'static str) {
    let text = include_str!("../../docs/failure-semantics.md");
    let row = text.lines().find(|line| line.strip_prefix("| ").is_some_and(|line| line.starts_with(what)));
    let cells: Vec<_> = row.unwrap_or_else(|| panic!("no such row: {what}")).split(" | ").collect();
    let first = |cell: &'static str| cell.split([',', ';']).next().unwrap();
    (first(cells[4]), first(cells[5]))
}

/// A pool of one connection. Its breaker forgets nothing, and no call runs again.
async fn pool(name: &str) -> Pool {
    let breaker = BreakerConfig::default().rolling_window(LONGER).volume_threshold(1_000);
    shared(name).await.max_size(1).breaker(breaker).retry(RetryConfig::off()).build().unwrap()
}

async fn process(pool: &Pool) -> Option<i32> {
    pool.get_timeout(crate::pool::LONG).await.unwrap().process_id()
}

/// Runs the work. Compares what the breaker counted and whether the connection stayed with the document.
async fn check(what: &str, pool: &Pool, kind: Option<ErrorKind>, work: impl Future<Output = Option<Error>>) {
    let before = process(pool).await;
    let counts = || pool.breaker().snapshot().counts;
    let counted = counts();
    let error = work.await;
    assert_eq!(error.as_ref().map(Error::kind), kind, "{what}: {error:?}");
    let after = process(pool).await;
    let (failures, successes) = (counts().failures - counted.failures, counts().successes() - counted.successes());
    let breaker = match (failures, successes) {
        (0, 0) => "nothing",
        (0, _) => "success",
        _ => "failure",
    };
    let (said, connection) = documented(what);
    assert_eq!(breaker, said, "{what}");
    assert_eq!(before == after, connection != "closed", "{what}: {connection}");
}

#[tokio::test]
async fn late_statements_count_as_documented() {
    let pool = pool("semantics_late").await;
    let late = async { pool.call().timeout(SOON).batch_execute(SLEEP).await.err() };
    check("a statement is late", &pool, Some(ErrorKind::QueryTimeout), late).await;
    let not_begun = async {
        let client = pool.call().deadline(SOON).get().await.unwrap();
        sleep(SOON).await;
        client.batch_execute("SELECT 1").await.err()
    };
    check("the deadline passed before", &pool, Some(ErrorKind::QueryTimeout), not_begun).await;
    let dropped = async {
        let gone = timeout(SOON, pool.batch_execute(SLEEP)).await;
        assert!(gone.is_err());
        None
    };
    check("the caller drops", &pool, None, dropped).await;
}

#[tokio::test]
async fn failed_transactions_count_as_documented() {
    let pool = pool("semantics_tx").await;
    let swallowed = pool.transaction(|tx| async move {
        let _ = tx.batch_execute("SELECT 1 / 0").await;
        Ok::<_, Error>(())
    });
    let swallowed = async { swallowed.await.err() };
    check("a transaction was to be committed after", &pool, Some(ErrorKind::TransactionAborted), swallowed).await;
    let ended = async { pool.transaction(|tx| async move { tx.batch_execute("COMMIT").await }).await.err() };
    check("a transaction was ended by", &pool, Some(ErrorKind::TransactionAborted), ended).await;
}

#[tokio::test]
async fn mistakes_and_ended_sessions_count_as_documented() {
    let pool = pool("semantics_other").await;
    let mistake = async { pool.query("SELECT $1::int4", &[&"text"]).await.err() };
    check("a parameter or a row", &pool, Some(ErrorKind::Postgres), mistake).await;
    let too_many = async { pool.query_one("SELECT generate_series(1, 1000000)", &[]).await.err() };
    check("a parameter or a row", &pool, Some(ErrorKind::Postgres), too_many).await;

    let server = Server::shared().await;
    let terminated = async {
        let client = pool.get().await.unwrap();
        let end = format!("SELECT pg_terminate_backend({})", client.process_id().unwrap());
        let (error, ()) = tokio::join!(client.batch_execute(SLEEP), server.execute(&end));
        error.err()
    };
    let counted = pool.breaker().snapshot().counts.failures;
    let before = process(&pool).await;
    let error = terminated.await.unwrap();
    assert_eq!(error.sqlstate().map(|state| state.code()), Some("57P01"), "{error}");
    assert_ne!(process(&pool).await, before);
    assert_eq!(
        pool.breaker().snapshot().counts.failures,
        counted,
        "a single ended session counted, although an administrator ends single sessions"
    );
}

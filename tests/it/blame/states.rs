//! Only the end of a session costs the connection, whatever code a statement raises. The breaker counts each code as
//! `docs/failure-semantics.md` says.

use std::time::Duration;

use failfast::{Client, Pool, RetryConfig};

use super::{LONG, counting, shared};
use crate::support::eventually;

/// Codes of all classes, including all in the document's table.
const STATES: &str = "01000 02000 03000 08000 08001 08003 08004 08006 08007 08P01 09000 0A000 0B000 0F000 0L000 0P000 20000 21000 22000 22001 \
    22003 22012 22P02 22P05 23502 23503 23505 23514 23P01 24000 25000 25001 25006 25P01 25P02 25P03 25P04 26000 27000 28000 28P01 2B000 2D000 \
    2F000 34000 38000 39000 3B000 3D000 3F000 40000 40001 40003 40P01 42000 42501 42601 42703 42883 42P01 42P05 44000 53000 53100 53200 53300 \
    53400 54000 54001 55000 55006 55P03 57000 57014 57P01 57P02 57P03 57P04 57P05 58000 58030 58P01 72000 F0000 HV000 P0001 XX000 XX001 XX002";

/// Returns how the breaker counts an ERROR with this code, according to the document.
fn documented(state: &str) -> &'static str {
    let text = include_str!("../../../docs/failure-semantics.md");
    // On a server that accepts writes, this code is a mistake of the function that raises it.
    if state == "25006" {
        return "success";
    }
    let quoted = format!("`{state}`");
    let is_row = |cells: &Vec<&str>| {
        cells.len() > 6 && cells[1] == "ERROR" && cells[0].contains(&quoted) && !cells[0].contains("cached plan")
    };
    let mut rows = text.lines().filter_map(|line| Some(line.strip_prefix("| ")?.split(" | ").collect()));
    rows.find(is_row).map_or("success", |cells| cells[6])
}

async fn pool(name: &str) -> Pool {
    shared(name).await.max_size(1).breaker(counting()).retry(RetryConfig::off()).build().unwrap()
}

#[tokio::test]
async fn an_error_of_any_code_leaves_the_connection_and_counts_as_documented() {
    let pool = pool("states").await;
    let process = pool.get_timeout(LONG).await.unwrap().process_id();
    let counts = || pool.breaker().snapshot().counts;
    let states: Vec<_> = STATES.split_whitespace().collect();
    assert!(states.len() >= 60);
    for state in states {
        let before = counts();
        let raise = format!("DO $$ BEGIN RAISE EXCEPTION 'a test' USING ERRCODE = '{state}'; END $$");
        let error = pool.batch_execute(&raise).await.unwrap_err();
        assert_eq!(error.sqlstate().map(|code| code.code()), Some(state), "{error}");
        let counted = match (counts().failures - before.failures, counts().successes() - before.successes()) {
            (0, 0) => "nothing",
            (0, 1) => "success",
            (1, 0) => "failure",
            other => panic!("{state}: {other:?}"),
        };
        assert_eq!(counted, documented(state), "{state}");
        assert_eq!(pool.get_timeout(LONG).await.unwrap().process_id(), process, "{state}");
    }
}

/// Extensions raise this code for bad input. The server raises it when two instances replace one function at the same
/// time.
#[tokio::test]
async fn internal_errors_among_healthy_calls_open_no_circuit() {
    let pool = shared("internal_errors").await.max_size(20).build().unwrap();
    pool.warm_up(20, LONG).await.unwrap();
    for _ in 0..20 {
        pool.batch_execute("DO $$ BEGIN RAISE internal_error; END $$").await.unwrap_err();
        pool.query_one("SELECT 1", &[]).await.unwrap();
    }
    assert_eq!(pool.breaker().state(), failfast::breaker::State::Closed);
    assert_eq!(pool.breaker().snapshot().counts.failures, 0);
    // The connection that ran the last DO is reset first.
    eventually("all connections are idle", LONG, async || pool.status().idle == 20).await;
}

/// The dial only replaces a connection that a failure has cost.
#[tokio::test]
async fn the_replacement_of_a_lost_connection_is_not_a_success() {
    let pool = pool("replaced").await;
    let mut processes = vec![pool.get_timeout(LONG).await.unwrap().process_id()];
    let successes = || pool.breaker().snapshot().counts.successes();
    let before = successes();
    for _ in 0..5 {
        pool.batch_execute("SELECT pg_terminate_backend(pg_backend_pid())").await.unwrap_err();
        processes.push(pool.get_timeout(LONG).await.unwrap().process_id());
    }
    processes.sort_unstable();
    processes.dedup();
    assert_eq!((processes.len(), successes()), (6, before));
}

/// The breaker and the replacement of all connections use the same rule.
#[tokio::test]
async fn two_terminations_are_a_shutdown_only_within_a_second() {
    let pool = shared("terminations").await.max_size(3).breaker(counting()).retry(RetryConfig::off()).build().unwrap();
    let failures = || pool.breaker().snapshot().counts.failures;
    let lease = async || pool.get_timeout(LONG).await.unwrap();

    let (one, other, bystander) = (lease().await, lease().await, lease().await);
    let process = bystander.process_id();
    drop(bystander);
    end_session(one).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    end_session(other).await;
    eventually("both connections are closed", LONG, async || {
        let status = pool.status();
        (status.idle, status.in_use, status.closing) == (1, 0, 0)
    })
    .await;
    assert_eq!((failures(), lease().await.process_id()), (0, process), "terminations further apart are no shutdown");

    let (one, other, bystander) = (lease().await, lease().await, lease().await);
    let process = bystander.process_id();
    drop(bystander);
    tokio::join!(end_session(one), end_session(other));
    eventually("the bystander is replaced", LONG, async || lease().await.process_id() != process).await;
    // The first of the two counts as well, if it came within a second after the one before.
    assert!(matches!(failures(), 1 | 2), "the second termination counts: {}", failures());
}

async fn end_session(client: Client) {
    let error = client.batch_execute("SELECT pg_terminate_backend(pg_backend_pid())").await.unwrap_err();
    assert_eq!(error.sqlstate().map(|code| code.code()), Some("57P01"), "{error}");
}

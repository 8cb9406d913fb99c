//! Fallbacks of calls on a cluster, and outcomes that a test pretends.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use failfast::testing::{self, Outcome};
use failfast::{Client, Cluster, Error, ErrorKind, Freshness, RetryConfig, Transaction};
use tokio_postgres::types::Type;

const ANY: Freshness = Freshness::Any;

fn without_servers() -> Cluster {
    testing::cluster_without_servers().build().unwrap()
}

/// An error type of the service.
#[derive(Debug, PartialEq)]
enum Own {
    Database(ErrorKind),
    Forbidden,
}

impl From<Error> for Own {
    fn from(error: Error) -> Self {
        Self::Database(error.kind())
    }
}

#[tokio::test]
async fn each_outcome_of_a_cluster_is_reached_without_a_server() {
    let cluster = without_servers();
    for (outcome, kind) in [
        (Outcome::NoPrimary, ErrorKind::NoPrimary),
        (Outcome::TwoPrimaries, ErrorKind::TwoPrimaries),
        (Outcome::TwoSystems, ErrorKind::TwoSystems),
    ] {
        let pretending = cluster.pretend(outcome.clone());
        let error = cluster.execute("UPDATE items SET stock = 0", &[]).await.unwrap_err();
        assert_eq!((error.kind(), error.http_status()), (kind, 503), "{outcome:?}: {error}");
        assert!(error.retry_after().is_some_and(|after| after > Duration::ZERO), "{error}");
        assert_eq!(cluster.primary().unwrap_err().kind(), kind);
        assert_eq!(pretending.met(), 2);
        let read = cluster.call().read(ANY).query("SELECT 1", &[]).await.unwrap_err();
        assert_eq!(read.kind(), ErrorKind::Postgres, "a read of any freshness needs no primary: {read}");
    }
    let pretending = cluster.pretend(Outcome::NoFreshReplica.operation("names"));
    for call in [cluster.call().read(ANY), cluster.call().after(Instant::now())] {
        let error = call.name("names").query("SELECT 1", &[]).await.unwrap_err();
        assert_eq!((error.kind(), error.http_status()), (ErrorKind::NoFreshReplica, 503), "{error}");
        assert_eq!(call.query("SELECT 1", &[]).await.unwrap_err().kind(), ErrorKind::Postgres, "another name");
    }
    let write = cluster.call().name("names").execute("SELECT 1", &[]).await.unwrap_err();
    assert_eq!((write.kind(), pretending.met()), (ErrorKind::Postgres, 2), "no read: {write}");
}

/// The replica's pool and the primary's share a pretence.
#[tokio::test]
async fn the_outcomes_of_a_pool_are_met_at_whichever_host_serves_the_call() {
    let once = |pool: failfast::PoolBuilder| pool.retry(RetryConfig::off());
    let cluster = testing::cluster_without_servers().pool(once).build().unwrap();
    let slow = cluster.pretend(Outcome::QueryTimeout.times(2));
    let write = cluster.execute("SELECT 1", &[]).await.unwrap_err();
    let read = cluster.call().read(ANY).query("SELECT 1", &[]).await.unwrap_err();
    assert_eq!([write.kind(), read.kind()], [ErrorKind::QueryTimeout; 2]);
    let third = cluster.execute("SELECT 1", &[]).await.unwrap_err();
    assert_eq!((third.sqlstate().map(|state| state.code()), slow.met()), (Some("0A000"), 2), "{third}");
    cluster.transaction(async |_| Ok::<_, Error>(())).await.unwrap();
    let _unknown = cluster.pretend(Outcome::CommitUnknown { committed: false });
    let error = cluster.transaction_at(async |_| Ok::<_, Error>(())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CommitUnknown);
}

/// What follows a pretended outcome is real.
#[tokio::test]
async fn a_call_that_may_wait_for_a_failover_outlasts_a_pretended_one() {
    let cluster = without_servers();
    let missing = cluster.pretend(Outcome::NoPrimary.times(2));
    let call = cluster.call().across_failover().deadline(Duration::from_secs(20));
    call.transaction(async |_| Ok::<_, Error>(())).await.unwrap();
    assert_eq!(missing.met(), 2);
    let error = cluster.call().deadline(Duration::from_secs(20)).execute("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Postgres);
}

#[tokio::test]
async fn every_method_gets_the_answer_of_its_fallback() {
    let cluster = without_servers();
    let _missing = cluster.pretend(Outcome::NoPrimary);
    let call = || cluster.call();
    let rows = call().fallback(|_| Some(Vec::new())).query("SELECT 1", &[]).await.unwrap();
    assert!(rows.is_empty());
    assert!(call().fallback(|_| None).query_one("SELECT 1", &[]).await.is_err());
    assert!(call().fallback(|_| Some(None)).query_opt("SELECT 1", &[]).await.unwrap().is_none());
    assert_eq!(call().fallback(|_| Some(3)).execute("SELECT 1", &[]).await.unwrap(), 3);
    let rows = call().fallback(|_| Some(Vec::new())).query_typed("SELECT $1", &[(&1, Type::INT4)]).await.unwrap();
    assert!(rows.is_empty());
    call().fallback(|_| Some(())).batch_execute("SELECT 1").await.unwrap();
    assert!(call().fallback(|_| Some(Vec::new())).simple_query("SELECT 1").await.unwrap().is_empty());
    assert_eq!(call().fallback(|_| Some(7)).execute_many("SELECT $1", [[1_i32]]).await.unwrap(), 7);
    let unused = |_: Client| async { Err::<i32, Error>(Error::Closed) };
    assert_eq!(call().fallback(|_| Some(5)).run(unused).await.unwrap(), 5);
    let unused = |_: Transaction| async { Err::<i32, Own>(Own::Forbidden) };
    assert_eq!(call().fallback(|_| Some(6)).transaction(unused).await, Ok(6));
    let is_missing = |error: &Own| (*error == Own::Database(ErrorKind::NoPrimary)).then_some(8);
    assert_eq!(call().fallback(is_missing).transaction_once(unused).await, Ok(8));
}

#[tokio::test]
async fn a_fallback_answers_if_no_host_did_and_hides_no_answer() {
    let cluster = without_servers();
    let asked = AtomicU32::new(0);
    let instead = |_: &Error| {
        asked.fetch_add(1, SeqCst);
        Some(1)
    };
    let error = cluster.call().fallback(instead).execute("SELECT 1", &[]).await.unwrap_err();
    assert_eq!((error.kind(), asked.load(SeqCst)), (ErrorKind::Postgres, 0), "an answer");
    let _stale = cluster.pretend(Outcome::NoFreshReplica);
    assert_eq!(cluster.call().read(ANY).fallback(instead).execute("SELECT 1", &[]).await.unwrap(), 1);
    let slow = cluster.pretend(Outcome::QueryTimeout);
    assert_eq!(cluster.call().fallback(instead).execute("SELECT 1", &[]).await.unwrap(), 1);
    // The closure's error type says nothing. The last statement on its connection does.
    let work = |client: Client| async move { client.execute("SELECT 1", &[]).await.map_err(|_| Own::Forbidden) };
    let own = |_: &Own| Some(2);
    assert_eq!(cluster.call().fallback(own).run(work).await, Ok(2));
    drop(slow);
    assert_eq!(cluster.call().fallback(own).run(work).await, Err(Own::Forbidden), "the database has answered");
    let forbidden = |_: Transaction| async { Err::<u64, Own>(Own::Forbidden) };
    assert_eq!(cluster.call().fallback(own).transaction(forbidden).await, Err(Own::Forbidden));
    assert_eq!(cluster.call().fallback(own).transaction_once(forbidden).await, Err(Own::Forbidden));
    let _unknown = cluster.pretend(Outcome::CommitUnknown { committed: true });
    let write = |_: Transaction| async { Ok::<u64, Own>(3) };
    let unknown = cluster.call().fallback(own).transaction(write).await;
    assert_eq!(unknown, Err(Own::Database(ErrorKind::CommitUnknown)), "nobody knows whether it was applied");
}

//! Replicas that do not keep up.

use std::time::Duration;

use failfast::Pool;
use failfast::preflight::{Check, Grade, Plan};

use super::{LONG, assert_grade, found, pool_of, role};
use crate::support::{cluster::Replicated, eventually};

/// Writes some 4 MB of log.
const WRITE: &str = "INSERT INTO written SELECT repeat('x', 1000) FROM generate_series(1, 4000)";

#[tokio::test]
async fn a_replica_that_is_behind_is_critical() {
    let cluster = Replicated::start_with(1, &[("wal_receiver_status_interval", "1s")]).await;
    let (primary, replica) = (cluster.node(0), cluster.node(1));
    primary.execute("CREATE TABLE written (note text)").await;
    role(primary, "lag").await;
    let pool = Pool::builder(primary.config()).build().unwrap();
    let plan = Plan::new().replicas(1).replica_lag_bytes(1 << 20).replica_lag(Duration::from_secs(3));
    let grade = async |pool: &Pool, plan: &Plan| found(&pool.preflight(plan).await, Check::ReplicaLag).severity;
    eventually("the replica keeps up", LONG, async || grade(&pool, &plan).await == Grade::Ok).await;
    // One more was expected.
    assert_grade(&pool.preflight(&plan.clone().replicas(2)).await, Check::ReplicaLag, Grade::Critical);
    // A role without rights does not see it.
    assert_grade(&pool_of(primary, "lag").preflight(&plan).await, Check::ReplicaLag, Grade::NotKnown);

    // It receives everything and replays nothing. The bytes show it at once, and the time follows.
    replica.execute("SELECT pg_wal_replay_pause()").await;
    primary.execute(WRITE).await;
    let by_bytes = plan.clone().replica_lag(Duration::from_secs(3600));
    eventually("bytes are behind", LONG, async || grade(&pool, &by_bytes).await == Grade::Critical).await;
    let by_time = plan.clone().replica_lag_bytes(1 << 40);
    eventually("time is behind", LONG, async || grade(&pool, &by_time).await == Grade::Critical).await;
    // The replica knows it, too.
    let of_replica = Pool::builder(replica.config()).build().unwrap();
    eventually("the replica says so", LONG, async || grade(&of_replica, &plan).await == Grade::Critical).await;
    replica.execute("SELECT pg_wal_replay_resume()").await;
    eventually("it has caught up", LONG, async || grade(&pool, &plan).await == Grade::Ok).await;
    eventually("the replica says so", LONG, async || grade(&of_replica, &plan).await == Grade::Ok).await;
}

/// It answers nothing. `replay_lag` stays what it was.
#[tokio::test]
async fn a_replica_that_is_silent_is_critical() {
    let mut cluster = Replicated::start(1).await;
    cluster.node(0).execute("CREATE TABLE written (note text)").await;
    let pool = Pool::builder(cluster.node(0).config()).build().unwrap();
    let plan = Plan::new().replicas(1).replica_lag_bytes(1 << 40).replica_lag(Duration::from_secs(2));
    let grade = async |pool: &Pool| found(&pool.preflight(&plan).await, Check::ReplicaLag).severity;
    eventually("the replica keeps up", LONG, async || grade(&pool).await == Grade::Ok).await;
    cluster.pause(1).await;
    cluster.node(0).execute(WRITE).await;
    eventually("it is late", LONG, async || grade(&pool).await == Grade::Critical).await;
    cluster.unpause(1).await;
    eventually("it has caught up", LONG, async || grade(&pool).await == Grade::Ok).await;
}

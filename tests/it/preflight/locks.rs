//! What a migration would have to wait for.

use std::time::Duration;

use failfast::preflight::{Check, Grade, Plan};
use tokio::time::sleep;

use super::{LONG, assert_grade, found, pool_of, role};
use crate::support::{eventually, server::Server};

const MILLISECOND: Duration = Duration::from_millis(1);

#[tokio::test]
async fn an_old_transaction_on_a_touched_table_is_critical() {
    let server = Server::own(&[("max_prepared_transactions", "2")]).await;
    role(&server, "old").await;
    server
        .execute(
            "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int REFERENCES parent);
            CREATE TABLE parts (id int) PARTITION BY RANGE (id);
            CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9); CREATE TABLE other (id int)",
        )
        .await;
    server.execute("GRANT pg_monitor TO old").await;
    let pool = pool_of(&server, "old");
    let plan = Plan::new().oldest_transaction(100 * MILLISECOND);
    for (holds, touched, other) in [
        ("SELECT * FROM child", "child", "other"),
        ("SELECT * FROM parent", "child", "other"),
        ("SELECT * FROM child", "parent", "other"),
        ("SELECT * FROM part", "public.parts", "other"),
        ("SELECT * FROM other", "other", "parts"),
    ] {
        let session = server.admin().await;
        session.batch_execute(&format!("BEGIN; {holds}")).await.unwrap();
        sleep(150 * MILLISECOND).await;
        let report = pool.preflight(&plan.clone().touches([touched])).await;
        assert_grade(&report, Check::OldestTransaction, Grade::Critical);
        assert!(found(&report, Check::OldestTransaction).value.contains("(process "), "{report}");
        let report = pool.preflight(&plan.clone().touches([other])).await;
        assert_grade(&report, Check::OldestTransaction, Grade::Ok);
        // Without a table, the whole database counts.
        assert_grade(&pool.preflight(&plan).await, Check::OldestTransaction, Grade::Critical);
        session.batch_execute("ROLLBACK").await.unwrap();
    }
    server.execute("BEGIN; SELECT * FROM child; PREPARE TRANSACTION 'forgotten'").await;
    sleep(150 * MILLISECOND).await;
    let report = pool.preflight(&plan.clone().touches(["child"])).await;
    assert_grade(&report, Check::OldestTransaction, Grade::Critical);
    assert!(found(&report, Check::OldestTransaction).value.ends_with("(prepared transaction forgotten)"), "{report}");
    assert_grade(&pool.preflight(&plan.touches(["other"])).await, Check::OldestTransaction, Grade::Ok);
}

/// The role sees that somebody has a lock, but not since when.
#[tokio::test]
async fn a_transaction_of_another_role_is_not_known_without_rights() {
    let server = Server::shared().await;
    role(server, "pre_hidden").await;
    let pool = pool_of(server, "pre_hidden");
    let plan = Plan::new().touches(["t_pre_hidden"]);
    assert_grade(&pool.preflight(&plan).await, Check::OldestTransaction, Grade::Ok);
    let session = server.admin().await;
    session.batch_execute("BEGIN; SELECT * FROM t_pre_hidden").await.unwrap();
    let report = pool.preflight(&plan).await;
    assert_grade(&report, Check::OldestTransaction, Grade::NotKnown);
    assert!(found(&report, Check::OldestTransaction).value.contains("GRANT pg_read_all_stats"), "{report}");
    assert_eq!(report.exit_code(), 2);
}

#[tokio::test]
async fn a_name_without_a_table_is_not_known() {
    let server = Server::shared().await;
    role(server, "pre_name").await;
    let report = pool_of(server, "pre_name").preflight(&Plan::new().touches(["t_pre_name", "no'such\\table"])).await;
    for check in [Check::OldestTransaction, Check::LockQueue, Check::Wraparound] {
        assert_grade(&report, check, Grade::NotKnown);
        assert!(found(&report, check).value.starts_with("there is no table no'such\\table"), "{report}");
    }
}

#[tokio::test]
async fn a_queue_for_a_lock_is_critical() {
    let server = Server::own(&[]).await;
    role(&server, "queued").await;
    server.execute("CREATE TABLE other (id int)").await;
    let pool = pool_of(&server, "queued");
    let plan = Plan::new().longest_lock_wait(200 * MILLISECOND);
    for (holds, waits) in
        [("LOCK TABLE t_queued", "SELECT * FROM t_queued"), ("UPDATE t_queued SET n = 1", "UPDATE t_queued SET n = 2")]
    {
        let (holder, waiter) = (server.admin().await, server.admin().await);
        holder.batch_execute(&format!("BEGIN; {holds}")).await.unwrap();
        let waits = waits.to_owned();
        let waiting = tokio::spawn(async move { waiter.batch_execute(&waits).await });
        let report = async || pool.preflight(&plan.clone().touches(["t_queued"])).await;
        eventually("the queue is seen", LONG, async || {
            found(&report().await, Check::LockQueue).severity == Grade::Critical
        })
        .await;
        assert!(found(&report().await, Check::LockQueue).value.starts_with("1 sessions wait"), "{}", report().await);
        assert_grade(&pool.preflight(&plan).await, Check::LockQueue, Grade::Critical);
        assert_grade(&pool.preflight(&plan.clone().touches(["other"])).await, Check::LockQueue, Grade::Ok);
        holder.batch_execute("ROLLBACK").await.unwrap();
        waiting.await.unwrap().unwrap();
    }
    // Those wait on purpose.
    let (holder, waiter) = (server.admin().await, server.admin().await);
    holder.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
    let waiting = tokio::spawn(async move { waiter.batch_execute("SELECT pg_advisory_lock(1)").await });
    sleep(400 * MILLISECOND).await;
    assert_grade(&pool.preflight(&plan).await, Check::LockQueue, Grade::Ok);
    drop(holder);
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_autovacuum_to_prevent_wraparound_is_critical() {
    let settings = [("autovacuum_freeze_max_age", "100000"), ("autovacuum_naptime", "1s")];
    let server = Server::own(&settings).await;
    role(&server, "wrap").await;
    server
        .execute(
            "CREATE TABLE old (id int, note text) WITH
            (autovacuum_enabled = false, autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
            INSERT INTO old SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n",
        )
        .await;
    let pool = pool_of(&server, "wrap");
    let plan = Plan::new().touches(["old"]);
    assert_grade(&pool.preflight(&plan).await, Check::Wraparound, Grade::Ok);
    // An autovacuum to prevent wraparound runs even if autovacuum is off for the table.
    server.execute("DO $$ BEGIN FOR i IN 1..101000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$").await;
    let worst = async || found(&pool.preflight(&plan).await, Check::Wraparound).clone();
    eventually("it runs", 3 * LONG, async || worst().await.severity == Grade::Critical).await;
    let worst = worst().await;
    assert!(worst.value.starts_with("old at 1") && worst.value.ends_with("is running"), "{worst}");
    let other = pool.preflight(&Plan::new().touches(["t_wrap"])).await;
    assert_ne!(found(&other, Check::Wraparound).severity, Grade::Critical, "{other}");
}

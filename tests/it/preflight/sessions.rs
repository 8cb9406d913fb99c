//! Timeouts that are not set, a pooler, and questions that the server does not answer.

use failfast::preflight::{Check, Grade, Plan, PoolerMode};
use failfast::{Pool, ServerTimeouts};

use super::{LONG, assert_grade, found, pool_of, role, shared};
use crate::support::{pgbouncer::PgBouncer, server::Server};

#[tokio::test]
async fn timeouts_that_are_not_set_are_critical() {
    let server = Server::shared().await;
    role(server, "pre_timeouts").await;
    let plan = Plan::new();
    let mut config = server.config();
    config.user("pre_timeouts").password("secret");
    let grade = async |expected: Grade| {
        let pool = Pool::builder(config.clone()).build().unwrap();
        assert_grade(&pool.preflight(&plan).await, Check::Timeouts, expected);
    };
    grade(Grade::Critical).await;
    server.execute("ALTER ROLE pre_timeouts SET statement_timeout = '5s'").await;
    grade(Grade::Critical).await;
    server.execute("ALTER ROLE pre_timeouts SET idle_in_transaction_session_timeout = '1min'").await;
    grade(Grade::Ok).await;
    // The question's own limit is none of the pool's sessions.
    server.execute("ALTER ROLE pre_timeouts RESET statement_timeout").await;
    grade(Grade::Critical).await;
    server.execute("ALTER ROLE pre_timeouts RESET ALL").await;
    let pool = Pool::builder(config.clone()).server_timeouts(ServerTimeouts::default()).build().unwrap();
    assert_grade(&pool.preflight(&plan).await, Check::Timeouts, Grade::Ok);
}

#[tokio::test]
async fn the_mode_of_a_pooler_is_seen() {
    let server = Server::shared().await;
    let plan = Plan::new();
    let direct = shared("pre_direct").await.build().unwrap();
    assert_eq!(found(&direct.preflight(&plan).await, Check::Pooler).value, "no pooler");
    for (mode, grade) in [("session", Grade::Ok), ("transaction", Grade::Critical), ("statement", Grade::Critical)] {
        let Some(bouncer) = PgBouncer::start(server, &[&format!("pool_mode = {mode}")]).await else {
            println!("no PgBouncer here; scripts/postgres-image makes an image that has it");
            return;
        };
        let pool = Pool::builder(server.config_at(bouncer.addr())).build().unwrap();
        let report = pool.preflight(&plan).await;
        assert_grade(&report, Check::Pooler, grade);
        let expected = if mode == "session" { "session" } else { "transaction" };
        assert!(found(&report, Check::Pooler).value.contains(expected), "{mode}: {report}");
        let report = pool.preflight(&plan.clone().pooler(PoolerMode::Transaction)).await;
        assert_grade(&report, Check::Pooler, Grade::Ok);
        // Nothing of a question is left in a session that others get.
        let setting = pool.query_one("SELECT current_setting('statement_timeout')", &[]).await.unwrap();
        assert_eq!(setting.get::<_, &str>(0), "0", "{mode}");
    }
}

#[tokio::test]
async fn a_question_that_the_role_may_not_ask_is_not_known() {
    let server = Server::own(&[]).await;
    role(&server, "barred").await;
    let pool = pool_of(&server, "barred");
    server.execute("REVOKE SELECT ON pg_locks FROM PUBLIC").await;
    let report = pool.preflight(&Plan::new()).await;
    assert_grade(&report, Check::LockQueue, Grade::NotKnown);
    assert!(found(&report, Check::LockQueue).value.contains("permission denied"), "{report}");
    assert_grade(&report, Check::Timeouts, Grade::Ok);
    assert_grade(&report, Check::FreeSlots, Grade::Ok);
    assert_eq!(report.exit_code(), 2);
}

/// Somebody has locked a catalog that two of the questions read.
#[tokio::test]
async fn a_question_that_takes_too_long_is_not_known() {
    let server = Server::own(&[]).await;
    role(&server, "slow").await;
    let pool = pool_of(&server, "slow");
    let session = server.admin().await;
    session.batch_execute("BEGIN; LOCK TABLE pg_catalog.pg_inherits, pg_catalog.pg_constraint").await.unwrap();
    let begun = std::time::Instant::now();
    let report = pool.preflight(&Plan::new().touches(["t_slow"])).await;
    assert!(begun.elapsed() < LONG / 3, "{:?}", begun.elapsed());
    assert_grade(&report, Check::OldestTransaction, Grade::NotKnown);
    assert_grade(&report, Check::FreeSlots, Grade::Ok);
    assert_grade(&report, Check::Pooler, Grade::Ok);
}

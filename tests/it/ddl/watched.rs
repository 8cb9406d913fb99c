//! What the watch of a change's queue sees, and what follows if it sees nothing.

use failfast::{Error, ErrorKind, GiveWayReason, Pool};
use tokio::time::{sleep, timeout};

use super::{LONG, MILLISECOND, SOON, behind, gave_way, has_column, hold, queued, table};
use crate::support::{eventually, pgbouncer::PgBouncer, server::Server};

/// The process that watches a change of this pool's role.
async fn watcher(server: &Server, role: &str) -> String {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE usename = '{role}' AND query LIKE '%pg_blocking_pids%' LIMIT 1"
    );
    eventually("the change is watched", LONG, async || !server.scalar(&sql).await.is_empty()).await;
    server.scalar(&sql).await
}

/// A role that owns a table, with no rights beyond it, and a pool of one of its connections.
async fn of_role(server: &Server, role: &str, limit: i32) -> Pool {
    let sql = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'secret' CONNECTION LIMIT {limit}; CREATE TABLE t_{role} (id int);
        ALTER TABLE t_{role} OWNER TO {role}; GRANT CREATE ON SCHEMA public TO {role}"
    );
    server.execute(&sql).await;
    let mut config = server.config();
    config.user(role).password("secret");
    Pool::builder(config).name(role).max_size(1).build().unwrap()
}

#[tokio::test]
async fn a_role_without_rights_sees_who_waits() {
    let server = Server::shared().await;
    let pool = of_role(server, "ddl_plain", -1).await;
    let _report = hold(server, "SELECT * FROM t_ddl_plain").await;
    let change =
        pool.ddl().lock_timeout(LONG).attempts(1).batch_execute("ALTER TABLE t_ddl_plain ADD COLUMN note text");
    let queue = async {
        queued(server, "t_ddl_plain", 1).await;
        behind(server, "SELECT * FROM t_ddl_plain").await.unwrap()
    };
    let (changed, waited) = tokio::join!(change, queue);
    assert!(matches!(gave_way(&changed.unwrap_err()), GiveWayReason::Waiting { .. }));
    assert!(waited < SOON, "{waited:?}");
}

#[tokio::test]
async fn a_watch_that_was_lost_is_replaced() {
    let server = Server::shared().await;
    let pool = of_role(server, "ddl_again", -1).await;
    let _report = hold(server, "SELECT * FROM t_ddl_again").await;
    let change =
        pool.ddl().lock_timeout(LONG).attempts(1).batch_execute("ALTER TABLE t_ddl_again ADD COLUMN note text");
    let queue = async {
        queued(server, "t_ddl_again", 1).await;
        let first = watcher(server, "ddl_again").await;
        server.execute(&format!("SELECT pg_terminate_backend({first})")).await;
        behind(server, "SELECT * FROM t_ddl_again").await.unwrap()
    };
    let (changed, waited) = tokio::join!(change, queue);
    assert!(matches!(gave_way(&changed.unwrap_err()), GiveWayReason::Waiting { .. }));
    assert!(waited < SOON, "{waited:?}");
}

#[tokio::test]
async fn a_change_that_nobody_can_watch_gives_way() {
    let server = Server::shared().await;
    let pool = of_role(server, "ddl_blind", -1).await;
    let _report = hold(server, "SELECT * FROM t_ddl_blind").await;
    let change =
        pool.ddl().lock_timeout(LONG).attempts(1).batch_execute("ALTER TABLE t_ddl_blind ADD COLUMN note text");
    let blind = async {
        queued(server, "t_ddl_blind", 1).await;
        let watch = watcher(server, "ddl_blind").await;
        server.execute("ALTER ROLE ddl_blind NOLOGIN").await;
        server.execute(&format!("SELECT pg_terminate_backend({watch})")).await;
    };
    let (changed, ()) = tokio::join!(timeout(LONG, change), blind);
    let error = changed.unwrap().unwrap_err();
    assert!(matches!(gave_way(&error), GiveWayReason::NotWatched { .. }), "{error}");
    queued(server, "t_ddl_blind", 0).await;
    // Without a watch, it does not even begin.
    let begun = pool.ddl().batch_execute("CREATE TABLE ddl_blind_never ()").await;
    assert_eq!(begun.unwrap_err().kind(), ErrorKind::Connect);
    assert_eq!(server.scalar("SELECT to_regclass('ddl_blind_never')").await, "");
}

#[tokio::test]
async fn a_change_does_not_run_unwatched() {
    let server = Server::shared().await;
    let pool = of_role(server, "ddl_full", 1).await;
    let error = pool.ddl().batch_execute("ALTER TABLE t_ddl_full ADD COLUMN note text").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    assert!(!has_column(server, "t_ddl_full", "note").await);
    assert_eq!(pool.query("SELECT 1", &[]).await.unwrap().len(), 1, "its lease was given back");
}

/// Behind a pooler, the driver was told another process than the one that has the locks.
#[tokio::test]
async fn a_change_behind_a_pooler_in_transaction_mode_gives_way() {
    let server = Server::shared().await;
    let Some(bouncer) = PgBouncer::start(server, &[]).await else {
        println!("no PgBouncer here; scripts/postgres-image makes an image that has it");
        return;
    };
    table("ddl_pooler", 1).await;
    let pool = Pool::builder(server.config_at(bouncer.addr())).name("ddl_pooler").max_size(1).build().unwrap();
    let report = hold(server, "SELECT * FROM ddl_pooler").await;
    let sql = "ALTER TABLE ddl_pooler ADD COLUMN note text";
    let change = pool.ddl().lock_timeout(LONG).attempts(1).batch_execute(sql);
    let queue = async {
        queued(server, "ddl_pooler", 1).await;
        behind(server, "SELECT * FROM ddl_pooler").await.unwrap()
    };
    let (changed, waited) = tokio::join!(change, queue);
    assert!(matches!(gave_way(&changed.unwrap_err()), GiveWayReason::Waiting { .. }));
    assert!(waited < SOON, "{waited:?}");
    drop(report);
    pool.ddl().batch_execute(sql).await.unwrap();
    assert!(has_column(server, "ddl_pooler", "note").await);
}

/// Another session has asked for the table before, and waits for the same report. The change is behind it.
#[tokio::test]
async fn those_who_were_there_before_do_not_count() {
    let (server, pool) = (Server::shared().await, table("ddl_before", 1).await);
    let report = hold(server, "SELECT * FROM ddl_before").await;
    let other = behind(server, "BEGIN; LOCK TABLE ddl_before; ROLLBACK");
    queued(server, "ddl_before", 1).await;
    let change = pool.ddl().lock_timeout(SOON).attempts(1).batch_execute("ALTER TABLE ddl_before ADD COLUMN note text");
    let error = change.await.unwrap_err();
    assert!(error.is_lock_not_available(), "{error}");
    drop(report);
    other.await.unwrap();
}

#[tokio::test]
async fn waits_for_an_advisory_lock_do_not_count() {
    let (server, pool) = (Server::shared().await, table("ddl_advisory", 1).await);
    let locked = tokio::sync::Notify::new();
    let change = pool.ddl().attempts(1).transaction(async |tx| {
        tx.batch_execute("SELECT pg_advisory_xact_lock(471147)").await?;
        locked.notify_one();
        sleep(SOON).await;
        tx.batch_execute("ALTER TABLE ddl_advisory ADD COLUMN note text").await
    });
    let other_migration = async {
        locked.notified().await;
        behind(server, "SELECT pg_advisory_lock(471147)").await.unwrap()
    };
    let (changed, waited) = tokio::join!(change, other_migration);
    changed.unwrap();
    assert!(waited > SOON - 100 * MILLISECOND, "{waited:?}: nobody waited");
}

/// A foreign key locks the table at its other end, and a partitioned table its partitions.
#[tokio::test]
async fn those_who_wait_for_other_tables_count() {
    let server = Server::shared().await;
    let pool = table("ddl_child", 1).await;
    server
        .execute(
            "CREATE TABLE ddl_parent (id int PRIMARY KEY); INSERT INTO ddl_parent VALUES (1);
            CREATE TABLE ddl_parts (id int) PARTITION BY RANGE (id);
            CREATE TABLE ddl_part PARTITION OF ddl_parts FOR VALUES FROM (0) TO (10)",
        )
        .await;
    for (change, caller) in [
        ("ALTER TABLE ddl_child ADD FOREIGN KEY (id) REFERENCES ddl_parent", "UPDATE ddl_parent SET id = 2"),
        ("ALTER TABLE ddl_parts ADD COLUMN note text", "SELECT * FROM ddl_part"),
        ("UPDATE ddl_child SET n = 1", "UPDATE ddl_child SET n = 2"),
    ] {
        let locked = tokio::sync::Notify::new();
        let changed = pool.ddl().attempts(1).transaction(async |tx| {
            tx.batch_execute(change).await?;
            locked.notify_one();
            sleep(LONG).await;
            Ok(())
        });
        let queue = async {
            locked.notified().await;
            behind(server, caller).await.unwrap()
        };
        let (changed, waited) = tokio::join!(changed, queue);
        let error: Error = changed.unwrap_err();
        assert!(matches!(gave_way(&error), GiveWayReason::Waiting { .. }), "{change}: {error}");
        assert!(waited < SOON, "{change}: {waited:?}");
    }
}

/// The server names no process for the locks of a prepared transaction.
#[tokio::test]
async fn a_prepared_transaction_in_the_way_is_no_reason_to_hold_up_others() {
    let server: &'static Server = Box::leak(Box::new(Server::own(&[("max_prepared_transactions", "5")]).await));
    server.execute("CREATE TABLE t (id int)").await;
    server.execute("BEGIN; SELECT * FROM t; PREPARE TRANSACTION 'forgotten'").await;
    let pool = Pool::builder(server.config()).max_size(1).build().unwrap();
    let sql = "ALTER TABLE t ADD COLUMN note text";
    let change = pool.ddl().lock_timeout(LONG).attempts(1).batch_execute(sql);
    let queue = async {
        queued(server, "t", 1).await;
        behind(server, "SELECT * FROM t").await.unwrap()
    };
    let (changed, waited) = tokio::join!(change, queue);
    assert!(matches!(gave_way(&changed.unwrap_err()), GiveWayReason::Waiting { .. }));
    assert!(waited < SOON, "{waited:?}");
    server.execute("ROLLBACK PREPARED 'forgotten'").await;
    pool.ddl().batch_execute(sql).await.unwrap();
}

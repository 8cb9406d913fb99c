//! What a change of the schema must not do: cancel its COMMIT, run again after the caller's own error, run without its
//! limits, stop halfway when it is dropped.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use failfast::{AbortReason, Effect, Error, ErrorKind, EventKind, GiveWayReason, Pool, Transaction};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::error::SqlState;

use super::{LONG, MILLISECOND, SOON, behind, gave_way, has_column, hold, queued, table};
use crate::support::{eventually, proxy::Proxy, server::Server};

/// A COMMIT that takes two seconds, because of a deferred trigger, while somebody waits for the table.
#[tokio::test]
async fn a_commit_is_never_cancelled() {
    let (server, pool) = (Server::shared().await, table("ddl_commit", 1).await);
    server
        .execute(
            "CREATE FUNCTION ddl_slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2); RETURN NULL; END';
            CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON ddl_commit DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION ddl_slow()",
        )
        .await;
    let locked = Notify::new();
    let change = pool.ddl().attempts(1).transaction(async |tx| {
        tx.batch_execute("ALTER TABLE ddl_commit ADD COLUMN note text; INSERT INTO ddl_commit VALUES (2, 0)").await?;
        locked.notify_one();
        Ok::<_, Error>(())
    });
    let queue = async {
        locked.notified().await;
        behind(server, "SELECT * FROM ddl_commit").await.unwrap()
    };
    let (changed, waited) = tokio::join!(change, queue);
    changed.unwrap();
    assert!(waited > SOON, "{waited:?}: the COMMIT was not slow");
    assert!(has_column(server, "ddl_commit", "note").await);
}

#[tokio::test]
async fn a_lock_that_is_not_free_is_tried_again_with_the_same_limits() {
    let (server, pool) = (Server::shared().await, table("ddl_locked", 1).await);
    let report = hold(server, "SELECT * FROM ddl_locked").await;
    let limits = Mutex::new(Vec::new());
    let change = async |tx: Transaction| {
        let sql = "SELECT current_setting('lock_timeout') || ' ' || current_setting('statement_timeout')";
        let limit: String = tx.query_one(sql, &[]).await?.get(0);
        limits.lock().unwrap().push(limit);
        tx.batch_execute("ALTER TABLE ddl_locked ADD COLUMN note text").await
    };
    let ddl = pool.ddl().lock_timeout(100 * MILLISECOND).backoff(50 * MILLISECOND, 50 * MILLISECOND).attempts(3);
    let mut events = pool.events();
    let error = ddl.transaction(change).await.unwrap_err();
    for attempt in ["1 attempt,", "2 attempts,"] {
        let told = async {
            loop {
                let event = events.next().await.unwrap();
                if matches!(event.kind, EventKind::SchemaChangePostponed { .. }) {
                    break event.to_string();
                }
            }
        };
        let told = timeout(LONG, told).await.unwrap();
        let expected = format!("pool ddl_locked: a change of the schema is not done after {attempt} trying again in ");
        assert!(told.starts_with(&expected) && told.ends_with("was not free within lock_timeout"), "{told}");
    }
    assert!(error.is_lock_not_available(), "{error}");
    assert_eq!(*limits.lock().unwrap(), ["100ms 6s"; 3]);
    drop(report);
    ddl.transaction(change).await.unwrap();
    assert!(has_column(server, "ddl_locked", "note").await);
}

#[tokio::test]
async fn a_deadline_bounds_all_attempts() {
    let (server, pool) = (Server::shared().await, table("ddl_deadline", 1).await);
    let _report = hold(server, "SELECT * FROM ddl_deadline").await;
    let ddl = pool.call().deadline(SOON).ddl().lock_timeout(100 * MILLISECOND).backoff(SOON, SOON);
    let begun = Instant::now();
    let error = ddl.batch_execute("ALTER TABLE ddl_deadline ADD COLUMN note text").await.unwrap_err();
    assert!(begun.elapsed() < SOON + SOON, "{:?}", begun.elapsed());
    assert!(error.is_lock_not_available() || error.kind() == ErrorKind::QueryTimeout, "{error}");
}

/// The pool has an idle connection, and new ones get no answer.
#[tokio::test]
async fn a_deadline_bounds_the_dial_of_the_watch() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let pool = Pool::builder(server.config_at(proxy.addr())).name("ddl_late").max_size(1).build().unwrap();
    pool.warm_up(1, LONG).await.unwrap();
    proxy.stall_new();
    let begun = Instant::now();
    let ddl = pool.call().deadline(500 * MILLISECOND).ddl();
    let error = ddl.batch_execute("CREATE TABLE ddl_late (n int)").await.unwrap_err();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Connect, Effect::NotApplied), "{error}");
    proxy.resume();
    assert_eq!(pool.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
}

/// Runs a change whose work does `sql`. Returns its error, and how often the work ran.
async fn fails(pool: &Pool, sql: &str) -> (Error, u32) {
    let runs = AtomicU32::new(0);
    let ddl = pool.call().timeout(SOON).ddl().backoff(MILLISECOND, MILLISECOND).attempts(3);
    let failed = ddl.transaction(async |tx| {
        runs.fetch_add(1, SeqCst);
        tx.batch_execute(sql).await
    });
    (failed.await.unwrap_err(), runs.into_inner())
}

#[tokio::test]
async fn an_error_of_the_callers_own_is_returned_at_once() {
    let pool = table("ddl_own", 1).await;
    let (error, runs) = fails(&pool, "INSERT INTO ddl_own VALUES (1, 1)").await;
    assert!(error.is_unique_violation() && runs == 1, "{error}, {runs}");
    let (error, runs) = fails(&pool, "SELECT pg_sleep(10)").await;
    assert!(error.kind() == ErrorKind::QueryTimeout && error.effect() == Effect::NotApplied && runs == 1, "{error}");
    let (error, runs) = fails(&pool, "CREATE INDEX CONCURRENTLY ON ddl_own (n)").await;
    assert_eq!((error.sqlstate(), runs), (Some(&SqlState::ACTIVE_SQL_TRANSACTION), 1), "{error}");
    // Another transaction was in the way.
    let (error, runs) = fails(&pool, "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$").await;
    assert!(error.is_deadlock() && runs == 3, "{error}, {runs}");
}

#[tokio::test]
async fn a_cancel_by_an_administrator_is_no_reason_to_run_again() {
    let (server, pool) = (Server::shared().await, table("ddl_cancelled", 1).await);
    let runs = AtomicU32::new(0);
    let process = Mutex::new(None);
    let change = pool.ddl().transaction(async |tx| {
        runs.fetch_add(1, SeqCst);
        *process.lock().unwrap() = tx.process_id();
        tx.batch_execute("SELECT pg_sleep(4) /* ddl_cancelled */").await
    });
    let cancel = async {
        let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(4) /* ddl_cancelled%'";
        eventually("it sleeps", LONG, async || server.scalar(sleeping).await == "1").await;
        let process = process.lock().unwrap().unwrap();
        server.execute(&format!("SELECT pg_cancel_backend({process})")).await;
    };
    let (changed, ()) = tokio::join!(change, cancel);
    let changed: Result<(), Error> = changed;
    assert_eq!(changed.unwrap_err().sqlstate(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(runs.into_inner(), 1);
}

/// The work tries a lock of its own in a savepoint, and goes on without it.
#[tokio::test]
async fn a_lock_that_the_work_does_without_is_no_reason_to_run_again() {
    let (server, pool) = (Server::shared().await, table("ddl_without", 1).await);
    server.execute("CREATE TABLE ddl_other ()").await;
    let _other = hold(server, "SELECT * FROM ddl_other").await;
    let runs = AtomicU32::new(0);
    let change = async |fails: bool| {
        let work = async |tx: Transaction| {
            runs.fetch_add(1, SeqCst);
            let tried = tx.savepoint(async |tx| tx.batch_execute("LOCK TABLE ddl_other NOWAIT").await).await;
            assert!(tried.is_err_and(|error: Error| error.is_lock_not_available()));
            tx.batch_execute("ALTER TABLE ddl_without ADD COLUMN IF NOT EXISTS note text").await?;
            if fails { tx.batch_execute("SELECT 1/0").await } else { Ok(()) }
        };
        pool.ddl().backoff(MILLISECOND, MILLISECOND).transaction(work).await
    };
    change(false).await.unwrap();
    assert_eq!(change(true).await.unwrap_err().sqlstate(), Some(&SqlState::DIVISION_BY_ZERO));
    assert_eq!(runs.into_inner(), 2);
    assert!(has_column(server, "ddl_without", "note").await);
}

#[tokio::test]
async fn a_dropped_change_leaves_no_lock() {
    let (server, pool) = (Server::shared().await, table("ddl_dropped", 1).await);
    let _report = hold(server, "SELECT * FROM ddl_dropped").await;
    let change = pool.ddl().lock_timeout(LONG).batch_execute("ALTER TABLE ddl_dropped ADD COLUMN note text");
    let dropped = async {
        tokio::select! {
            changed = change => panic!("{changed:?}"),
            () = queued(server, "ddl_dropped", 1) => {}
        }
    };
    dropped.await;
    queued(server, "ddl_dropped", 0).await;
    eventually("the slot is free", LONG, async || pool.status().idle == 1).await;
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ddl_dropped'";
    eventually("only the pool's own connection is left", LONG, async || server.scalar(sessions).await == "1").await;
    assert!(!has_column(server, "ddl_dropped", "note").await);
}

/// Code that is written for the driver's own client. The pool cannot stop its statement before the lease ends.
#[tokio::test]
async fn work_through_the_deref_gives_way_too() {
    let (server, pool) = (Server::shared().await, table("ddl_deref", 1).await);
    let report = hold(server, "SELECT * FROM ddl_deref").await;
    let sql = "ALTER TABLE ddl_deref ADD COLUMN note text";
    let work = |tx: Transaction| async move { Ok::<_, Error>((**tx).batch_execute(sql).await?) };
    let change = pool.ddl().lock_timeout(LONG).attempts(1).transaction(work);
    let queue = async {
        queued(server, "ddl_deref", 1).await;
        behind(server, "SELECT * FROM ddl_deref").await.unwrap()
    };
    let (changed, waited) = tokio::join!(change, queue);
    assert!(matches!(gave_way(&changed.unwrap_err()), GiveWayReason::Waiting { .. }));
    assert!(waited < SOON, "{waited:?}");
    drop(report);
    pool.ddl().transaction(work).await.unwrap();
    assert!(has_column(server, "ddl_deref", "note").await);
}

#[tokio::test]
async fn work_that_waits_for_its_own_locks_ends() {
    let (server, pool) = (Server::shared().await, table("ddl_itself", 2).await);
    let change = pool.ddl().attempts(2).backoff(MILLISECOND, MILLISECOND).transaction(async |tx| {
        tx.batch_execute("ALTER TABLE ddl_itself ADD COLUMN note text").await?;
        // The mistake: on the pool, not on the handle.
        pool.execute("UPDATE ddl_itself SET note = 'new'", &[]).await
    });
    let error = timeout(LONG, change).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::GaveWay { attempts: 2, .. }), "{error}");
    assert!(!has_column(server, "ddl_itself", "note").await);
}

/// The work commits by hand, against the rules, and then holds a lock. It is not told that nothing was applied.
#[tokio::test]
async fn what_was_committed_by_hand_never_runs_again() {
    let (server, pool) = (Server::shared().await, table("ddl_by_hand", 1).await);
    let runs = AtomicU32::new(0);
    let locked = Notify::new();
    let change = pool.ddl().backoff(MILLISECOND, MILLISECOND).transaction(async |tx| {
        runs.fetch_add(1, SeqCst);
        tx.batch_execute("INSERT INTO ddl_by_hand VALUES (2, 0); COMMIT; BEGIN; LOCK TABLE ddl_by_hand").await?;
        locked.notify_one();
        sleep(LONG).await;
        Ok(())
    });
    let queue = async {
        locked.notified().await;
        behind(server, "SELECT * FROM ddl_by_hand").await.unwrap()
    };
    let (changed, waited) = tokio::join!(change, queue);
    let error: Error = changed.unwrap_err();
    assert!(matches!(error, Error::TransactionAborted { reason: AbortReason::EndedByHand, .. }), "{error}");
    assert_eq!((error.effect(), runs.into_inner()), (Effect::Unknown, 1));
    assert!(waited < SOON, "{waited:?}");
}

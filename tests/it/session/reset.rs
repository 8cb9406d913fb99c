//! Whatever one tenant sets never reaches the next. A session without changes costs nothing.

use std::time::Duration;

use failfast::{Client, Pool, Reset};
use tokio::sync::OnceCell;

use super::{LONG, shared};
use crate::support::proxy::{Proxy, Way};
use crate::support::{eventually, server::Server};

/// Each row names a state, the SQL that leaves it, and the query that finds it. The query returns 0 in a new session.
const STATE: [(&str, &str, &str); 17] = [
    ("a setting", "SET work_mem = '77kB'", "SELECT (current_setting('work_mem') = '77kB')::int"),
    ("a role", "SET ROLE pg_monitor", "SELECT (current_user = 'pg_monitor')::int"),
    ("a subscription", "LISTEN tenant", "SELECT count(*)::int FROM pg_listening_channels()"),
    (
        "a cursor",
        "DECLARE tenant CURSOR WITH HOLD FOR SELECT 1",
        "SELECT count(*)::int FROM pg_cursors WHERE name = 'tenant'",
    ),
    ("a temporary table", "CREATE TEMPORARY TABLE tenant (id int)", TEMPORARY),
    ("one made by SELECT", "SELECT 1 AS one INTO TEMP tenant", TEMPORARY),
    ("one made by CREATE TABLE AS", "CREATE TEMP TABLE tenant AS SELECT 1 AS one", TEMPORARY),
    ("one in the schema of temporary objects", "CREATE TABLE pg_temp.tenant (id int)", TEMPORARY),
    ("a time zone", "SET TIME ZONE 'Asia/Tokyo'", "SELECT (current_setting('TimeZone') = 'Asia/Tokyo')::int"),
    ("an advisory lock", "SELECT pg_advisory_lock(4711)", LOCKS),
    ("an advisory lock that was tried", "SELECT pg_try_advisory_lock_shared(4711)", LOCKS),
    ("a setting made by set_config", "SELECT set_config('app.tenant', 'a', false)", TENANT),
    (
        "a role made by set_config",
        "SELECT set_config('role', 'pg_monitor', false)",
        "SELECT (current_user = 'pg_monitor')::int",
    ),
    ("a setting made in DO", "DO $$ BEGIN SET app.tenant = 'a'; END $$", TENANT),
    ("a setting made by a procedure", "CALL reset_tests_set_tenant()", TENANT),
    ("a prepared statement", "PREPARE tenant AS SELECT 1", PREPARED),
    ("one prepared in DO", "DO $$ BEGIN EXECUTE 'PREPARE tenant AS SELECT 1'; END $$", PREPARED),
];

/// Only [`Reset::Always`] undoes these, because they are the work of functions whose names show nothing.
const UNSEEN: [(&str, &str, &str); 3] = [
    ("a lock in a function", "SELECT reset_tests_lock()", LOCKS),
    ("a setting in a function", "SELECT reset_tests_tenant()", TENANT),
    ("a prepared statement in a function", "SELECT reset_tests_prepare()", PREPARED),
];

const TEMPORARY: &str =
    "SELECT count(*)::int FROM pg_class WHERE relname = 'tenant' AND relnamespace = pg_my_temp_schema()";
const LOCKS: &str = "SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
const TENANT: &str = "SELECT (coalesce(current_setting('app.tenant', true), '') = 'a')::int";
const PREPARED: &str = "SELECT count(*)::int FROM pg_prepared_statements WHERE name = 'tenant'";

/// Creates the procedure and the functions for those rows.
async fn define() {
    static ONCE: OnceCell<()> = OnceCell::const_new();
    let functions = "
        CREATE PROCEDURE reset_tests_set_tenant() LANGUAGE plpgsql AS $$ BEGIN SET app.tenant = 'a'; END $$;
        CREATE FUNCTION reset_tests_tenant() RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.tenant', 'a', false) $$;
        CREATE FUNCTION reset_tests_lock() RETURNS void LANGUAGE sql AS $$ SELECT pg_advisory_lock(4712) $$;
        CREATE FUNCTION reset_tests_prepare() RETURNS void LANGUAGE plpgsql AS
            $$ BEGIN EXECUTE 'PREPARE tenant AS SELECT 1'; END $$";
    ONCE.get_or_init(async || Server::shared().await.execute(functions).await).await;
}

async fn pool(name: &str, reset: Reset) -> Pool {
    define().await;
    shared(name).await.max_size(1).reset(reset).build().unwrap()
}

async fn get(pool: &Pool) -> Client {
    pool.get_timeout(LONG).await.unwrap()
}

/// Finds the state by a tracked call that changes nothing itself.
async fn look(client: &Client, how: &str) -> i32 {
    client.query_one(how, &[]).await.unwrap().get(0)
}

/// Runs `leave` as one tenant, and `how` as the next, on the same connection.
async fn what_is_left(pool: &Pool, is_tracked: bool, (what, leave, how): (&str, &str, &str)) -> i32 {
    let tenant = get(pool).await;
    let pid = tenant.process_id();
    if is_tracked {
        tenant.batch_execute(leave).await.unwrap();
        assert_eq!(look(&tenant, how).await, 1, "{what}");
    } else {
        (*tenant).batch_execute(leave).await.unwrap();
    }
    drop(tenant);
    let next = get(pool).await;
    assert_eq!(next.process_id(), pid, "{what}: the pool closed the connection");
    look(&next, how).await
}

#[tokio::test]
async fn a_seen_change_does_not_reach_the_next_caller() {
    let pool = pool("when_seen", Reset::WhenSeen).await;
    for state in STATE {
        assert_eq!(what_is_left(&pool, true, state).await, 0, "{}", state.0);
    }
}

#[tokio::test]
async fn a_change_through_the_deref_does_not_reach_the_next_caller() {
    let pool = pool("through_the_deref", Reset::WhenSeen).await;
    for state in STATE {
        assert_eq!(what_is_left(&pool, false, state).await, 0, "{}", state.0);
    }
}

#[tokio::test]
async fn always_undoes_the_work_of_functions() {
    let pool = pool("always", Reset::Always).await;
    for state in STATE.into_iter().chain(UNSEEN) {
        assert_eq!(what_is_left(&pool, true, state).await, 0, "{}", state.0);
        assert_eq!(what_is_left(&pool, false, state).await, 0, "{}", state.0);
    }
}

/// As documented: `Never` is for services that never change a session.
#[tokio::test]
async fn never_keeps_every_change() {
    let pool = pool("never", Reset::Never).await;
    for state in [STATE[0], STATE[2], STATE[4], STATE[9], STATE[15], UNSEEN[1]] {
        assert_eq!(what_is_left(&pool, true, state).await, 1, "{}", state.0);
    }
}

/// As documented: `WhenSeen` does not notice the work of functions.
#[tokio::test]
async fn when_seen_does_not_notice_the_work_of_functions() {
    for (number, state) in UNSEEN.into_iter().enumerate() {
        for is_tracked in [true, false] {
            let pool = pool(&format!("not_seen_{number}_{is_tracked}"), Reset::WhenSeen).await;
            assert_eq!(what_is_left(&pool, is_tracked, state).await, 1, "{}", state.0);
        }
    }
}

/// Row-level security with one tenant per transaction. The connection goes straight to the next caller.
#[tokio::test]
async fn changes_that_end_with_their_transaction_cost_nothing() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let pool = Pool::builder(server.config_at(proxy.addr())).name("taken_back").max_size(1).build().unwrap();
    drop(get(&pool).await);
    let sent_by = async |statements: &[&str]| {
        let before = proxy.bytes(Way::ToServer);
        let tx = get(&pool).await.transaction().await.unwrap();
        for sql in statements {
            tx.batch_execute(sql).await.unwrap();
        }
        tx.commit().await.unwrap();
        assert_eq!((pool.status().idle, pool.status().settling), (1, 0), "{statements:?}: not at once");
        // A Query message has six bytes beside its text.
        let written: usize = statements.iter().chain(&["BEGIN", "COMMIT"]).map(|sql| sql.len() + 6).sum();
        let get_all = async || proxy.bytes(Way::ToServer) - before == written as u64;
        eventually("the pool sends only the caller's statements", LONG, get_all).await;
    };
    sent_by(&["SELECT 1"]).await;
    for sql in [
        "SET LOCAL app.tenant = 'a'",
        "SET LOCAL TimeZone = 'Asia/Tokyo'",
        "SET TRANSACTION READ ONLY",
        "SET CONSTRAINTS ALL DEFERRED",
        "DECLARE c CURSOR FOR SELECT 1",
        "SELECT set_config('app.tenant', 'a', true)",
        "SELECT pg_advisory_xact_lock(7)",
    ] {
        sent_by(&[sql, "SELECT 1"]).await;
        sent_by(&["SAVEPOINT a", sql, "ROLLBACK TO SAVEPOINT a"]).await;
    }
    assert_eq!(look(&get(&pool).await, TENANT).await, 0);
}

#[tokio::test]
async fn the_next_caller_can_prepare_the_same_name() {
    for reset in [Reset::WhenSeen, Reset::Always] {
        let pool = pool(&format!("prepared_{reset:?}"), reset).await;
        let kept = get(&pool).await;
        // The pool's own statements stay.
        kept.query_one("SELECT 40 + $1::int", &[&2]).await.unwrap();
        drop(kept);
        for _ in 0..3 {
            pool.batch_execute("PREPARE p AS SELECT 1; PREPARE \"odd; name\" AS SELECT 2").await.unwrap();
        }
        let client = get(&pool).await;
        assert_eq!(client.query_one("SELECT 40 + $1::int", &[&2]).await.unwrap().get::<_, i32>(0), 42);
        let prepared =
            "SELECT count(*) FILTER (WHERE from_sql)::int, count(*) FILTER (WHERE statement LIKE 'SELECT 40%')::int
            FROM pg_prepared_statements";
        let row = client.query_typed(prepared, &[]).await.unwrap();
        assert_eq!((row[0].get::<_, i32>(0), row[0].get::<_, i32>(1)), (0, 1), "{reset:?}");
    }
}

/// The driver never took the dropped request, so the wire had not seen it yet. The pool still finds it.
#[tokio::test]
async fn a_request_dropped_before_it_was_sent_does_not_reach_the_next_caller() {
    let pool = pool("dropped_unsent", Reset::WhenSeen).await;
    for _ in 0..200 {
        let client = get(&pool).await;
        {
            let mut set = std::pin::pin!((*client).batch_execute("BEGIN; SET app.tenant = 'a'"));
            assert!(futures_util::poll!(&mut set).is_pending());
        }
        drop(client);
        let next = get(&pool).await;
        assert_eq!(look(&next, TENANT).await, 0);
        next.batch_execute("COMMIT").await.unwrap();
    }
}

#[tokio::test]
async fn every_way_to_change_a_setting_is_seen() {
    const SET: &str = "SET TIME ZONE 'Asia/Tokyo'";
    let pool = pool("wherever", Reset::WhenSeen).await;
    for way in 0..4 {
        match way {
            0 => pool.batch_execute(&format!("SELECT 1; {SET}; SELECT 2")).await.unwrap(),
            1 => _ = pool.execute(SET, &[]).await.unwrap(),
            2 => _ = pool.query("SELECT set_config('TimeZone', $1, false)", &[&"Asia/Tokyo"]).await.unwrap(),
            _ => {
                let tx = get(&pool).await.transaction().await.unwrap();
                tx.batch_execute(SET).await.unwrap();
                tx.commit().await.unwrap();
            }
        }
        let zone = "SELECT (current_setting('TimeZone') = 'Asia/Tokyo')::int";
        assert_eq!(look(&get(&pool).await, zone).await, 0, "way {way}");
    }
}

/// The next tenant must not have less than the hook gives it, even if the server does not report the change.
#[tokio::test]
async fn settings_of_the_hook_survive_a_reset() {
    let hook = "SET work_mem = '99kB'; LISTEN owner";
    let left = "SELECT current_setting('work_mem'), (SELECT count(*) FROM pg_listening_channels())";
    for (reset, is_tracked) in [(Reset::WhenSeen, true), (Reset::WhenSeen, false), (Reset::Always, true)] {
        let builder = shared("hook_survives").await.max_size(1).reset(reset);
        let pool = builder.after_connect(|client| Box::pin(client.batch_execute(hook))).build().unwrap();
        for leave in ["SET work_mem = '77kB'", "RESET ALL", "RESET work_mem", "DISCARD ALL", "UNLISTEN *"] {
            let tenant = get(&pool).await;
            let pid = tenant.process_id();
            if is_tracked {
                tenant.batch_execute(leave).await.unwrap();
            } else {
                (*tenant).batch_execute(leave).await.unwrap();
            }
            drop(tenant);
            let next = get(&pool).await;
            assert_eq!(next.process_id(), pid);
            let row = next.query_one(left, &[]).await.unwrap();
            assert_eq!((row.get(0), row.get(1)), ("99kB", 1_i64), "{leave}, {reset:?}, tracked: {is_tracked}");
        }
    }
}

#[tokio::test]
async fn a_clean_connection_goes_back_at_no_cost() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let builder = Pool::builder(server.config_at(proxy.addr())).name("no_cost").max_size(1);
    let pool = builder.after_connect(|client| Box::pin(client.batch_execute("SET jit = off"))).build().unwrap();
    for way in 0..4 {
        let client = get(&pool).await;
        match way {
            0 => drop(client.query_one("SELECT $1::int4", &[&1]).await.unwrap()),
            1 => client.batch_execute("BEGIN; SELECT 1; COMMIT").await.unwrap(),
            2 => assert!(client.query("SELECT 1/0", &[]).await.is_err()),
            _ => {}
        }
        // The driver sends a message of its own when a statement is dropped. It may still be under way.
        eventually("nothing is being sent", LONG, async || {
            let sent = proxy.bytes(Way::ToServer);
            tokio::time::sleep(Duration::from_millis(20)).await;
            sent == proxy.bytes(Way::ToServer)
        })
        .await;
        let sent = proxy.bytes(Way::ToServer);
        drop(client);
        assert_eq!((pool.status().idle, pool.status().settling), (1, 0), "way {way}: not at once");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(proxy.bytes(Way::ToServer), sent, "way {way}: the pool sent something");
    }
}

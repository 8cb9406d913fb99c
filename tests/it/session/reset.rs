//! What one tenant sets never reaches the next; and a session that nobody has changed costs nothing.

use std::time::Duration;

use failfast::{Client, Pool, Reset};

use super::{LONG, shared};
use crate::support::proxy::{Proxy, Way};
use crate::support::{eventually, server::Server};

/// Leaves one of each, and says how to look for it. What is looked for is 0 in a session as it begins.
const STATE: [(&str, &str, &str); 6] = [
    ("a setting", "SET work_mem = '77kB'", "SELECT (current_setting('work_mem') = '77kB')::int"),
    ("a role", "SET ROLE pg_monitor", "SELECT (current_user = 'pg_monitor')::int"),
    ("a subscription", "LISTEN tenant", "SELECT count(*)::int FROM pg_listening_channels()"),
    (
        "a cursor",
        "DECLARE tenant CURSOR WITH HOLD FOR SELECT 1",
        "SELECT count(*)::int FROM pg_cursors WHERE name = 'tenant'",
    ),
    (
        "a temporary table",
        "CREATE TEMPORARY TABLE tenant (id int)",
        "SELECT count(*)::int FROM pg_class WHERE relname = 'tenant' AND relnamespace = pg_my_temp_schema()",
    ),
    ("a time zone", "SET TIME ZONE 'Asia/Tokyo'", "SELECT (current_setting('TimeZone') = 'Asia/Tokyo')::int"),
];

/// What only [`Reset::Always`] undoes if it was done by tracked calls: functions leave no tag.
const UNSEEN: [(&str, &str, &str); 2] = [
    (
        "an advisory lock",
        "SELECT pg_advisory_lock(4711)",
        "SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    ),
    (
        "a setting made by a function",
        "SELECT set_config('work_mem', '88kB', false)",
        "SELECT (current_setting('work_mem') = '88kB')::int",
    ),
];

async fn pool(name: &str, reset: Reset) -> Pool {
    shared(name).await.max_size(1).reset(reset).build().unwrap()
}

async fn get(pool: &Pool) -> Client {
    pool.get_timeout(LONG).await.unwrap()
}

/// By a tracked call, which changes nothing itself.
async fn look(client: &Client, how: &str) -> i32 {
    client.query_one(how, &[]).await.unwrap().get(0)
}

/// Runs `leave` as one tenant, and looks as the next. On the same connection.
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
    assert_eq!(next.process_id(), pid, "{what}: the connection was kept");
    look(&next, how).await
}

#[tokio::test]
async fn what_was_seen_reaches_nobody() {
    let pool = pool("when_seen", Reset::WhenSeen).await;
    for state in STATE {
        assert_eq!(what_is_left(&pool, true, state).await, 0, "{}", state.0);
    }
}

#[tokio::test]
async fn whatever_was_done_through_the_deref_reaches_nobody() {
    let pool = pool("through_the_deref", Reset::WhenSeen).await;
    for state in STATE.into_iter().chain(UNSEEN) {
        assert_eq!(what_is_left(&pool, false, state).await, 0, "{}", state.0);
    }
}

#[tokio::test]
async fn always_undoes_what_functions_did() {
    let pool = pool("always", Reset::Always).await;
    for state in STATE.into_iter().chain(UNSEEN) {
        assert_eq!(what_is_left(&pool, true, state).await, 0, "{}", state.0);
        assert_eq!(what_is_left(&pool, false, state).await, 0, "{}", state.0);
    }
}

/// As documented: it is for services that never change a session.
#[tokio::test]
async fn never_keeps_it_all() {
    let pool = pool("never", Reset::Never).await;
    for state in STATE.into_iter().filter(|(what, ..)| *what != "a role") {
        assert_eq!(what_is_left(&pool, true, state).await, 1, "{}", state.0);
    }
    for state in UNSEEN {
        assert_eq!(what_is_left(&pool, false, state).await, 1, "{}", state.0);
    }
}

/// As documented: what functions do within a tracked statement is not seen.
#[tokio::test]
async fn when_seen_does_not_see_into_functions() {
    let pool = pool("not_seen", Reset::WhenSeen).await;
    for state in UNSEEN {
        assert_eq!(what_is_left(&pool, true, state).await, 1, "{}", state.0);
    }
}

#[tokio::test]
async fn a_setting_is_seen_wherever_it_is_made() {
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

/// Also where the next tenant would have less than it should, and the server tells of no change.
#[tokio::test]
async fn what_the_hook_sets_survives() {
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
async fn a_clean_connection_goes_straight_back_at_no_cost() {
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
        // What the driver says by itself, when a statement is dropped, is under way.
        eventually("nothing is sent", LONG, async || {
            let sent = proxy.bytes(Way::ToServer);
            tokio::time::sleep(Duration::from_millis(20)).await;
            sent == proxy.bytes(Way::ToServer)
        })
        .await;
        let sent = proxy.bytes(Way::ToServer);
        drop(client);
        assert_eq!((pool.status().idle, pool.status().settling), (1, 0), "way {way}: at once");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(proxy.bytes(Way::ToServer), sent, "way {way}: not a byte");
    }
}

//! Two tenants on one pool act at random. Whatever a session leaves, and in whatever way, the next one begins like a
//! new session.

use failfast::{Client, Pool, Reset};
use fastrand::Rng;
use futures_util::future::join_all;

use super::{LONG, shared};
use crate::support::server::Server;

/// Returns the names of what an earlier tenant left.
const LEFT: &str = "SELECT array_remove(ARRAY[
    CASE WHEN coalesce(current_setting('app.tenant', true), '') <> '' THEN 'setting' END,
    CASE WHEN current_user <> session_user THEN 'role' END,
    CASE WHEN current_setting('TimeZone') = 'Asia/Tokyo' THEN 'time zone' END,
    CASE WHEN EXISTS (SELECT FROM pg_listening_channels()) THEN 'subscription' END,
    CASE WHEN EXISTS (SELECT FROM pg_cursors WHERE is_holdable) THEN 'cursor' END,
    CASE WHEN EXISTS (SELECT FROM pg_class WHERE relnamespace = pg_my_temp_schema()) THEN 'temporary table' END,
    CASE WHEN EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) THEN 'lock' END,
    CASE WHEN EXISTS (SELECT FROM pg_prepared_statements WHERE from_sql) THEN 'prepared statement' END
], NULL)::text[]";

/// Actions of a tenant. `$` stands for its name, `#` for a number.
const ACTIONS: [&str; 16] = [
    "SET app.tenant = '$'",
    "SET LOCAL app.tenant = '$'",
    "SELECT set_config('app.tenant', '$', false)",
    "SELECT set_config('app.tenant', '$', true)",
    "SELECT set_config('role', 'pg_monitor', false)",
    "SET ROLE pg_monitor",
    "SET LOCAL ROLE pg_monitor",
    "SET TIME ZONE 'Asia/Tokyo'",
    "SET LOCAL TIME ZONE 'Asia/Tokyo'",
    "PREPARE $_# AS SELECT 1",
    "LISTEN $",
    "DECLARE $_# CURSOR WITH HOLD FOR SELECT 1",
    "CREATE TEMP TABLE $_# (id int)",
    "SELECT 1 AS one INTO TEMPORARY $_#",
    "SELECT pg_advisory_lock(#)",
    "CALL tenants_set('$')",
];

/// How an action is run.
#[derive(Debug, Clone, Copy)]
enum Way {
    Tracked,
    Cached,
    Deref,
    Do,
    Committed,
    RolledBack,
    Dropped,
    Unfinished,
}

const WAYS: [Way; 8] =
    [Way::Tracked, Way::Cached, Way::Deref, Way::Do, Way::Committed, Way::RolledBack, Way::Dropped, Way::Unfinished];

/// Some actions fail, which is part of the test.
async fn act(client: Client, way: Way, sql: &str) -> Option<Client> {
    match way {
        Way::Tracked => drop(client.batch_execute(sql).await),
        Way::Cached => drop(client.execute(sql, &[]).await),
        Way::Deref => drop((*client).batch_execute(sql).await),
        Way::Do => drop(client.batch_execute(&format!("DO $do$ BEGIN EXECUTE $sql${sql}$sql$; END $do$")).await),
        Way::Committed | Way::RolledBack | Way::Dropped => {
            let tx = client.transaction().await.unwrap();
            let _ = tx.batch_execute(sql).await;
            match way {
                Way::Committed => drop(tx.commit().await),
                Way::RolledBack => tx.rollback().await,
                _ => drop(tx),
            }
            return None;
        }
        Way::Unfinished => {
            let work = std::pin::pin!((*client).batch_execute(sql));
            let _ = futures_util::poll!(work);
            return None;
        }
    }
    Some(client)
}

async fn live(pool: &Pool, seed: u64, sessions: u64) {
    for session in 0..sessions {
        let seed = seed << 32 | session;
        let mut rng = Rng::with_seed(seed);
        let mut client = Some(pool.get_timeout(LONG).await.unwrap());
        let left: Vec<String> = client.as_ref().unwrap().query_one(LEFT, &[]).await.unwrap().get(0);
        assert!(left.is_empty(), "session {seed}: {left:?} is left of an earlier session");
        for _ in 0..rng.u32(1..4) {
            let (action, way) = (ACTIONS[rng.usize(..ACTIONS.len())], WAYS[rng.usize(..WAYS.len())]);
            let tenant = if rng.bool() { "ann" } else { "bob" };
            let sql = action.replace('$', tenant).replace('#', &rng.u32(1..1_000_000).to_string());
            client = match client {
                Some(client) => act(client, way, &sql).await,
                None => break,
            };
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tenant_finds_the_state_of_another() {
    let procedure = "CREATE PROCEDURE tenants_set(tenant text) LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('app.tenant', tenant, false); END $$";
    Server::shared().await.execute(procedure).await;
    let sessions: u64 =
        std::env::var("FAILFAST_SESSIONS").map_or(1_000, |sessions| sessions.parse().expect("a number"));
    for reset in [Reset::WhenSeen, Reset::Always] {
        let pool = shared(&format!("tenants_{reset:?}")).await.max_size(3).reset(reset).build().unwrap();
        join_all((0..4).map(|task| live(&pool, fastrand::u64(..1 << 20) << 2 | task, sessions / 8))).await;
        assert!(pool.status().in_use <= 3);
    }
}

//! Several pools of one process, each a member by itself.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use failfast::{Client, Event, FleetConfig, FleetState, Pool};
use futures_util::future::join_all;

use super::{SECOND, as_app, fleet, is_sharing, member, refusals, small_server};
use crate::pool::LONG;
use crate::support::eventually;

/// A connection of the test itself that a busy machine closes late counts as a stranger's for a minute.
const WITH_LATE_STRANGERS: Duration = Duration::from_secs(90);

/// Holds so many connections, as they come.
fn hold(pool: &Pool, connections: usize) -> tokio::task::JoinHandle<Vec<Client>> {
    let pool = pool.clone();
    tokio::spawn(async move {
        let get = || async { pool.get_timeout(60 * SECOND).await };
        join_all((0..connections).map(|_| get())).await.into_iter().filter_map(Result::ok).collect()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_busy_pools_get_equal_parts_and_a_quiet_one_its_minimum() {
    let server = small_server("50").await;
    let pools: Vec<_> = (0..3).map(|_| member(as_app(&server)).build().unwrap()).collect();
    assert_eq!(fleet(&pools[0]).granted, 1, "a newcomer lives on its minimum");
    eventually("they see one another", LONG, async || pools.iter().all(|pool| is_sharing(pool, 3))).await;
    let holding = [hold(&pools[0], 40), hold(&pools[1], 40)];
    // 50, less 3 that are reserved, 5 of headroom, 3 beacons: 39.
    eventually("both have equal parts", WITH_LATE_STRANGERS, async || {
        let granted: Vec<_> = pools.iter().map(|pool| fleet(pool).granted).collect();
        granted[0].abs_diff(granted[1]) <= 1
            && granted[2] <= 2
            && granted.iter().sum::<usize>() >= 38
            && fleet(&pools[0]).capacity == Some(39)
    })
    .await;
    eventually("and use them", LONG, async || pools[0].status().in_use + pools[1].status().in_use >= 37).await;
    assert_eq!(refusals(&server).await, 0);
    holding.into_iter().for_each(|held| held.abort());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_its_connections_and_an_event_says_so() {
    let server = small_server("50").await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let saw = Arc::clone(&seen);
    let observer = move |event: &Event| saw.lock().unwrap().push((event.kind.as_str(), event.to_string()));
    let pool = member(as_app(&server)).observer(observer).build().unwrap();
    eventually("the pool is a member", LONG, async || is_sharing(&pool, 1)).await;
    let busy = pool.clone();
    let load = tokio::spawn(async move {
        loop {
            let _ = join_all((0..40).map(|_| busy.execute("SELECT pg_sleep(0.05)", &[]))).await;
        }
    });
    eventually("it uses nearly all", WITH_LATE_STRANGERS, async || fleet(&pool).granted >= 38).await;
    let (begun, mut strangers) = (Instant::now(), Vec::new());
    while strangers.len() < 20 {
        match as_app(&server).connect(tokio_postgres::NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                strangers.push(client);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    println!("20 connections of strangers after {:.1?}", begun.elapsed());
    assert!(begun.elapsed() < LONG, "it took {:?}", begun.elapsed());
    let is_reported = |name: &str| seen.lock().unwrap().iter().any(|(kind, _)| *kind == name);
    eventually("strangers are reported", LONG, async || is_reported("fleet_strangers")).await;
    eventually("the budget is reported as short", LONG, async || is_reported("fleet_short")).await;
    eventually("they count", WITH_LATE_STRANGERS, async || fleet(&pool).strangers == 20).await;
    load.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_a_role_is_divided_too() {
    let server = small_server("100").await;
    server.execute("ALTER ROLE app CONNECTION LIMIT 20").await;
    let pools: Vec<_> =
        (0..2).map(|_| member(as_app(&server)).fleet(FleetConfig::new("shop").headroom(4)).build().unwrap()).collect();
    eventually("they see one another", LONG, async || pools.iter().all(|pool| is_sharing(pool, 2))).await;
    let holding = [hold(&pools[0], 40), hold(&pools[1], 40)];
    // 20, less 4 of headroom and 2 beacons.
    eventually("each has a half", LONG, async || pools.iter().all(|pool| fleet(pool).granted == 7)).await;
    assert_eq!(fleet(&pools[0]).capacity, Some(14));
    assert_eq!(refusals(&server).await, 0);
    holding.into_iter().for_each(|held| held.abort());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_pool_hands_its_share_over_and_a_resized_one_keeps_its_limit() {
    let server = small_server("50").await;
    let [leaving, staying] = [(); 2].map(|()| member(as_app(&server)).build().unwrap());
    eventually("they see one another", LONG, async || is_sharing(&leaving, 2) && is_sharing(&staying, 2)).await;
    let last = leaving.get().await.unwrap();
    let draining = leaving.clone();
    let drained = tokio::spawn(async move { draining.drain(LONG).await });
    let holding = hold(&staying, 40);
    eventually("the other gets its share", LONG, async || fleet(&staying).granted >= 38).await;
    assert_eq!(fleet(&leaving).state, FleetState::Draining);
    drop(last);
    assert_eq!(drained.await.unwrap(), 0);
    staying.resize(10).unwrap();
    eventually("the owner's limit holds", LONG, async || fleet(&staying).granted == 10).await;
    assert_eq!(fleet(&staying).max_size, 10);
    eventually("the beacon of the other is gone", LONG, async || fleet(&staying).members == 1).await;
    holding.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_beacons_are_strangers() {
    let server = small_server("50").await;
    let pool = member(as_app(&server)).build().unwrap();
    eventually("the pool is a member", LONG, async || is_sharing(&pool, 1)).await;
    let mut forgers = Vec::new();
    for name in ["ff1 shop", "ff1 shop x w9 g9", "ff1 shop x w1 g1 h99999999999999 m1", "ff1 other x w9 g9 h9 m9"] {
        let mut config = as_app(&server);
        let (client, connection) = config.application_name(name).connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        forgers.push(client);
    }
    eventually("they count as strangers", LONG, async || fleet(&pool).strangers == forgers.len()).await;
    assert!(is_sharing(&pool, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_connection_is_killed_comes_back_and_keeps_what_it_has() {
    let server = small_server("50").await;
    let pool = member(as_app(&server)).build().unwrap();
    eventually("the pool is a member", LONG, async || is_sharing(&pool, 1)).await;
    let holding = hold(&pool, 20);
    let held = holding.await.unwrap();
    assert_eq!(held.len(), 20);
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'ff1 shop %'";
    server.execute(kill).await;
    eventually("it joins again", LONG, async || fleet(&pool).state == FleetState::Joining).await;
    assert!(fleet(&pool).granted >= 20);
    eventually("it is a member again", LONG, async || is_sharing(&pool, 1)).await;
    assert!(fleet(&pool).granted >= 20);
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vanished_client_is_noticed_by_the_server() {
    let server = small_server("50").await;
    let pool = member(as_app(&server)).build().unwrap();
    let idle = pool.simple_query("SHOW tcp_keepalives_idle").await.unwrap();
    let row = idle.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    assert_eq!(row.as_deref(), Some("10"));
    let mut config = as_app(&server);
    config.options("-c tcp_keepalives_idle=77");
    let own = member(config).build().unwrap();
    let row = own.query_one("SELECT current_setting('tcp_keepalives_idle')", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "77", "the owner's options win");
}

#[tokio::test]
async fn settings_out_of_range_are_refused_by_name() {
    let build = |fleet: FleetConfig| {
        let config = "host=localhost user=app".parse().unwrap();
        Pool::builder(config).max_size(5).fleet(fleet).build().unwrap_err().to_string()
    };
    let rule = "must be 1 to 15 characters of a to z, 0 to 9, - and _";
    assert_eq!(build(FleetConfig::new("")), format!("fleet.name = \"\": {rule}"));
    assert_eq!(build(FleetConfig::new("Shop'")), format!("fleet.name = \"Shop'\": {rule}"));
    assert_eq!(build(FleetConfig::new("shop").minimum(6)), "fleet.minimum = 6: must be 1 to 5");
    assert_eq!(build(FleetConfig::new("shop").headroom(300_000)), "fleet.headroom = 300000: must be 0 to 262143");
}

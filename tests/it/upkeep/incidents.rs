//! Replays incidents on a real server. The pool must report each one before it refuses the first caller.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use failfast::{Error, Event, EventKind, Operation, Pool, PoolBuilder};
use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::LONG;
use crate::support::server::Server;

const SEED: u64 = 7;
const CONNECTIONS: usize = 50;
/// How long each call holds its connection, in seconds. Long holds keep the load of the server low.
const HOLD: f64 = 0.2;

/// The events, each with its time.
type Told = Arc<Mutex<Vec<(Instant, Event)>>>;

fn watched(server: &Server, name: &str) -> (PoolBuilder, Told) {
    let told = Told::default();
    let log = Arc::clone(&told);
    let builder = Pool::builder(server.config()).name(name).max_size(CONNECTIONS);
    (builder.observer(move |event: &Event| log.lock().unwrap().push((Instant::now(), event.clone()))), told)
}

/// Makes calls at random times, at a rate that changes. It does not wait for their results.
async fn arrivals(begun: Instant, length: Duration, rate: impl Fn(f64) -> f64, mut call: impl FnMut(f64)) {
    let (mut random, mut at) = (Rng::with_seed(SEED), 0.0);
    while at < length.as_secs_f64() {
        at += -random.f64().max(1e-9).ln() / rate(at);
        sleep_until((begun + Duration::from_secs_f64(at)).into()).await;
        call(at);
    }
}

fn when(told: &Told, begun: Instant, is: impl Fn(&EventKind) -> bool) -> Option<f64> {
    let told = told.lock().unwrap();
    told.iter().find(|(_, event)| is(&event.kind)).map(|(at, _)| (*at - begun).as_secs_f64())
}

/// The load grows from 0.6 times what the pool can serve to 3 times within a minute.
#[tokio::test(flavor = "multi_thread")]
async fn incident_a_is_reported_before_the_first_refusal() {
    let server = Server::own(&[("max_connections", "100")]).await;
    let (builder, told) = watched(&server, "incident_a");
    let pool = builder.build().unwrap();
    pool.warm_up(CONNECTIONS, LONG).await.unwrap();
    let first_refusal = Arc::new(AtomicU64::new(0));
    let (begun, mut calls) = (Instant::now(), JoinSet::new());
    let capacity = CONNECTIONS as f64 / HOLD;
    let rate = |at: f64| capacity * (0.6 + 2.4 * at / 60.0);
    arrivals(begun, Duration::from_secs(22), rate, |at| {
        let (pool, first_refusal) = (pool.clone(), Arc::clone(&first_refusal));
        calls.spawn(async move {
            let result = pool.query_one("SELECT pg_sleep($1)", &[&HOLD]).await;
            if let Err(Error::Shed { .. } | Error::AcquireTimeout { .. }) = result {
                let _ = first_refusal.compare_exchange(0, (at * 1e3) as u64 + 1, SeqCst, SeqCst);
            }
        });
    })
    .await;
    calls.join_all().await;
    let refused = first_refusal.load(SeqCst) as f64 / 1e3;
    assert!(refused > 0.0, "the pool refused no caller");
    let high = when(&told, begun, |kind| matches!(kind, EventKind::UtilizationHigh { .. }));
    let predicted = when(&told, begun, |kind| matches!(kind, EventKind::ExhaustionPredicted { .. }));
    let lines: Vec<_> = told.lock().unwrap().iter().map(|(_, event)| event.to_string()).collect();
    let (high, predicted) = (high.expect("80%"), predicted.expect("the prediction"));
    println!(
        "incident A, seed {SEED}: predicted after {predicted:.1} s, 80% after {high:.1} s, first refusal after {refused:.1} s"
    );
    println!("{lines:#?}");
    assert!(high < refused && predicted < refused, "{high}, {predicted}, {refused}: {lines:#?}");
}

/// One of five operations becomes nine times slower.
#[tokio::test(flavor = "multi_thread")]
async fn incident_b_first_names_the_slow_operation() {
    const NAMES: [&str; 5] = ["load_dashboard", "find_order", "list_items", "save_cart", "sign_in"];
    const DEPLOYED: f64 = 15.0;
    let server = Server::own(&[("max_connections", "100")]).await;
    let (builder, told) = watched(&server, "incident_b");
    let pool = builder.build().unwrap();
    pool.warm_up(CONNECTIONS, LONG).await.unwrap();
    let (begun, mut calls) = (Instant::now(), JoinSet::new());
    let mut random = Rng::with_seed(SEED);
    let rate = 0.6 * CONNECTIONS as f64 / HOLD;
    arrivals(
        begun,
        Duration::from_secs(24),
        |_| rate,
        |at| {
            let (pool, operation) = (pool.clone(), random.usize(..5));
            let slower = if operation == 2 && at >= DEPLOYED { 9.0 } else { 1.0 };
            let hold = HOLD * slower * (0.8 + 0.4 * random.f64());
            calls.spawn(async move {
                let _ = pool.call().name(NAMES[operation]).query_one("SELECT pg_sleep($1)", &[&hold]).await;
            });
        },
    )
    .await;
    calls.join_all().await;
    let told = told.lock().unwrap();
    let told: Vec<_> = told.iter().filter(|(at, _)| (*at - begun).as_secs_f64() >= DEPLOYED).collect();
    let lines: Vec<_> = told.iter().map(|(_, event)| event.to_string()).collect();
    let (at, first) = told.first().expect("the pool reported nothing");
    let after = (*at - begun).as_secs_f64() - DEPLOYED;
    println!("incident B, seed {SEED}: after {after:.1} s: {first}");
    let is_it = matches!(first.kind, EventKind::LeasesInflated { operation: Operation::Named("list_items"), .. });
    assert!(is_it, "{lines:#?}");
}

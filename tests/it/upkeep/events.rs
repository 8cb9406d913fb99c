//! Events of the pool.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use failfast::{Error, Event, EventKind, NotReady, Pool, PoolBuilder, Severity};
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::{LONG, shared};
use crate::support::{eventually, proxy::Proxy, server::Server};

/// An observer that keeps every event.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Event>>>);

impl Log {
    fn observes(&self, builder: PoolBuilder) -> PoolBuilder {
        let events = Arc::clone(&self.0);
        builder.observer(move |event: &Event| events.lock().unwrap().push(event.clone()))
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(Event::to_string).collect()
    }

    /// Returns how many lines have this text in them.
    fn count(&self, part: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(part)).count()
    }

    async fn tells(&self, part: &str) {
        eventually(part, LONG, async || self.count(part) > 0).await;
    }
}

#[tokio::test]
async fn the_start_and_every_order_are_reported_with_place_and_reason() {
    let log = Log::default();
    let pool = log.observes(shared("ordered").await.max_size(3)).build().unwrap();
    assert!(log.lines()[0].starts_with("pool ordered: started: max_size 3, min_idle 0,"), "{:?}", log.lines());
    let mut events = pool.events();
    let line = line!() + 1;
    pool.because("a larger machine").resize(5).unwrap();
    pool.flush();
    pool.breaker().force_open("maintenance");
    pool.breaker().reset("done");
    assert_eq!(pool.because("SIGTERM").drain(LONG).await, 0);
    let lines = log.lines().split_off(1);
    let expected = [
        format!("resized from 3 to 5 by tests/it/upkeep/events.rs:{line}: a larger machine"),
        format!("flushed by tests/it/upkeep/events.rs:{}", line + 1),
        format!("circuit ordered forced open by tests/it/upkeep/events.rs:{}: maintenance", line + 2),
        format!("circuit ordered closed by tests/it/upkeep/events.rs:{}: done", line + 3),
        format!("draining by tests/it/upkeep/events.rs:{}: SIGTERM", line + 4),
    ];
    for (line, expected) in lines.iter().zip(&expected) {
        assert!(line.starts_with("pool ordered: ") && line.ends_with(expected), "{line} is not {expected}");
    }
    assert!(lines[5].contains("drained"), "{lines:?}");
    let first = timeout(LONG, events.next()).await.unwrap().unwrap();
    assert!(matches!(first.kind, EventKind::Resized { from: 3, to: 5, .. }), "{first}");
    assert_eq!((first.severity(), events.dropped()), (Severity::Info, 0));
}

#[tokio::test]
async fn the_beginning_and_the_end_of_an_outage_are_reported() {
    let mut server = Server::own(&[]).await;
    let log = Log::default();
    let builder = Pool::builder(server.config()).name("outage").max_size(4).min_idle(4);
    let pool = log.observes(builder).build().unwrap();
    pool.warm_up(4, LONG).await.unwrap();
    server.stop().await;
    log.tells("connection").await;
    log.tells("57P01").await;
    eventually("dials fail", LONG, async || pool.status().last_connect_error.is_some()).await;
    // The dial is refused, or the server says that it shuts down.
    let is_told = |is: fn(&EventKind) -> bool| log.0.lock().unwrap().iter().any(|event| is(&event.kind));
    eventually("the failure is reported", LONG, async || {
        is_told(|kind| matches!(kind, EventKind::ConnectFailed { .. }))
    })
    .await;
    server.start().await;
    eventually("all connections are idle", LONG, async || pool.status().idle == 4).await;
    eventually("the recovery is reported", LONG, async || {
        is_told(|kind| matches!(kind, EventKind::ConnectRecovered { .. }))
    })
    .await;
    let told = |is: fn(&EventKind) -> bool| log.0.lock().unwrap().iter().filter(|event| is(&event.kind)).count();
    assert_eq!(told(|kind| matches!(kind, EventKind::ServerShuttingDown { .. })), 1, "{:?}", log.lines());
    assert_eq!(told(|kind| matches!(kind, EventKind::ConnectionLost { .. })), 1, "{:?}", log.lines());
    assert_eq!(told(|kind| matches!(kind, EventKind::ConnectFailed { .. })), 1, "{:?}", log.lines());
}

#[tokio::test]
async fn a_leak_is_reported_with_the_place_that_took_the_connection() {
    let log = Log::default();
    let builder = shared("leak").await.max_size(3).leak_detection_threshold(Duration::from_millis(600));
    let pool = log.observes(builder.leak_backtraces(true)).build().unwrap();
    let line = line!() + 1;
    let leaked = join_all((0..2).map(|_| pool.get())).await;
    let named = pool.call().name("load_dashboard").get().await.unwrap();
    log.tells("load_dashboard").await;
    log.tells(&format!("events.rs:{line}")).await;
    assert_eq!(log.count("leaked?"), 2, "once for each caller's place: {:?}", log.lines());
    let backtraces = |event: &Event| match &event.kind {
        EventKind::LeakSuspected { backtrace, .. } => backtrace.as_ref().map(|backtrace| backtrace.to_string()),
        _ => None,
    };
    let traces: Vec<_> = log.0.lock().unwrap().iter().filter_map(backtraces).collect();
    assert_eq!(traces.len(), 2);
    assert!(traces.iter().all(|trace| trace.contains("a_leak_is_reported")), "{}", traces[0]);
    drop((leaked, named));
}

#[tokio::test]
async fn many_long_running_statements_are_reported_together() {
    let log = Log::default();
    let builder = shared("long").await.max_size(5).long_running(2, Duration::from_millis(700));
    let pool = log.observes(builder).build().unwrap();
    let sleep = |_| pool.call().name("report").query_one("SELECT pg_sleep(2.5)", &[]);
    join_all((0..3).map(sleep)).await;
    log.tells("3 statements running for more than 700 ms").await;
    log.tells("no statement runs for too long any more").await;
    assert_eq!(log.count("report"), 1, "{:?}", log.lines());
}

#[tokio::test]
async fn slow_acquires_and_a_full_pool_are_reported() {
    let log = Log::default();
    let builder = shared("full").await.max_size(1).acquire_timeout(Duration::from_secs(5));
    let pool = log.observes(builder).build().unwrap();
    let held = pool.get().await.unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.map(drop) }
    });
    log.tells("exhausted").await;
    log.tells("waited").await;
    assert_eq!(pool.status().waiting, 1);
    drop(held);
    waiting.await.unwrap().unwrap();
}

/// An observer that panics does no harm. An observer that uses the pool does not hang it.
#[tokio::test]
async fn observers_may_panic_and_may_use_the_pool() {
    let log = Log::default();
    let held: Arc<Mutex<Option<Pool>>> = Arc::default();
    let uses = Arc::clone(&held);
    let builder = shared("bad").await.max_size(2).observer(|_: &Event| panic!("on purpose"));
    let builder = builder.observer(move |_: &Event| {
        if let Some(pool) = &*uses.lock().unwrap() {
            let _ = (pool.status(), pool.try_get().map(drop));
        }
    });
    let pool = log.observes(builder).build().unwrap();
    *held.lock().unwrap() = Some(pool.clone());
    pool.flush();
    pool.breaker().force_open("a test");
    pool.breaker().reset("a test");
    pool.query_one("SELECT 1", &[]).await.unwrap();
    assert_eq!(log.count("circuit"), 2);
    *held.lock().unwrap() = None;
}

#[tokio::test]
async fn a_max_size_beyond_the_servers_limit_is_reported() {
    let server = Server::own(&[("max_connections", "10"), ("superuser_reserved_connections", "2")]).await;
    let log = Log::default();
    let pool = log.observes(Pool::builder(server.config()).name("large").max_size(50)).build().unwrap();
    pool.warm_up(2, LONG).await.unwrap();
    log.tells("max_size is 50, but the server has only 8 connections left").await;
}

#[tokio::test]
async fn the_status_line_describes_the_pool() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let pool = Pool::builder(server.config_at(proxy.addr())).name("status").max_size(2).build().unwrap();
    for _ in 0..40 {
        pool.query_one("SELECT 1", &[]).await.unwrap();
    }
    eventually("the pool has measured its demand", LONG, async || {
        let _ = pool.query_one("SELECT 1", &[]).await;
        pool.status().demand.is_some()
    })
    .await;
    let status = pool.status();
    assert!(status.last_success.is_some_and(|ago| ago < Duration::from_secs(2)), "{status:?}");
    assert!(status.demand.is_some_and(|demand| demand < 2.0), "{status:?}");
    proxy.refuse().await;
    pool.flush();
    let failed = pool.get().await.unwrap_err();
    assert!(matches!(failed, Error::Connect { .. }), "{failed:?}");
    let line = pool.status().to_string();
    assert!(line.starts_with("pool status: 0% in use (0/2)") && line.contains("last dial failed: "), "{line}");
}

#[tokio::test]
async fn readiness_follows_the_database_and_not_the_load() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let builder = Pool::builder(server.config_at(proxy.addr())).name("ready").max_size(2);
    let pool =
        builder.unready_after(Duration::from_secs(1)).acquire_timeout(Duration::from_millis(50)).build().unwrap();
    assert!(matches!(pool.ready(), Err(NotReady::Starting { .. })));
    eventually("ready without a call", LONG, async || pool.ready().is_ok()).await;

    // Ten times as many calls as the pool can serve.
    let calls = (0..200).map(|_| async {
        for _ in 0..20 {
            let _ = pool.call().deadline(Duration::from_millis(50)).query_one("SELECT pg_sleep(0.02)", &[]).await;
            assert_eq!(pool.ready(), Ok(()));
        }
    });
    join_all(calls).await;

    // All connections are busy for longer than `unready_after`.
    let sleeping = join_all((0..2).map(|_| pool.call().deadline(LONG).query_one("SELECT pg_sleep(2.5)", &[])));
    let watching = async {
        for _ in 0..20 {
            sleep(Duration::from_millis(100)).await;
            assert_eq!(pool.ready(), Ok(()));
        }
    };
    let (slept, ()) = tokio::join!(sleeping, watching);
    assert!(slept.iter().all(Result::is_ok), "{slept:?}");

    proxy.stall();
    eventually("the pool reports the silent database", LONG, async || {
        matches!(pool.ready(), Err(NotReady::Silent { .. }))
    })
    .await;
    proxy.resume();
    eventually("ready again without a call", LONG, async || pool.ready().is_ok()).await;
    let held = pool.get_timeout(LONG).await.unwrap();
    let draining = tokio::spawn({
        let pool = pool.clone();
        async move { pool.drain(LONG).await }
    });
    eventually("the pool is draining", LONG, async || pool.ready() == Err(NotReady::Closed)).await;
    drop(held);
    assert_eq!(draining.await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_behind_the_name_is_reported_once() {
    let primary = Server::own(&[]).await;
    let standby = Server::standby(&primary, &[]).await;
    let proxy = Proxy::start(standby.addr()).await;
    let log = Log::default();
    let pool = log.observes(Pool::builder(primary.config_at(proxy.addr())).name("moved").max_size(3)).build().unwrap();
    pool.warm_up(3, LONG).await.unwrap();
    proxy.switch(primary.addr());
    pool.execute("CREATE TABLE moved (id int)", &[]).await.unwrap();
    log.tells("the primary is").await;
    pool.warm_up(3, LONG).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    let changed = |event: &&Event| matches!(event.kind, EventKind::PrimaryChanged { .. });
    assert_eq!(log.0.lock().unwrap().iter().filter(changed).count(), 1, "{:?}", log.lines());
}

/// The connections are idle for long, and the pool then checks or closes them. No caller holds them.
#[tokio::test]
async fn an_idle_connection_is_no_leak_while_it_is_checked_or_closed() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let log = Log::default();
    let builder = Pool::builder(server.config_at(proxy.addr())).name("no_leak").max_size(4);
    let builder = builder.leak_detection_threshold(Duration::from_secs(2)).health_check_after(Duration::from_secs(3));
    let pool = log.observes(builder).build().unwrap();
    pool.warm_up(4, LONG).await.unwrap();
    drop(join_all((0..4).map(|_| pool.get())).await);
    proxy.stall_existing();
    // The check after three seconds fails, and closing takes one more second.
    eventually("all connections are closed", LONG, async || pool.status().idle + pool.status().closing == 0).await;
    assert_eq!(log.count("leaked?"), 0, "{:?}", log.lines());
}

/// Maintenance has the connection. The caller gave it back long ago.
#[tokio::test]
async fn a_connection_that_does_not_answer_maintenance_is_no_leak() {
    let server = Server::shared().await;
    for is_asked in [false, true] {
        let proxy = Proxy::start(server.addr()).await;
        let log = Log::default();
        let builder = Pool::builder(server.config_at(proxy.addr())).name("no_leak").max_size(2);
        let builder = builder.leak_detection_threshold(Duration::from_secs(1)).unready_after(Duration::from_secs(3));
        let pool = log.observes(builder.health_check_after(Duration::from_secs(if is_asked { 3_600 } else { 2 })));
        let pool = pool.build().unwrap();
        pool.query_one("SELECT 1", &[]).await.unwrap();
        if is_asked {
            eventually("the pool is ready", LONG, async || pool.ready().is_ok()).await;
        }
        sleep(Duration::from_millis(1_500)).await;
        proxy.stall_existing();
        eventually("maintenance finds the silent connection", LONG, async || pool.status().idle == 0).await;
        eventually("the connection is closed", LONG, async || pool.status().settling + pool.status().closing == 0)
            .await;
        assert_eq!(log.count("leaked?"), 0, "{:?}", log.lines());
    }
}

#[tokio::test]
async fn readiness_probes_cause_few_dials() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let (host, port) = (proxy.addr().ip(), proxy.addr().port());
    let config = server.config_with(&format!("host={host} port={port} user=nobody password=wrong"));
    let pool = Pool::builder(config).name("not_ready").max_size(2).build().unwrap();
    for _ in 0..30 {
        assert!(matches!(pool.ready(), Err(NotReady::Starting { .. })));
        sleep(Duration::from_millis(100)).await;
    }
    assert!((1..=4).contains(&proxy.accepted()), "{} in 3 s", proxy.accepted());
}

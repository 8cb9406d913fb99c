//! A listener whose connection is lost, frozen, or replaced: what is told, and that nothing later is missed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use failfast::{Credentials, EventKind, Events, Gap, Notification, Notifications, Pool, Received};
use tokio::time::timeout;

use super::{is_gap, listening, next, notification, notify, quick};
use crate::pool::{LONG, shared};
use crate::support::eventually;
use crate::support::pgbouncer::PgBouncer;
use crate::support::proxy::{Close, Proxy};
use crate::support::server::Server;

const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ";

/// Waits for the event of an interruption, and returns its reason.
async fn interrupted(events: &mut Events) -> String {
    let reason = async {
        loop {
            let event = events.next().await.unwrap();
            if let EventKind::ListenInterrupted { reason, .. } = &event.kind {
                return reason.clone();
            }
        }
    };
    timeout(LONG, reason).await.expect("the listener did not notice")
}

async fn resumed(events: &mut Events) {
    let resumed = async { while !matches!(events.next().await.unwrap().kind, EventKind::ListenResumed { .. }) {} };
    timeout(LONG, resumed).await.expect("the listener did not report that it listens again");
}

/// After a gap the listener listens: the next notification is not missed.
async fn listens(server: &Server, notifications: &mut Notifications, payload: &str) {
    notify(server, "channel", payload).await;
    assert_eq!(notification(notifications).await.payload, payload);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_lose_the_connection_is_one_gap() {
    let mut server = Server::own(&[]).await;
    let proxy = Proxy::start(server.addr()).await;
    let builder = Pool::builder(server.config_at(proxy.addr())).name("listen_lost");
    let pool = quick(builder).build().unwrap();
    let (mut notifications, mut events) = (listening(&pool, &["channel"]).await, pool.events());
    listens(&server, &mut notifications, "before").await;

    server.execute(&format!("{TERMINATE}'listen_lost'")).await;
    let reason = interrupted(&mut events).await;
    assert!(reason.contains("57P01"), "{reason}");
    is_gap(&mut notifications, Gap::Reconnected).await;
    resumed(&mut events).await;
    listens(&server, &mut notifications, "terminated").await;

    for close in [Close::Fin, Close::Reset] {
        proxy.cut(close);
        interrupted(&mut events).await;
        is_gap(&mut notifications, Gap::Reconnected).await;
        listens(&server, &mut notifications, "cut").await;
    }

    server.stop().await;
    interrupted(&mut events).await;
    server.start().await;
    is_gap(&mut notifications, Gap::Reconnected).await;
    listens(&server, &mut notifications, "restarted").await;

    server.kill().await;
    interrupted(&mut events).await;
    server.start().await;
    is_gap(&mut notifications, Gap::Reconnected).await;
    listens(&server, &mut notifications, "killed").await;

    let pid = server.scalar("SELECT pid FROM pg_stat_activity WHERE application_name = 'listen_lost'").await;
    server.kill_backend(pid.parse().unwrap()).await;
    server.accepting().await;
    is_gap(&mut notifications, Gap::Reconnected).await;
    listens(&server, &mut notifications, "crashed").await;
    assert_eq!(pool.status().listening, 1);
}

/// The connection does not end, and nothing comes: a frozen server, and a network that drops packets.
#[tokio::test(flavor = "multi_thread")]
async fn silence_is_noticed() {
    let mut server = Server::own(&[]).await;
    let proxy = Proxy::start(server.addr()).await;
    let builder = Pool::builder(server.config_at(proxy.addr())).name("listen_silent");
    let pool = quick(builder).build().unwrap();
    let (mut notifications, mut events) = (listening(&pool, &["channel"]).await, pool.events());

    server.pause().await;
    let reason = interrupted(&mut events).await;
    assert!(reason.contains("health check"), "{reason}");
    server.unpause().await;
    is_gap(&mut notifications, Gap::Reconnected).await;
    listens(&server, &mut notifications, "unfrozen").await;

    proxy.stall_existing();
    is_gap(&mut notifications, Gap::Reconnected).await;
    listens(&server, &mut notifications, "through a new connection").await;
}

/// While the listener is healthy, its checks disturb nothing.
#[tokio::test]
async fn health_checks_cause_no_gap() {
    let server = Server::shared().await;
    let pool = quick(shared("listen_checked").await).build().unwrap();
    let mut notifications = listening(&pool, &["listen_checked"]).await;
    for number in 0..5 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        notify(server, "listen_checked", &number.to_string()).await;
        assert_eq!(notification(&mut notifications).await.payload, number.to_string());
    }
}

/// A sender numbers its notifications while the pool is flushed again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_loses_and_repeats_nothing() {
    let pool = shared("listen_flushed").await.build().unwrap();
    let mut notifications = listening(&pool, &["listen_flushed"]).await;
    let server = Server::shared().await;
    let pid = "SELECT pid FROM pg_stat_activity WHERE application_name = 'listen_flushed'";
    let (sender, done) = (server.admin().await, Arc::new(AtomicBool::new(false)));
    let sending = tokio::spawn({
        let done = Arc::clone(&done);
        async move {
            let mut sent = 0_i64;
            while !done.load(SeqCst) {
                sender.batch_execute(&format!("SELECT pg_notify('listen_flushed', '{sent}')")).await.unwrap();
                sent += 1;
            }
            sent
        }
    });
    let reading = tokio::spawn(async move {
        let mut seen = 0;
        loop {
            match next(&mut notifications).await {
                Received::Notification(Notification { payload, .. }) if payload == "end" => return seen,
                Received::Notification(Notification { payload, .. }) => assert_eq!(payload, seen.to_string()),
                other => panic!("{other:?} after {seen}"),
            }
            seen += 1;
        }
    });
    for _ in 0..10 {
        let before = server.scalar(pid).await;
        pool.flush();
        let is_replaced = async || {
            let now = server.scalar(pid).await;
            !now.is_empty() && now != before && server.connection_count("listen_flushed").await == 1
        };
        eventually("the connection is replaced", LONG, is_replaced).await;
    }
    done.store(true, SeqCst);
    let sent = sending.await.unwrap();
    notify(server, "listen_flushed", "end").await;
    assert_eq!(reading.await.unwrap(), sent);
    assert!(sent > 100, "only {sent} were sent");
}

/// The password was changed, the service does not know the new one yet, and the pool is flushed too early.
#[tokio::test]
async fn a_flush_with_credentials_that_are_refused_keeps_the_connection() {
    let server = Server::own(&[]).await;
    let (is_wrong, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let provider = {
        let (is_wrong, asked) = (Arc::clone(&is_wrong), Arc::clone(&asked));
        move || {
            asked.fetch_add(1, SeqCst);
            let password = if is_wrong.load(SeqCst) { "wrong" } else { "secret" };
            async move { Ok(Credentials::password(password)) }
        }
    };
    let builder = quick(Pool::builder(server.config()).name("listen_rotated")).credentials(provider);
    let pool = builder.build().unwrap();
    let mut notifications = listening(&pool, &["channel"]).await;
    let mut events = pool.events();
    is_wrong.store(true, SeqCst);
    pool.flush();
    eventually("the dial fails several times", LONG, async || asked.load(SeqCst) > 3).await;
    listens(&server, &mut notifications, "on the old connection").await;
    is_wrong.store(false, SeqCst);
    let before = server.scalar("SELECT pid FROM pg_stat_activity WHERE application_name = 'listen_rotated'").await;
    pool.flush();
    eventually("the connection is replaced", LONG, async || {
        let now = server.scalar("SELECT pid FROM pg_stat_activity WHERE application_name = 'listen_rotated'").await;
        !now.is_empty() && now != before && server.connection_count("listen_rotated").await == 1
    })
    .await;
    listens(&server, &mut notifications, "on the new connection").await;
    drop(pool);
    while let Ok(Some(event)) = timeout(LONG, events.next()).await {
        assert!(!matches!(event.kind, EventKind::ListenInterrupted { .. }), "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_the_listener_listens_on_the_new_primary() {
    let mut primary = Server::own(&[]).await;
    let standby = Server::standby(&primary, &[]).await;
    let (one, other) = (primary.addr(), standby.addr());
    let config = primary.config_with(&format!(
        "host={},{} port={},{} target_session_attrs=read-write",
        one.ip(),
        other.ip(),
        one.port(),
        other.port()
    ));
    let pool = quick(Pool::builder(config).name("listen_failover")).build().unwrap();
    let (mut notifications, mut events) = (listening(&pool, &["channel"]).await, pool.events());
    listens(&primary, &mut notifications, "from the old primary").await;
    primary.kill().await;
    interrupted(&mut events).await;
    standby.execute("SELECT pg_promote()").await;
    is_gap(&mut notifications, Gap::Reconnected).await;
    listens(&standby, &mut notifications, "from the new primary").await;
}

/// The name leads to another server, and the pool is flushed. Both servers are up.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_leads_to_another_server_is_a_gap() {
    let (one, other) = (Server::own(&[]).await, Server::own(&[]).await);
    let proxy = Proxy::start(one.addr()).await;
    let pool = quick(Pool::builder(one.config_at(proxy.addr())).name("listen_moved")).build().unwrap();
    let mut notifications = listening(&pool, &["channel"]).await;
    listens(&one, &mut notifications, "from the first").await;
    proxy.switch(other.addr());
    pool.flush();
    is_gap(&mut notifications, Gap::Reconnected).await;
    listens(&other, &mut notifications, "from the second").await;
    eventually("the old connection ends", LONG, async || one.connection_count("listen_moved").await == 0).await;
}

/// The name leads to another server, and nobody flushes the pool. Both servers are up.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_moves_with_the_name_within_its_lifetime() {
    let (one, other) = (Server::own(&[]).await, Server::own(&[]).await);
    let proxy = Proxy::start(one.addr()).await;
    let builder = quick(Pool::builder(one.config_at(proxy.addr())).name("listen_aged"));
    let pool = builder.max_lifetime(Duration::from_secs(2)).build().unwrap();
    let mut notifications = listening(&pool, &["channel"]).await;
    listens(&one, &mut notifications, "from the first").await;
    proxy.switch(other.addr());
    is_gap(&mut notifications, Gap::Reconnected).await;
    listens(&other, &mut notifications, "from the second").await;
    eventually("the old connection ends", LONG, async || one.connection_count("listen_aged").await == 0).await;
}

/// On the same server, the next connection takes over without a gap.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_lifetime_loses_and_repeats_nothing() {
    let server = Server::shared().await;
    let pool = shared("listen_lives").await.max_lifetime(Duration::from_millis(500)).build().unwrap();
    let mut notifications = listening(&pool, &["listen_lives"]).await;
    let pid = "SELECT pid FROM pg_stat_activity WHERE application_name = 'listen_lives'";
    let (mut sent, mut pids) = (0, BTreeSet::new());
    let replaced = async {
        while pids.len() < 4 {
            pids.insert(server.scalar(pid).await);
            notify(server, "listen_lives", &sent.to_string()).await;
            assert_eq!(notification(&mut notifications).await.payload, sent.to_string());
            sent += 1;
        }
    };
    timeout(LONG, replaced).await.expect("the connection is never replaced");
}

/// The pooler gives the server connection that listens to another client. Then nothing comes, and nothing ends.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_pooler_in_transaction_mode_the_loss_is_told() {
    let server = Server::own(&[]).await;
    let Some(pooler) = PgBouncer::start(&server, &[]).await else {
        return eprintln!("no image with PgBouncer: not tested");
    };
    let config = server.config_at(pooler.addr());
    let pool = quick(Pool::builder(config).name("listen_pooled")).build().unwrap();
    let (mut notifications, mut events) = (listening(&pool, &["channel"]).await, pool.events());
    let taken = pool.get().await.unwrap().transaction().await.unwrap();
    taken.query_one("SELECT 1", &[]).await.unwrap();
    let reason = interrupted(&mut events).await;
    assert!(reason.contains("pooler in transaction mode"), "{reason}");
    is_gap(&mut notifications, Gap::Reconnected).await;
}

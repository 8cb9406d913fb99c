//! LISTEN: each notification comes once and in order, and each time when some may be missing the listener says so.

mod losses;

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use failfast::{Error, ErrorKind, Gap, Notification, Notifications, Pool, PoolBuilder, Received};
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use crate::pool::{LONG, shared};
use crate::support::proxy::{Proxy, Way};
use crate::support::server::Server;
use crate::support::{eventually, free_port};

const MILLISECOND: Duration = Duration::from_millis(1);

async fn pool(name: &str) -> Pool {
    shared(name).await.build().unwrap()
}

async fn listening(pool: &Pool, channels: &[&str]) -> Notifications {
    timeout(LONG, pool.listen(channels).unwrap()).await.unwrap().unwrap()
}

async fn next(notifications: &mut Notifications) -> Received {
    let received = timeout(LONG, notifications.next()).await;
    received.expect("nothing came").expect("the stream has ended")
}

/// The next item, which is a notification.
async fn notification(notifications: &mut Notifications) -> Notification {
    match next(notifications).await {
        Received::Notification(notification) => notification,
        other => panic!("{other:?}"),
    }
}

async fn is_gap(notifications: &mut Notifications, expected: Gap) {
    assert_eq!(next(notifications).await, Received::Gap(expected));
}

async fn notify(server: &Server, channel: &str, payload: &str) {
    server.execute(&format!("SELECT pg_notify('{channel}', '{payload}')")).await;
}

async fn has_ended(mut notifications: Notifications) {
    assert_eq!(timeout(LONG, notifications.next()).await.expect("the stream has not ended"), None);
    assert_eq!(notifications.next().await, None);
}

/// Five senders on three channels, and a reader whose waits are dropped all the time.
#[tokio::test(flavor = "multi_thread")]
async fn each_notification_comes_once_and_in_order() {
    const EACH: usize = 1_000;
    let pool = pool("listen_all").await;
    let channels = ["listen_all_0", "listen_all_1", "listen_all_2"];
    let mut notifications = listening(&pool, &channels).await;
    let pool = &pool;
    let send = |sender: usize| async move {
        let channel = channels[sender % 3];
        let client = pool.get().await.unwrap();
        for begin in (0..EACH).step_by(50) {
            let sql = "SELECT pg_notify($1, $2 || ':' || n) FROM generate_series($3::int8, $4::int8) n";
            let (first, last) = (begin as i64, begin as i64 + 49);
            client.query(sql, &[&channel, &sender.to_string(), &first, &last]).await.unwrap();
        }
    };
    let read = async {
        let mut seen = [0; 5];
        while seen.iter().sum::<usize>() < 5 * EACH {
            let Ok(received) = timeout(MILLISECOND / 10, notifications.next()).await else { continue };
            let Some(Received::Notification(Notification { channel, payload, .. })) = received else {
                panic!("{received:?}")
            };
            let (sender, number) = payload.split_once(':').unwrap();
            let (sender, number): (usize, usize) = (sender.parse().unwrap(), number.parse().unwrap());
            assert_eq!((channel.as_str(), number), (channels[sender % 3], seen[sender]));
            seen[sender] += 1;
        }
    };
    timeout(LONG, async { tokio::join!(join_all((0..5).map(send)), read) }).await.unwrap();
    assert!(notifications.next().now_or_never().is_none(), "more came than was sent");
}

/// More than a reader on the same thread can take between two polls.
#[tokio::test]
async fn a_large_transaction_does_not_outrun_a_reader() {
    let pool = pool("listen_burst").await;
    let mut notifications = listening(&pool, &["listen_burst"]).await;
    let sql = "SELECT pg_notify('listen_burst', n::text) FROM generate_series(1, 50000) n";
    pool.query(sql, &[]).await.unwrap();
    for number in 1..=50_000 {
        assert_eq!(notification(&mut notifications).await.payload, number.to_string());
    }
}

/// The names and payloads that users of other drivers stumbled over.
#[tokio::test]
async fn names_and_payloads_come_as_they_are() {
    let pool = pool("listen_names").await;
    let longest = "x".repeat(63);
    let names = ["listen_names", "Listen Names", "a\"b", "a'b", "a\\b", "select", "ä→🦀", "; --", "a.b", &longest];
    let mut notifications = listening(&pool, &names).await;
    let client = pool.get().await.unwrap();
    let long = "é".repeat(3_999) + "!";
    for name in names {
        for payload in ["", "one", "a\nb\r\n\t'\"\\", &long] {
            client.query("SELECT pg_notify($1, $2)", &[&name, &payload]).await.unwrap();
            let Notification { channel, payload: found, process_id, .. } = notification(&mut notifications).await;
            assert_eq!((channel.as_str(), found.as_str()), (name, payload));
            assert_eq!(Some(process_id), client.process_id());
        }
    }
    let error = client.query("SELECT pg_notify('listen_names', repeat('x', 8000))", &[]).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some(&SqlState::INVALID_PARAMETER_VALUE));
    for (sql, channel) in [("NOTIFY Listen_Names", "listen_names"), ("NOTIFY \"Listen Names\", 'x'", "Listen Names")] {
        client.batch_execute(sql).await.unwrap();
        assert_eq!(notification(&mut notifications).await.channel, channel);
    }
}

#[tokio::test]
async fn a_name_that_no_channel_can_have_is_refused() {
    let pool = pool("listen_refused").await;
    for names in [&[][..], &[""], &["a\0"], &["good", &"x".repeat(64)]] {
        let error = pool.listen(names).map(drop).unwrap_err();
        assert!(error.setting().starts_with("channel"), "{error}");
    }
}

#[tokio::test]
async fn a_listener_takes_no_connection_of_the_pool() {
    let pool = shared("listen_beside").await.max_size(1).build().unwrap();
    let server = Server::shared().await;
    let held = pool.get().await.unwrap();
    let first = listening(&pool, &["a"]).await;
    let second = listening(&pool, &["a"]).await;
    let status = pool.status();
    assert_eq!((status.in_use, status.listening), (1, 2));
    assert!(status.to_string().starts_with("pool listen_beside: 100% in use (1/1), 2 listening"), "{status}");
    assert_eq!(server.connection_count("listen_beside").await, 3, "the name of the pool");
    drop(held);
    pool.query_one("SELECT 1", &[]).await.unwrap();
    drop(first);
    eventually("the connection ends", LONG, async || server.connection_count("listen_beside").await == 2).await;
    assert_eq!(pool.status().listening, 1);
    drop(second);
    eventually("the connection ends", LONG, async || server.connection_count("listen_beside").await == 1).await;
    assert_eq!(pool.status().listening, 0);
}

/// A server that is full still serves the connections that it has. One that listens serves no caller.
#[tokio::test]
async fn a_full_server_that_only_listens_is_a_failure() {
    let server = Server::shared().await;
    server.execute("CREATE ROLE listen_limited LOGIN PASSWORD 'secret' CONNECTION LIMIT 1").await;
    let mut config = server.config();
    config.user("listen_limited");
    let pool = Pool::builder(config).name("listen_limited").acquire_timeout(500 * MILLISECOND).build().unwrap();
    let _notifications = listening(&pool, &["a"]).await;
    let failures = pool.breaker().snapshot().counts.failures;
    assert_eq!(failures, 0);
    let error = pool.query_one("SELECT 1", &[]).await.unwrap_err();
    assert!(pool.breaker().snapshot().counts.failures > 0, "{error}");
}

#[tokio::test]
async fn the_stream_ends_with_the_pool() {
    let closed = pool("listen_closed").await;
    let mut notifications = listening(&closed, &["listen_closed"]).await;
    notify(Server::shared().await, "listen_closed", "before").await;
    assert_eq!(notification(&mut notifications).await.payload, "before");
    closed.close();
    has_ended(notifications).await;
    let error = closed.listen(["a"]).unwrap().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);

    let dropped = pool("listen_dropped").await;
    let notifications = listening(&dropped, &["a"]).await;
    drop(dropped);
    has_ended(notifications).await;
    let server = Server::shared().await;
    eventually("the connection ends", LONG, async || server.connection_count("listen_dropped").await == 0).await;
}

#[tokio::test]
async fn while_the_pool_is_drained_the_listener_goes_on() {
    let pool = pool("listen_drained").await;
    let mut notifications = listening(&pool, &["listen_drained"]).await;
    let held = pool.get().await.unwrap();
    let draining = tokio::spawn({
        let pool = pool.clone();
        async move { pool.drain(LONG).await }
    });
    eventually("the pool drains", LONG, async || pool.is_closed()).await;
    held.batch_execute("NOTIFY listen_drained").await.unwrap();
    notification(&mut notifications).await;
    drop(held);
    assert_eq!(draining.await.unwrap(), 0);
    has_ended(notifications).await;
}

#[test]
fn the_stream_ends_with_its_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let (pool, notifications) = first.block_on(async {
        let pool = pool("listen_runtime").await;
        let notifications = listening(&pool, &["a"]).await;
        (pool, notifications)
    });
    drop(first);
    runtime().block_on(has_ended(notifications));
    assert_eq!(pool.status().listening, 0);
}

/// The pool has a runtime of its own, so its listener outlives the one that called `listen`.
#[test]
fn a_listener_lives_on_the_runtime_of_the_pool() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (own, first, second) = (runtime(), runtime(), runtime());
    let (pool, mut notifications) = first.block_on(async {
        let pool = shared("listen_own_runtime").await.runtime(own.handle().clone()).build().unwrap();
        let notifications = listening(&pool, &["listen_own_runtime"]).await;
        (pool, notifications)
    });
    drop(first);
    second.block_on(async {
        notify(Server::shared().await, "listen_own_runtime", "later").await;
        assert_eq!(notification(&mut notifications).await.payload, "later");
    });
    drop(own);
    second.block_on(has_ended(notifications));
    assert_eq!(pool.status().listening, 0);
}

#[tokio::test]
async fn the_first_dial_is_not_repeated() {
    let nobody = Server::shared().await.config_at(([127, 0, 0, 1], free_port()).into());
    let pool = Pool::builder(nobody).name("listen_nobody").build().unwrap();
    let error = pool.listen(["a"]).unwrap().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    let mut config = Server::shared().await.config();
    config.password("wrong");
    let pool = Pool::builder(config).name("listen_wrong").build().unwrap();
    let error = pool.listen(["a"]).unwrap().await.unwrap_err();
    assert_eq!(error.sqlstate(), Some(&SqlState::INVALID_PASSWORD), "{error}");
    assert_eq!(pool.status().listening, 0);
}

#[tokio::test]
async fn after_connect_runs_before_the_listen() {
    const RENAME: &str = "SET application_name = 'listen_hooked'";
    let builder = shared("listen_hook").await;
    let builder = builder.after_connect(|client| Box::pin(async move { client.batch_execute(RENAME).await }));
    let pool = builder.build().unwrap();
    let _notifications = listening(&pool, &["a"]).await;
    assert_eq!(Server::shared().await.connection_count("listen_hooked").await, 1);
}

/// Polls the future of `listen` ever longer, and drops it.
#[tokio::test]
async fn dropping_the_future_at_any_await_leaves_nothing() {
    let (pool, server) = (pool("listen_aborted").await, Server::shared().await);
    let mut polls = 0;
    loop {
        let mut listens = Box::pin(pool.listen(["a"]).unwrap());
        let mut left = polls;
        let done = poll_fn(|cx| match listens.poll_unpin(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => {
                left -= 1;
                Poll::Pending
            }
        });
        let done = timeout(LONG, done).await.unwrap();
        drop(listens);
        assert_eq!(pool.status().listening, usize::from(done.is_some()));
        match done {
            Some(result) => break drop(result.unwrap()),
            None => polls += 1,
        }
    }
    assert!(polls > 3, "{polls} polls");
    eventually("all connections end", LONG, async || server.connection_count("listen_aborted").await == 0).await;
    assert_eq!(pool.status().listening, 0);
}

/// A reader that is too slow finds a gap, and what was sent after it has come to the gap.
#[tokio::test]
async fn a_slow_reader_finds_a_gap() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let pool = Pool::builder(server.config_at(proxy.addr())).name("listen_slow").build().unwrap();
    let mut notifications = listening(&pool, &["listen_slow"]).await;
    let sql = "SELECT pg_notify('listen_slow', n || repeat('x', 7000)) FROM generate_series(1, 4000) n";
    server.execute(sql).await;
    // Sockets hold a few of these 28 MB. The pool has read the others.
    eventually("the listener has got them", LONG, async || proxy.bytes(Way::ToClient) > 28_000_000).await;
    let mut number = 0;
    loop {
        match next(&mut notifications).await {
            Received::Notification(Notification { payload, .. }) => {
                number += 1;
                assert!(payload.starts_with(&format!("{number}x")), "{}", &payload[..10]);
            }
            Received::Gap(gap) => break assert_eq!(gap, Gap::Overrun),
            other => panic!("{other:?}"),
        }
    }
    assert!((2_300..2_400).contains(&number), "16 MiB are {number} notifications of 7 KB");
    notify(server, "listen_slow", "after").await;
    loop {
        // What the socket still held when the reader came to the gap.
        let payload = notification(&mut notifications).await.payload;
        if payload == "after" {
            break;
        }
        assert!(payload.ends_with('x'), "{payload}");
    }
}

fn quick(builder: PoolBuilder) -> PoolBuilder {
    builder.health_check_after(100 * MILLISECOND).connect_timeout(Duration::from_secs(2))
}

#[tokio::test]
async fn a_standby_refuses_to_listen() {
    let primary = Server::own(&[]).await;
    let standby = Server::standby(&primary, &[]).await;
    let pool = Pool::builder(standby.config()).name("listen_standby").build().unwrap();
    let error = pool.listen(["a"]).unwrap().await.unwrap_err();
    assert!(matches!(error, Error::Postgres { .. }), "{error}");
    assert_eq!(error.sqlstate(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION), "{error}");
}

#[tokio::test]
async fn the_stream_is_a_stream() {
    let pool = pool("listen_stream").await;
    let notifications = listening(&pool, &["listen_stream"]).await;
    pool.query("SELECT pg_notify('listen_stream', n::text) FROM generate_series(1, 3) n", &[]).await.unwrap();
    let three: Vec<_> = timeout(LONG, notifications.take(3).collect()).await.unwrap();
    assert!(three.iter().all(|received| matches!(received, Received::Notification(_))), "{three:?}");
}

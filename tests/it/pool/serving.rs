//! A healthy server: leases, refusals, order, and the number of connections on the server.

use std::time::{Duration, Instant};

use failfast::{Error, ShedReason};
use futures_util::future::join_all;
use tokio::runtime::Builder;

use super::{LONG, shared};
use crate::support::{eventually, server::Server};

#[tokio::test]
async fn a_lease_runs_queries_and_goes_back() {
    let pool = shared("goes_back").await.max_size(1).build().unwrap();
    for n in 0..5i32 {
        let client = pool.get_timeout(LONG).await.unwrap();
        let twice: i32 = client.query_one("SELECT $1::int4 * 2", &[&n]).await.unwrap().get(0);
        assert_eq!(twice, 2 * n);
    }
    assert_eq!(Server::shared().await.connection_count("goes_back").await, 1);
    assert_eq!(pool.status().to_string(), "pool goes_back: 0% in use (0/1), 1 idle, 0 waiting");
}

#[tokio::test]
async fn a_guard_serves_code_written_for_deadpool() {
    async fn add(client: &mut deadpool_postgres::Client) -> Result<i32, tokio_postgres::Error> {
        let transaction = client.transaction().await?;
        let statement = transaction.prepare_cached("SELECT 1 + 1").await?;
        let sum = transaction.query_one(&statement, &[]).await?.get(0);
        transaction.commit().await?;
        Ok(sum)
    }
    let pool = shared("drop_in").await.build().unwrap();
    let mut client = pool.get_timeout(LONG).await.unwrap();
    assert_eq!(add(&mut client).await.unwrap(), 2);
}

#[tokio::test]
async fn never_more_connections_than_the_limit() {
    let pool = shared("limit").await.max_size(3).max_waiting(100).build().unwrap();
    join_all((0..60).map(async |_| {
        let client = pool.get_timeout(LONG).await.unwrap();
        client.batch_execute("SELECT pg_sleep(0.002)").await.unwrap();
        assert!(Server::shared().await.connection_count("limit").await <= 3);
    }))
    .await;
    // The pool itself may hold one for a round trip.
    eventually("all are given back", LONG, async || {
        let status = pool.status();
        (status.in_use, status.waiting) == (0, 0)
    })
    .await;
}

/// A batch arrives all at once and ends soon, which is no overload. The pool refuses none of its callers, whether it is
/// cold or already knows its pace.
#[tokio::test]
async fn a_batch_of_ten_times_the_pool_is_served_completely() {
    let pool = shared("batch").await.max_size(10).acquire_timeout(Duration::from_secs(5)).build().unwrap();
    for batch in ["first", "second"] {
        let tasks = (0..100).map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.get().await?.execute("SELECT pg_sleep(0.02)", &[]).await })
        });
        for answer in join_all(tasks).await {
            answer.unwrap().unwrap_or_else(|error| panic!("in the {batch} batch: {error:?}"));
        }
    }
}

#[tokio::test]
async fn a_full_queue_refuses_within_a_millisecond() {
    let pool = shared("full").await.max_size(1).max_waiting(1).build().unwrap();
    let held = pool.get_timeout(LONG).await.unwrap();
    let patient = pool.clone();
    let waiting = tokio::spawn(async move { patient.get_timeout(LONG).await });
    eventually("one waits", LONG, async || pool.status().waiting == 1).await;

    let mut answers = Vec::new();
    for _ in 0..1_000 {
        let asked = Instant::now();
        let refused = pool.get().await.unwrap_err();
        answers.push(asked.elapsed());
        assert!(matches!(refused, Error::Shed { reason: ShedReason::QueueFull, .. }), "{refused:?}");
        assert!(refused.is_overload());
    }
    answers.sort();
    // Other processes on this machine may delay the very slowest.
    assert!(answers[989] < Duration::from_millis(1), "99% within {:?}", answers[989]);
    drop(held);
    drop(waiting.await.unwrap().unwrap());
}

#[tokio::test]
async fn a_timeout_error_names_the_state_of_the_pool() {
    let pool = shared("busy").await.max_size(1).build().unwrap();
    let _held = pool.get_timeout(LONG).await.unwrap();
    let timeout = Duration::from_millis(100);
    let asked = Instant::now();
    let error = pool.get_timeout(timeout).await.unwrap_err();
    assert!(asked.elapsed() >= timeout);
    let text = error.to_string();
    let (state, holders) = text.split_once("; longest held: ").unwrap();
    assert_eq!(state, "no connection within 100 ms: pool busy: 100% in use (1/1), 0 waiting");
    assert!(holders.contains(file!()) && holders.ends_with(" (waiting for the caller)"), "{holders}");
    assert_eq!(pool.status().waiting, 0);
}

/// Callers that hold a connection and ask for another can use up any pool. None of them waits for ever.
#[tokio::test]
async fn callers_that_all_want_a_second_connection_get_errors_that_name_the_holders() {
    const SIZE: usize = 3;
    let timeout = Duration::from_millis(300);
    let pool = shared("nested_get").await.max_size(SIZE).acquire_timeout(timeout).build().unwrap();
    let held = join_all((0..SIZE).map(|_| pool.get_timeout(LONG))).await;
    let held: Vec<_> = held.into_iter().map(Result::unwrap).collect();
    let asked = Instant::now();
    let errors = join_all(held.iter().map(async |_first| pool.get().await.unwrap_err())).await;
    assert!(asked.elapsed() >= timeout && asked.elapsed() < LONG, "{:?}", asked.elapsed());
    for error in errors {
        let Error::AcquireTimeout { longest_held, .. } = &error else { panic!("{error:?}") };
        assert_eq!(longest_held.len(), SIZE, "{error}");
        assert!(error.to_string().contains(file!()), "{error}");
    }
    drop(held);
    let again = join_all((0..SIZE).map(|_| pool.get_timeout(LONG))).await;
    assert!(again.iter().all(Result::is_ok), "{again:?}");
}

#[tokio::test]
async fn the_longest_timeout_does_not_overflow() {
    let pool = shared("patient").await.build().unwrap();
    drop(pool.get_timeout(Duration::MAX).await.unwrap());
}

#[tokio::test]
async fn try_get_never_waits() {
    let pool = shared("try").await.max_size(1).build().unwrap();
    let refused = pool.try_get().unwrap_err();
    assert!(matches!(refused, Error::Shed { reason: ShedReason::NoneIdle, .. }), "{refused:?}");
    eventually("the pool makes a connection for later callers", LONG, async || pool.status().idle == 1).await;
    let client = pool.try_get().unwrap();
    assert!(pool.try_get().is_err());
    drop(client);
    drop(pool.try_get().unwrap());
}

#[tokio::test]
async fn closing_ends_every_connection_on_the_server() {
    let pool = shared("closing").await.max_size(2).build().unwrap();
    let (held, other) = (pool.get_timeout(LONG).await.unwrap(), pool.get_timeout(LONG).await.unwrap());
    let asking = pool.clone();
    let waiting = tokio::spawn(async move { asking.get_timeout(LONG).await });
    eventually("one waits", LONG, async || pool.status().waiting == 1).await;
    pool.close();
    assert!(pool.is_closed());
    assert!(matches!(waiting.await.unwrap().unwrap_err(), Error::Closed));
    assert!(matches!(pool.get().await.unwrap_err(), Error::Closed));
    assert!(matches!(pool.try_get().unwrap_err(), Error::Closed));
    held.batch_execute("SELECT 1").await.expect("a lease is never cut off");
    drop((held, other));
    let server = Server::shared().await;
    eventually("no connection is left", LONG, async || server.connection_count("closing").await == 0).await;
    let status = pool.status();
    assert_eq!((status.in_use, status.idle, status.closing), (0, 0, 0));
}

#[tokio::test]
async fn dropping_the_pool_ends_every_connection_on_the_server() {
    let server = Server::shared().await;
    let pool = shared("dropped").await.build().unwrap();
    let client = pool.get_timeout(LONG).await.unwrap();
    drop(pool.get_timeout(LONG).await.unwrap());
    drop(pool);
    client.batch_execute("SELECT 1").await.expect("a lease outlives its pool");
    drop(client);
    eventually("no connection is left", LONG, async || server.connection_count("dropped").await == 0).await;
}

/// `mem::swap` on two guards exchanges their connections. Neither pool may keep the other's connection.
#[tokio::test]
async fn swapped_connections_are_not_pooled() {
    let pool = shared("swap_a").await.max_size(1).build().unwrap();
    let other = shared("swap_b").await.max_size(1).build().unwrap();
    let (mut a, mut b) = (pool.get_timeout(LONG).await.unwrap(), other.get_timeout(LONG).await.unwrap());
    std::mem::swap(&mut *a, &mut *b);
    drop((a, b));
    let name = "SELECT current_setting('application_name')";
    let a: String = pool.get_timeout(LONG).await.unwrap().query_one(name, &[]).await.unwrap().get(0);
    let b: String = other.get_timeout(LONG).await.unwrap().query_one(name, &[]).await.unwrap().get(0);
    assert_eq!((&*a, &*b), ("swap_a", "swap_b"));
}

/// Swaps the driver's clients inside the guards, so that the statement caches stay behind.
#[tokio::test]
async fn swapped_driver_clients_are_not_pooled() {
    let pool = shared("deep_a").await.max_size(1).build().unwrap();
    let other = shared("deep_b").await.max_size(1).build().unwrap();
    let (mut a, mut b) = (pool.get_timeout(LONG).await.unwrap(), other.get_timeout(LONG).await.unwrap());
    std::mem::swap::<tokio_postgres::Client>(&mut a, &mut b);
    drop((a, b));
    let client = pool.get_timeout(LONG).await.unwrap();
    let name = "SELECT current_setting('application_name')";
    let a: String = client.query_one(name, &[]).await.unwrap().get(0);
    assert_eq!(a, "deep_a");
}

/// An object knows the deadpool pool that made it. A caller could close that pool or ask it for connections.
#[tokio::test]
async fn no_deadpool_pool_is_behind_a_guard() {
    let pool = shared("behind").await.build().unwrap();
    let client = pool.get_timeout(LONG).await.unwrap();
    assert!(deadpool_postgres::Object::pool(&client).is_none());
}

/// Objects that callers took out of their guards and kept use no slot. They end on the server when they are dropped.
#[tokio::test]
async fn objects_taken_from_guards_use_no_slot() {
    let pool = shared("kept").await.max_size(1).build().unwrap();
    let other = shared("maintenance").await.max_size(2).build().unwrap();
    let mut client = pool.get_timeout(LONG).await.unwrap();
    let mut kept = other.get_timeout(LONG).await.unwrap();
    std::mem::swap(&mut *client, &mut *kept);
    drop(client);
    drop(pool.get_timeout(LONG).await.unwrap());
    drop(kept);
    let server = Server::shared().await;
    eventually("only the pool's own connection is left", LONG, async || server.connection_count("kept").await == 1)
        .await;
}

#[tokio::test]
async fn every_future_can_be_spawned() {
    let pool = shared("spawned").await.build().unwrap();
    tokio::spawn(async move {
        drop(pool.get_timeout(LONG).await.unwrap());
        drop(pool.get().await.unwrap());
    })
    .await
    .unwrap();
}

/// Each `#[tokio::test]` has a runtime of its own, and so has each worker of some servers.
#[test]
fn connections_on_a_runtime_that_was_named_outlive_the_callers() {
    let runtime = |threads| Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    let named = runtime(1);
    let builder = named.block_on(shared("named_runtime"));
    let pool = builder.max_size(1).runtime(named.handle().clone()).build().unwrap();
    let backend = || {
        let row = runtime(1).block_on(pool.query_one("SELECT pg_backend_pid()", &[])).unwrap();
        row.get::<_, i32>(0)
    };
    let first = backend();
    assert_eq!((backend(), backend()), (first, first));
    named.shutdown_timeout(LONG);
    assert_ne!(backend(), first, "the connection ended with its runtime");
}

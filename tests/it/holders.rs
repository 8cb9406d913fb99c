//! Who holds the connections: what `Pool::holders` and the errors of refused callers say.

use std::io::Cursor;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use failfast::{Error, Holder, HolderState, Operation, Pool, PoolBuilder, ShedReason};
use futures_util::TryStreamExt;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::pool::{LONG, shared};
use crate::support::{eventually, proxy::Proxy, server::Server};

const MILLISECOND: Duration = Duration::from_millis(1);
/// How much too low an age may be, and some time for the machine.
const MARGIN: Duration = Duration::from_millis(150);
/// How late the coarse clock may be.
const COARSE: Duration = Duration::from_millis(20);
const NONE: [i32; 0] = [];
/// More than fits into all buffers.
const ROWS: &str = "SELECT repeat('canary', 200) FROM generate_series(1, 100000)";

async fn of_five(name: &str) -> PoolBuilder {
    shared(name).await.max_size(5).min_idle(5).leak_detection_threshold(LONG)
}

async fn filled(builder: PoolBuilder, connections: usize) -> Pool {
    let pool = builder.build().unwrap();
    pool.warm_up(connections, LONG).await.unwrap();
    pool
}

/// The only holder.
fn the_one(pool: &Pool) -> Holder {
    let holders = pool.holders();
    assert_eq!(holders.len(), 1, "{holders:?}");
    holders.into_iter().next().unwrap()
}

async fn becomes(pool: &Pool, state: HolderState) -> Holder {
    eventually(state.as_str(), LONG, async || pool.holders().iter().any(|holder| holder.state == state)).await;
    the_one(pool)
}

async fn backend(client: &failfast::Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}

fn of(holder: &Holder) -> String {
    holder.operation.to_string()
}

#[tokio::test]
async fn the_handler_that_exhausts_the_pool_is_named() {
    let pool = filled(of_five("holders_exhausted").await.acquire_timeout(400 * MILLISECOND), 5).await;
    assert!(pool.holders().is_empty(), "{:?}", pool.holders());
    // Waits for something else than the database, and keeps its connection.
    let report = pool.call().name("report").get().await.unwrap();
    sleep(300 * MILLISECOND).await;
    let line = line!() + 1;
    let unnamed = pool.get().await.unwrap();
    let mut others = Vec::new();
    for name in ["login", "search", "basket"] {
        others.push(pool.call().name(name).get().await.unwrap());
    }
    let begun = Instant::now();
    let late = pool.call().deadline(200 * MILLISECOND).get().await.unwrap_err();
    let Error::AcquireTimeout { longest_held, .. } = &late else { panic!("{late:?}") };
    assert_eq!(longest_held.len(), 3);
    assert!(late.to_string().contains("; longest held: report "), "{late}");
    let first = &longest_held[0];
    assert_eq!((first.operation, first.state), (Operation::Named("report"), HolderState::WaitingForCaller));
    assert!(first.age >= 500 * MILLISECOND - MARGIN && first.age < 500 * MILLISECOND + begun.elapsed(), "{first:?}");

    let holders = pool.holders();
    assert_eq!((holders.len(), of(&holders[0]).as_str()), (5, "report"));
    assert!(holders.is_sorted_by_key(|holder| std::cmp::Reverse(holder.age)), "{holders:?}");
    let place = format!("tests/it/holders.rs:{line}");
    let at = holders.iter().find(|holder| of(holder) == place).unwrap_or_else(|| panic!("{place}: {holders:?}"));
    assert_eq!((at.taken.line(), at.process_id), (line, unnamed.process_id()));

    let refused = pool.try_get().unwrap_err();
    assert!(matches!(refused, Error::Shed { reason: ShedReason::NoneIdle, .. }));
    assert!(refused.to_string().contains("no connection is idle; longest held: report "), "{refused}");
    drop((report, unnamed, others));
    assert!(pool.holders().is_empty(), "{:?}", pool.holders());
}

/// The lists that errors share must not outlive what they show.
#[tokio::test]
async fn a_pool_that_was_just_exhausted_is_shown_as_it_is_now() {
    let pool = filled(shared("holders_fresh").await.max_size(2).max_waiting(0), 2).await;
    let first = pool.call().name("first").get().await.unwrap();
    let second = pool.call().name("second").get().await.unwrap();
    let names = async || {
        let refused = pool.get().await.unwrap_err();
        let Error::Shed { longest_held, .. } = &refused else { panic!("{refused:?}") };
        let mut names: Vec<_> = longest_held.iter().map(of).collect();
        names.sort();
        names
    };
    assert_eq!(names().await, ["first", "second"]);
    drop((first, second));
    let _third = pool.call().name("third").get().await.unwrap();
    let _fourth = pool.call().name("fourth").get().await.unwrap();
    // As long as errors may share a list.
    sleep(50 * MILLISECOND).await;
    assert_eq!(names().await, ["fourth", "third"]);
}

#[tokio::test]
async fn what_a_lease_waits_for_is_shown() {
    let pool = filled(shared("holders_states").await.max_size(2), 2).await;
    let client = pool.call().name("states").get().await.unwrap();
    let pid = backend(&client).await;
    let idle = the_one(&pool);
    assert_eq!((idle.state, idle.in_transaction), (HolderState::WaitingForCaller, false), "{idle:?}");
    assert_eq!((idle.process_id, idle.running), (Some(pid), None), "{idle:?}");

    let mut slow = pin!(client.query("SELECT pg_sleep(60), 'canary'", &[]));
    assert!(timeout(300 * MILLISECOND, &mut slow).await.is_err());
    let running = the_one(&pool);
    assert_eq!((running.state, running.process_id), (HolderState::WaitingForServer, Some(pid)), "{running:?}");
    assert!(running.running.is_some_and(|running| running >= 250 * MILLISECOND), "{running:?}");
    assert!(running.age >= running.running.unwrap());
    assert!(!format!("{running} {running:?}").contains("canary"), "{running:?}");

    // Through the deref, too.
    slow.set(client.query("SELECT 1, 'canary'", &[]));
    timeout(LONG, slow).await.unwrap().unwrap();
    let mut untracked = pin!((*client).simple_query("SELECT pg_sleep(60)"));
    assert!(timeout(100 * MILLISECOND, &mut untracked).await.is_err());
    let running = the_one(&pool);
    assert_eq!((running.state, running.running), (HolderState::WaitingForServer, None), "{running:?}");
}

#[tokio::test]
async fn a_connection_that_settles_shows_the_operation_that_used_it() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let pool = Pool::builder(server.config_at(proxy.addr())).name("holders_settle").max_size(2).build().unwrap();
    pool.warm_up(2, LONG).await.unwrap();
    let client = pool.call().name("abandons").get().await.unwrap();
    client.batch_execute("BEGIN").await.unwrap();
    sleep(200 * MILLISECOND).await;
    // ROLLBACK has no answer yet.
    proxy.stall();
    drop(client);
    let settling = becomes(&pool, HolderState::Settling).await;
    assert_eq!((of(&settling).as_str(), settling.running), ("abandons", None));
    assert!(settling.age >= 200 * MILLISECOND - MARGIN, "{settling:?}");
    assert_eq!(pool.status().settling, 1);
    proxy.resume();
    eventually("the connection is idle", LONG, async || pool.status().settling == 0).await;
    assert!(pool.holders().is_empty(), "{:?}", pool.holders());
}

#[tokio::test]
async fn an_open_transaction_is_shown() {
    let pool = filled(shared("holders_transaction").await.max_size(2), 2).await;
    let work = pool.call().name("order").transaction(async |tx| {
        tx.batch_execute("SELECT 1").await?;
        Ok::<_, Error>(the_one(&pool))
    });
    let holder = work.await.unwrap();
    assert_eq!((of(&holder).as_str(), holder.in_transaction), ("order", true));
    assert!(holder.to_string().ends_with("(waiting for the caller, in a transaction)"), "{holder}");
    assert!(pool.holders().is_empty(), "{:?}", pool.holders());
}

#[tokio::test]
async fn a_stream_waits_for_its_reader_or_for_the_server() {
    let pool = filled(shared("holders_stream").await.max_size(2), 2).await;
    let mut rows: Pin<Box<_>> = Box::pin(pool.call().name("export").query_raw(ROWS, NONE).await.unwrap());
    assert!(rows.try_next().await.unwrap().is_some());
    let unread = becomes(&pool, HolderState::WaitingForCaller).await;
    assert_eq!(of(&unread), "export");
    drop(rows);
    eventually("the stream has ended", LONG, async || pool.holders().is_empty()).await;

    let slow = "SELECT CASE i WHEN 1 THEN repeat('x', 100000) ELSE pg_sleep(60)::text END FROM generate_series(1, 2) i";
    let mut rows = Box::pin(pool.call().name("slow_export").query_raw(slow, NONE).await.unwrap());
    assert!(rows.try_next().await.unwrap().is_some());
    assert!(timeout(100 * MILLISECOND, rows.try_next()).await.is_err());
    let waiting = the_one(&pool);
    assert_eq!((waiting.state, of(&waiting).as_str()), (HolderState::WaitingForServer, "slow_export"));
}

#[tokio::test]
async fn a_copy_waits_for_its_data() {
    let pool = filled(shared("holders_copy").await.max_size(2), 2).await;
    let tables = "CREATE TABLE holders_copy (n int);
        CREATE FUNCTION holders_copy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NULL; END';
        CREATE TRIGGER at_the_end AFTER INSERT ON holders_copy FOR EACH STATEMENT EXECUTE FUNCTION holders_copy()";
    pool.batch_execute(tables).await.unwrap();
    let client = pool.call().name("import").get().await.unwrap();
    let mut copy = client.copy_in("COPY holders_copy FROM STDIN").await.unwrap();
    assert_eq!(the_one(&pool).state, HolderState::WaitingForCaller);
    copy.send(Cursor::new("1\n")).await.unwrap();
    let between = the_one(&pool);
    assert_eq!((between.state, of(&between).as_str()), (HolderState::WaitingForCaller, "import"));
    assert!(timeout(100 * MILLISECOND, copy.finish()).await.is_err());
    assert_eq!(the_one(&pool).state, HolderState::WaitingForServer);
}

#[tokio::test]
async fn a_detached_and_a_discarded_connection_have_no_holder() {
    let pool = filled(shared("holders_left").await.max_size(2), 2).await;
    let detached = pool.call().name("detached").get().await.unwrap().detach();
    assert!(pool.holders().is_empty(), "{:?}", pool.holders());
    assert!(detached.simple_query("SELECT 1").await.is_ok());
    pool.call().name("discarded").get().await.unwrap().discard();
    assert!(pool.holders().is_empty(), "{:?}", pool.holders());
}

#[tokio::test]
async fn a_closed_pool_shows_who_still_holds_a_connection() {
    let pool = filled(shared("holders_closed").await.max_size(2), 2).await;
    let held = pool.call().name("outlives").get().await.unwrap();
    pool.close();
    sleep(300 * MILLISECOND).await;
    let holder = the_one(&pool);
    assert_eq!((of(&holder).as_str(), holder.process_id), ("outlives", held.process_id()));
    assert!(holder.age >= 300 * MILLISECOND - MARGIN, "{holder:?}");
    drop(held);
    assert!(pool.holders().is_empty(), "{:?}", pool.holders());
}

#[tokio::test]
async fn ages_are_those_of_the_present_lease() {
    let pool = filled(of_five("holders_ages").await, 5).await;
    for _ in 0..20 {
        let begun = Instant::now();
        let held = pool.call().name("turns").get().await.unwrap();
        sleep(60 * MILLISECOND).await;
        let (holder, lasted) = (the_one(&pool), begun.elapsed());
        assert!(holder.age <= lasted + COARSE, "an older lease counts: {holder:?} after {lasted:?}");
        drop(held);
    }
    let begun = Instant::now();
    let held = pool.call().name("turns").get().await.unwrap();
    sleep(700 * MILLISECOND).await;
    let (holder, lasted) = (the_one(&pool), begun.elapsed());
    assert!(holder.age + MARGIN >= lasted && holder.age <= lasted + COARSE, "{:?} after {lasted:?}", holder.age);
    drop(held);
}

#[tokio::test]
async fn a_backtrace_is_shown_if_it_was_captured() {
    let pool = filled(shared("holders_backtrace").await.max_size(1).leak_backtraces(true), 1).await;
    let _held = pool.get().await.unwrap();
    let backtrace = the_one(&pool).backtrace.expect("a backtrace").to_string();
    assert!(backtrace.contains("a_backtrace_is_shown_if_it_was_captured"), "{backtrace}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 16)]
async fn holders_are_listed_while_sixteen_threads_use_the_pool() {
    const NAMES: [&str; 4] = ["one", "two", "three", "four"];
    let pool = filled(of_five("holders_hammered").await.acquire_timeout(LONG), 5).await;
    let until = Instant::now() + 2_000 * MILLISECOND;
    let mut callers = JoinSet::new();
    for index in 0..16 {
        let pool = pool.clone();
        callers.spawn(async move {
            let mut turns = 0;
            while Instant::now() < until {
                let client = pool.call().name(NAMES[index % 4]).get().await.unwrap();
                if turns % 8 == 0 {
                    client.query_one("SELECT 1", &[]).await.unwrap();
                }
                turns += 1;
            }
            turns
        });
    }
    let mut looks = 0;
    while Instant::now() < until {
        let holders = pool.holders();
        assert!(holders.len() <= 5, "{holders:?}");
        for holder in &holders {
            assert!(NAMES.contains(&of(holder).as_str()), "{holder:?}");
            assert!(holder.age < LONG && holder.process_id.is_some(), "{holder:?}");
        }
        looks += 1;
        tokio::task::yield_now().await;
    }
    let turns: i32 = callers.join_all().await.into_iter().sum();
    assert!(looks > 100 && turns > 1_000, "{looks} looks, {turns} turns");
    assert!(pool.holders().is_empty(), "{:?}", pool.holders());
}

//! Connections that end while they are idle. No caller may get an error, because none had begun a call.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use failfast::{Error, Pool};
use tokio::runtime::Runtime;
use tokio::sync::RwLock;
use tokio::time::sleep;

use super::{LONG, shared};
use crate::support::{eventually, pgbouncer::PgBouncer, server::Server};

/// The pool has all its connections again within this time after the server is back.
const WHOLE_AGAIN: Duration = Duration::from_millis(1_500);

/// Ends every session of this application name, and waits until they are gone.
async fn end_all(server: &Server, name: &str) {
    let named = format!("FROM pg_stat_activity WHERE application_name = '{name}'");
    let pids = server.scalar(&format!("SELECT string_agg(pid::text, ',') {named}")).await;
    server.execute(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid IN ({pids})")).await;
    let left = format!("SELECT count(*) FROM pg_stat_activity WHERE pid IN ({pids})");
    eventually("all sessions are gone", LONG, async || server.scalar(&left).await == "0").await;
}

/// Does the same while this thread is blocked, so the pool reads nothing meanwhile.
fn end_all_while_nobody_reads(server: &Server, name: &str) {
    thread::scope(|scope| {
        scope.spawn(|| {
            Runtime::new().unwrap().block_on(async {
                end_all(server, name).await;
                eventually("the end of the connections has arrived at this machine", LONG, async || {
                    !is_connected_to(server)
                })
                .await;
            });
        });
    });
}

/// Returns whether this machine has an established connection to the server, according to the kernel.
fn is_connected_to(server: &Server) -> bool {
    let port = format!(":{:04X}", server.addr().port());
    let is_open = |line: &str| {
        let mut words = line.split_whitespace();
        words.nth(2).is_some_and(|remote| remote.ends_with(&port)) && words.next() == Some("01")
    };
    std::fs::read_to_string("/proc/self/net/tcp").unwrap().lines().any(is_open)
}

#[tokio::test]
async fn the_servers_last_message_is_read_before_a_statement_is_written() {
    const ROUNDS: i64 = 30;
    let server = Server::own(&[]).await;
    server.execute("CREATE TABLE unread (id bigint)").await;
    let pool = Pool::builder(server.config()).name("unread").max_size(4).build().unwrap();
    for round in 0..ROUNDS {
        pool.warm_up(4, LONG).await.unwrap();
        end_all_while_nobody_reads(&server, "unread");
        // The statement is not idempotent, so the pool must not run it twice.
        let inserted = pool.execute("INSERT INTO unread VALUES ($1)", &[&round]).await;
        assert_eq!(inserted.expect("a live connection"), 1);
        let client = pool.get().await.unwrap();
        client.query_one("SELECT 1", &[]).await.unwrap();
    }
    assert_eq!(server.scalar("SELECT count(*) FROM unread").await, ROUNDS.to_string());
}

/// No caller asks. The pool keeps the other connections, because one ended session does not mean that the server shuts
/// down.
#[tokio::test]
async fn one_ended_session_closes_only_its_connection() {
    let server = Server::shared().await;
    let pool = shared("one_of_three").await.max_size(3).build().unwrap();
    pool.warm_up(3, LONG).await.unwrap();
    let held = [pool.get().await.unwrap(), pool.get().await.unwrap()];
    // The pool itself may use the third connection to ask how many connections the server has left.
    eventually("the third connection is idle", LONG, async || pool.status().idle == 1).await;
    let busy = held.each_ref().map(|client| client.process_id().unwrap());
    let rests = format!("application_name = 'one_of_three' AND NOT pid = ANY (ARRAY{busy:?})");
    server.execute(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {rests}")).await;
    eventually("the pool notices the ended session", LONG, async || pool.status().idle == 0).await;
    drop(held);
    eventually("the pool keeps the other connections", LONG, async || pool.status().idle == 2).await;
    assert_eq!(server.connection_count("one_of_three").await, 2);
}

/// Callers that make one call after another. While a test holds the gate, none of them has a call under way.
struct Callers {
    gate: Arc<RwLock<()>>,
    tasks: Vec<tokio::task::JoinHandle<Vec<Error>>>,
}

impl Callers {
    fn begin(pool: &Pool, count: usize, until: Instant) -> Self {
        let gate = Arc::new(RwLock::new(()));
        let call = |pool: Pool, gate: Arc<RwLock<()>>, number: usize| async move {
            let mut errors = Vec::new();
            while Instant::now() < until {
                let passing = gate.read().await;
                let result = if number % 2 == 0 {
                    pool.query_one("SELECT 1", &[]).await.map(drop)
                } else {
                    pool.execute("INSERT INTO stale VALUES (1)", &[]).await.map(drop)
                };
                drop(passing);
                errors.extend(result.err());
                sleep(Duration::from_millis(3)).await;
            }
            errors
        };
        let tasks = (0..count).map(|number| tokio::spawn(call(pool.clone(), Arc::clone(&gate), number))).collect();
        Self { gate, tasks }
    }

    async fn errors(self) -> Vec<Error> {
        let mut errors = Vec::new();
        for task in self.tasks {
            errors.extend(task.await.unwrap());
        }
        errors
    }
}

async fn is_whole(pool: &Pool) {
    let begun = Instant::now();
    eventually("the pool has all connections again", LONG, async || pool.status().idle + pool.status().in_use == 20)
        .await;
    let after = begun.elapsed();
    println!("all connections again after {after:.0?}");
    assert!(after <= WHOLE_AGAIN, "{after:?}");
}

/// Returns the errors of callers that had a connection. The other callers had none, because no dial could succeed.
fn of_stale_connections(errors: Vec<Error>) -> Vec<Error> {
    use Error::{AcquireTimeout, CircuitOpen, Connect, Shed};
    let had_one =
        |error: &Error| !matches!(error, AcquireTimeout { .. } | CircuitOpen { .. } | Connect { .. } | Shed { .. });
    errors.into_iter().filter(had_one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_ended_by_an_administrator_reach_no_caller_and_are_replaced() {
    let server = Server::own(&[]).await;
    server.execute("CREATE TABLE stale (id int)").await;
    let pool = Pool::builder(server.config()).name("stale").max_size(20).min_idle(16).build().unwrap();
    pool.warm_up(20, LONG).await.unwrap();
    let callers = Callers::begin(&pool, 4, Instant::now() + Duration::from_secs(5));
    for _ in 0..8 {
        let gate = callers.gate.write().await;
        end_all(&server, "stale").await;
        drop(gate);
        let begun = Instant::now();
        eventually("the pool has min_idle connections again", LONG, async || pool.status().idle >= 16).await;
        assert!(begun.elapsed() <= WHOLE_AGAIN, "{:?}", begun.elapsed());
    }
    let errors = callers.errors().await;
    assert!(errors.is_empty(), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_leaves_no_dead_connection_behind() {
    let mut server = Server::own(&[]).await;
    server.execute("CREATE TABLE stale (id int)").await;
    let builder = Pool::builder(server.config()).name("restarted").max_size(20).min_idle(20);
    let pool = builder.build().unwrap();
    pool.warm_up(20, LONG).await.unwrap();
    let callers = Callers::begin(&pool, 4, Instant::now() + Duration::from_secs(8));
    let gate = callers.gate.write().await;
    server.stop().await;
    drop(gate);
    server.start().await;
    is_whole(&pool).await;
    let errors = of_stale_connections(callers.errors().await);
    assert!(errors.is_empty(), "{errors:?}");
    let whole = pool.status();
    assert_eq!(server.connection_count("restarted").await, (whole.idle + whole.in_use) as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_pooler_leaves_no_dead_connection_behind() {
    let server = Server::own(&[]).await;
    server.execute("CREATE TABLE stale (id int)").await;
    let Some(mut pooler) = PgBouncer::start(&server, &["max_prepared_statements = 100"]).await else {
        println!("skipped: there is no image with PgBouncer");
        return;
    };
    let builder = Pool::builder(server.config_at(pooler.addr())).name("repooled").max_size(20).min_idle(20);
    let pool = builder.build().unwrap();
    pool.warm_up(20, LONG).await.unwrap();
    let callers = Callers::begin(&pool, 4, Instant::now() + Duration::from_secs(8));
    let gate = callers.gate.write().await;
    pooler.stop().await;
    drop(gate);
    pooler.start_again(&server).await;
    is_whole(&pool).await;
    let errors = of_stale_connections(callers.errors().await);
    assert!(errors.is_empty(), "{errors:?}");
}

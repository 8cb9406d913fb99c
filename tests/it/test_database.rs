//! A database for each test: one template for all, none left over, and not more at a time than the server bears.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{env, thread};

use failfast::testing::{SetupError, TestDatabase, TestDatabaseBuilder};
use failfast::{Error, Pool};
use futures_util::FutureExt;
use tokio::runtime::Builder;
use tokio_postgres::Config;

use crate::pool::LONG;
use crate::support::{eventually, server::Server};

const SCHEMA: &str = "CREATE TABLE items (id bigint GENERATED ALWAYS AS IDENTITY, name text NOT NULL)";

async fn migrate(pool: Pool) -> Result<(), Error> {
    pool.batch_execute(SCHEMA).await
}

/// A text of migrations that only the caller has.
fn version() -> String {
    format!("{SCHEMA} -- {:x}", fastrand::u64(..))
}

fn builder(config: Config, version: &str) -> TestDatabaseBuilder {
    TestDatabase::builder(version).server(config)
}

/// How many databases of tests and how many templates the server has.
async fn databases(server: &Server) -> (u32, u32) {
    let count = async |kind: &str| {
        let sql = format!("SELECT count(*) FROM pg_database WHERE datname LIKE 'failfast\\_{kind}\\_%'");
        server.scalar(&sql).await.parse().unwrap()
    };
    (count("test").await, count("template").await)
}

#[tokio::test]
async fn migrations_run_once_and_each_test_has_its_own_database() {
    let server = Server::own(&[]).await;
    let (runs, version) = (AtomicU32::new(0), version());
    let create = || {
        builder(server.config(), &version).create(async |pool| {
            runs.fetch_add(1, Relaxed);
            migrate(pool).await
        })
    };
    let made = futures_util::future::try_join_all((0..5).map(|_| create())).await.unwrap();
    assert_eq!((runs.load(Relaxed), databases(&server).await), (1, (5, 1)));
    for (n, database) in made.iter().enumerate() {
        let pool = database.pool();
        pool.execute("INSERT INTO items (name) SELECT 'x' FROM generate_series(0, $1)", &[&(n as i32)]).await.unwrap();
    }
    for (n, database) in made.iter().enumerate() {
        let rows: i64 = database.pool().query_one("SELECT count(*) FROM items", &[]).await.unwrap().get(0);
        assert_eq!((rows, database.pool().status().max_size), (n as i64 + 1, 2));
        assert_eq!(database.config().get_dbname(), Some(database.name()));
    }
    drop(made);
    assert_eq!(databases(&server).await, (0, 1));
    drop(create().await.unwrap());
    assert_eq!((runs.load(Relaxed), databases(&server).await), (1, (0, 1)));
}

/// On a runtime of one thread, the drop stops the test. The server waits for a session that is just beginning.
#[tokio::test]
async fn a_database_is_gone_after_a_drop_in_the_middle_of_a_dial() {
    let server = Server::own(&[]).await;
    for steps in 0..8 {
        let database = builder(server.config(), SCHEMA).create(migrate).await.unwrap();
        database.pool().try_get().unwrap_err();
        for _ in 0..steps {
            tokio::task::yield_now().await;
            thread::sleep(Duration::from_millis(10)); // for the server
        }
        let begun = Instant::now();
        drop(database);
        assert!(begun.elapsed() < Duration::from_secs(4), "{steps} steps: {:?}", begun.elapsed());
        assert_eq!(databases(&server).await, (0, 1), "{steps} steps");
    }
}

/// The same for the dial of a listener.
#[tokio::test]
async fn a_database_is_gone_after_a_drop_in_the_middle_of_listen() {
    let server = Server::own(&[]).await;
    for steps in 0..8 {
        let database = builder(server.config(), SCHEMA).create(migrate).await.unwrap();
        let mut listens = Box::pin(database.pool().listen(["a"]).unwrap());
        let mut done = (&mut listens).now_or_never();
        for _ in 0..steps {
            tokio::task::yield_now().await;
            thread::sleep(Duration::from_millis(5)); // for the server
            if done.is_none() {
                done = (&mut listens).now_or_never();
            }
        }
        let begun = Instant::now();
        drop(database);
        assert!(begun.elapsed() < Duration::from_secs(4), "{steps} steps: {:?}", begun.elapsed());
        assert_eq!(databases(&server).await, (0, 1), "{steps} steps");
    }
}

#[tokio::test]
async fn failed_migrations_leave_no_template() {
    let server = Server::own(&[]).await;
    let (version, wrong) = (version(), async |pool: Pool| pool.batch_execute("CREATE TABLE wrong (n nothing)").await);
    for _ in 0..2 {
        let error = builder(server.config(), &version).create(wrong).await.unwrap_err();
        assert!(error.to_string().starts_with("no test database: the migrations failed: ERROR: "), "{error}");
        assert_eq!(format!("{error:?}"), error.to_string());
    }
    drop(builder(server.config(), &version).create(migrate).await.unwrap());
}

#[test]
fn a_connection_that_was_not_given_back_fails_the_test() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(Server::own(&[]));
    let version = version();
    let failure = |work: fn(&TestDatabase)| {
        let test = || {
            runtime.block_on(async {
                let database = builder(server.config(), &version).create(migrate).await.unwrap();
                let returned = database.pool().get().await.unwrap();
                drop(returned);
                let held = database.pool().call().name("forgotten").get().await.unwrap();
                held.execute("SELECT 1", &[]).await.unwrap();
                std::mem::forget(held);
                work(&database);
            });
        };
        let panic = catch_unwind(AssertUnwindSafe(test)).unwrap_err();
        assert_eq!(runtime.block_on(databases(&server)).0, 0, "the database is dropped all the same");
        panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
    };
    let text = failure(|_| {}).unwrap();
    assert!(
        text.contains("were not given back at the end of the test: forgotten (") && text.contains(file!()),
        "{text}"
    );
    // The panic of the test is the one that is reported.
    assert_eq!(failure(|_| panic!("the test's own")).unwrap(), "the test's own");
}

#[tokio::test(flavor = "multi_thread")]
async fn tests_wait_for_their_turn_and_learn_why_it_does_not_come() {
    // (15 - 3) * 3/4 / (2 + 1) = 3 tests.
    let server = Server::own(&[("max_connections", "15")]).await;
    let version = version();
    let create = |wait| builder(server.config(), &version).wait(wait).create(migrate);
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(create(LONG).await.unwrap());
    }
    let error: SetupError = create(Duration::from_millis(200)).await.unwrap_err();
    assert!(error.to_string().contains("all 3 places on the server are taken"), "{error}");
    assert!(error.to_string().contains("max_connections"), "{error}");
    let waiting = {
        let waiting = builder(server.config(), &version).create(migrate);
        let mut waiting = Box::pin(waiting);
        assert!(tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.is_err(), "a fourth place");
        drop(running.pop());
        waiting.await.unwrap()
    };
    drop((waiting, running));
    assert_eq!(databases(&server).await.0, 0);
}

#[tokio::test]
async fn what_a_killed_process_leaves_is_dropped_by_the_next() {
    let server = Server::own(&[]).await;
    let live = builder(server.config(), &version()).create(migrate).await.unwrap();
    assert!(!process(&server.url(), "abort").wait().unwrap().success());
    assert_eq!(databases(&server).await.0, 2);
    let in_use = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1717659909";
    eventually("the server notices the end of the process", LONG, async || server.scalar(in_use).await == "1").await;
    assert!(process(&server.url(), "1x1").wait().unwrap().success());
    assert_eq!(databases(&server).await.0, 1, "the leftover, or the database of the live test");
    live.pool().query("SELECT * FROM items", &[]).await.unwrap();
}

/// Advisory locks are per database: a process that connects to another one cannot see which databases are in use.
#[tokio::test]
async fn the_databases_of_others_are_left_alone() {
    let server = Server::own(&[]).await;
    server.execute("CREATE DATABASE other").await;
    server.execute("CREATE DATABASE failfast_test_mine").await;
    let live = builder(server.config(), SCHEMA).create(migrate).await.unwrap();
    let others = format!("{}/other", server.url().strip_suffix("/failfast").unwrap());
    for _ in 0..2 {
        assert!(process(&others, "1x1").wait().unwrap().success());
        live.pool().query("SELECT * FROM items", &[]).await.unwrap();
        // The live one and the one made by hand; a template of each project.
        assert_eq!(databases(&server).await, (2, 2));
    }
    assert!(process(&server.url(), "1x1").wait().unwrap().success());
    assert_eq!(databases(&server).await, (2, 2));
    live.pool().query("SELECT * FROM items", &[]).await.unwrap();
}

/// Somebody looks at the template while it is made, and the role may not end that session.
#[tokio::test]
async fn a_role_without_special_rights_makes_a_template_that_a_superuser_looks_at() {
    let server = Server::own(&[]).await;
    server.execute("CREATE ROLE plain LOGIN CREATEDB PASSWORD 'secret'").await;
    let mut config = server.config();
    config.user("plain");
    let created = builder(config, &version()).create(async |pool: Pool| {
        migrate(pool.clone()).await?;
        let mut superuser = server.config();
        superuser.dbname(pool.query_one("SELECT current_database()::text", &[]).await?.get::<_, &str>(0));
        let (looking, connection) = superuser.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await; // the server waits for five
            drop(looking);
        });
        Ok::<_, Error>(())
    });
    created.await.unwrap().pool().query("SELECT * FROM items", &[]).await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_answer_fails_the_test() {
    let server = Server::own(&[]).await;
    drop(builder(server.config(), SCHEMA).create(migrate).await.unwrap());
    let holder = server.admin().await;
    holder.batch_execute("BEGIN; LOCK TABLE pg_database IN SHARE MODE").await.unwrap();
    let creating = builder(server.config(), SCHEMA).wait(Duration::from_secs(3)).create(migrate);
    let error = tokio::time::timeout(LONG, creating).await.expect("the wait has no end").unwrap_err();
    let expected = "no test database: cannot create the database: the server has not answered within 3 s; ";
    assert!(error.to_string().starts_with(expected), "{error}");
    holder.batch_execute("ROLLBACK").await.unwrap();
}

/// Processes with threads, as cargo-nextest and cargo test run them.
async fn run_processes(processes: usize, work: &str, connections: &str) {
    let server = Server::own(&[("max_connections", connections)]).await;
    let url = server.url();
    let children: Vec<_> = (0..processes).map(|_| process(&url, work)).collect();
    for child in children {
        let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success(), "{text}");
    }
    assert_eq!(databases(&server).await, (0, 1));
}

#[tokio::test]
async fn many_processes_share_a_small_server() {
    run_processes(4, "8x4", "30").await;
}

/// `FAILFAST_ROUNDS` rounds of 200 tests in 8 processes.
#[tokio::test]
#[ignore = "takes minutes"]
async fn two_hundred_tests_in_eight_processes() {
    let rounds: u32 = env::var("FAILFAST_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    for round in 1..=rounds {
        let begun = Instant::now();
        run_processes(8, "25x8", "50").await;
        println!("round {round}: 200 tests in {:.1} s", begun.elapsed().as_secs_f64());
    }
}

/// How long a test waits for its database: copied from the template, and with migrations of its own.
#[tokio::test]
#[ignore = "a measurement"]
async fn a_copy_of_a_template_and_migrations_per_test() {
    let server = Server::own(&[]).await;
    let tables: String = (0..100)
        .map(|n| {
            format!("CREATE TABLE t{n} (id bigint PRIMARY KEY, a text NOT NULL, b int); CREATE INDEX ON t{n} (a);")
        })
        .collect();
    let migrate = async |pool: Pool| pool.batch_execute(&tables).await;
    drop(builder(server.config(), &tables).create(migrate).await.unwrap());
    for (what, is_shared) in [("template", true), ("migrations per test", false)] {
        let mut times = Vec::new();
        for _ in 0..20 {
            let version = if is_shared { tables.clone() } else { version() };
            let begun = Instant::now();
            let database = builder(server.config(), &version).create(migrate).await.unwrap();
            times.push(begun.elapsed());
            drop(database);
        }
        times.sort();
        println!("{what}: median {:?}, slowest {:?}", times[times.len() / 2], times[times.len() - 1]);
    }
}

/// Starts this program again, for [`in_a_process_of_its_own`].
fn process(url: &str, work: &str) -> std::process::Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["test_database::in_a_process_of_its_own", "--exact", "--ignored", "--nocapture"]);
    command.env("DATABASE_URL", url).env("FAILFAST_TEST_WORK", work);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The process that [`process`] starts: `abort`, or how many tests on how many threads.
#[test]
#[ignore = "other tests start it"]
fn in_a_process_of_its_own() {
    let Ok(work) = env::var("FAILFAST_TEST_WORK") else { return };
    if work == "abort" {
        return one_test(|| std::process::abort());
    }
    let (tests, threads) = work.split_once('x').unwrap();
    let left = Mutex::new(tests.parse::<u32>().unwrap());
    let next = || {
        let mut left = left.lock().unwrap();
        let is_left = *left > 0;
        *left -= u32::from(is_left);
        is_left
    };
    thread::scope(|scope| {
        for _ in 0..threads.parse::<u32>().unwrap() {
            scope.spawn(|| {
                while next() {
                    one_test(|| {});
                }
            });
        }
    });
}

fn one_test(then: fn()) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let database = TestDatabase::builder(SCHEMA).create(migrate).await.unwrap();
        let pool = database.pool();
        let insert = async |name: &str| pool.execute("INSERT INTO items (name) VALUES ($1)", &[&name]).await;
        let (one, other) = tokio::join!(insert("one"), insert("other"));
        assert_eq!((one.unwrap(), other.unwrap()), (1, 1));
        then();
        assert_eq!(pool.query("SELECT name FROM items", &[]).await.unwrap().len(), 2);
    });
}

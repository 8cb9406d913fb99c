//! 64 callers make random calls on one pool of eight connections, while an administrator kills connections. Some
//! callers drop futures, leave transactions open, or use the driver directly. No caller may ever notice another.
//!
//! `FAILFAST_SOAK_SECONDS` sets the duration (default 5). Runs of 30 and more are worth the wait. `FAILFAST_SOAK_SEED`
//! repeats the choices of a run, which prints its seed. Their timing still differs.

mod caller;
mod endurance;
mod record;
mod service;
mod storm;

use std::env;
use std::fmt::Display;
use std::str::FromStr;
use std::time::{Duration, Instant};

use failfast::Pool;
use fastrand::Rng;
use futures_util::future::join_all;
use tokio::time::sleep;

use self::caller::{Caller, Tally};
pub(crate) use self::record::{Record, Truth};
use crate::pool::LONG;
use crate::support::{eventually, server::Server};

const NAME: &str = "soak";
const CALLERS: u64 = 64;
const CONNECTIONS: usize = 8;

/// A trivial statement that takes longer waits behind the statement of another caller, which takes a minute.
const PROMPT: Duration = Duration::from_secs(10);

const TABLES: &str = "CREATE TABLE soak_applied (token text); CREATE TABLE soak_open (token text);
    CREATE TABLE soak_copied (token text, row int)";

/// Returns the environment variable of this name, or `default`.
fn setting<T: FromStr<Err: Display>>(name: &str, default: T) -> T {
    let Ok(text) = env::var(name) else { return default };
    text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}"))
}

/// The duration of the run.
pub(crate) fn duration() -> Duration {
    Duration::from_secs(setting("FAILFAST_SOAK_SECONDS", 5))
}

/// The seed of the run. The test prints it, so a later run can repeat the choices.
pub(crate) fn seed() -> u64 {
    let seed = setting("FAILFAST_SOAK_SEED", fastrand::u64(..));
    println!("FAILFAST_SOAK_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread")]
async fn no_caller_ever_notices_another() {
    let seed = seed();
    let server = Server::own(&[]).await;
    server.execute(TABLES).await;
    let pool = Pool::builder(server.config()).name(NAME).max_size(CONNECTIONS).query_timeout(PROMPT);
    let pool = pool.acquire_timeout(PROMPT).build().unwrap();

    let end = Instant::now() + duration();
    let callers = (0..CALLERS).map(|number| {
        let caller = Caller::new(pool.clone(), Rng::with_seed(seed.wrapping_add(number)), number);
        tokio::spawn(caller.work_until(end))
    });
    let callers: Vec<_> = callers.collect();
    let killed = kill_at_random(&server, Rng::with_seed(seed), end).await;
    let mut seen = Tally::default();
    for caller in join_all(callers).await {
        seen.add(caller.unwrap_or_else(|_| panic!("a caller noticed another caller (see above); seed {seed}")));
    }

    eventually("the slots add up", LONG, async || {
        let status = pool.status();
        status.in_use + status.settling + status.dialing + status.closing + status.waiting == 0
    })
    .await;
    let running =
        format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{NAME}' AND state <> 'idle'");
    eventually("no statement of the pool runs", LONG, async || server.scalar(&running).await == "0").await;
    eventually("every slot can be used, and the server has as many connections", LONG, async || {
        // A killed idle connection may be noticed only when a caller takes it.
        let all = join_all((0..CONNECTIONS).map(|_| pool.get())).await;
        let are_there = all.iter().all(Result::is_ok);
        drop(all);
        let connections = CONNECTIONS as u64;
        are_there && server.connection_count(NAME).await == connections && pool.status().idle == CONNECTIONS
    })
    .await;
    assert_eq!(
        server.scalar("SELECT count(*) FROM soak_open").await,
        "0",
        "a transaction that no caller committed was committed"
    );
    let truth = Truth::of(&server, "SELECT token FROM soak_applied").await;
    println!("soak: {seen}, {killed} connections killed; {}", seen.record.check(&truth));
    assert!(seen.turns > 0 && killed > 0);
}

/// Kills one connection of the pool after another, whether it is idle or not.
async fn kill_at_random(server: &Server, mut rng: Rng, end: Instant) -> u64 {
    let admin = server.admin().await;
    let kill =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1 ORDER BY random() LIMIT 1";
    let mut killed = 0;
    while Instant::now() < end {
        sleep(Duration::from_millis(rng.u64(50..400))).await;
        killed += admin.execute(kill, &[&NAME]).await.unwrap();
    }
    killed
}

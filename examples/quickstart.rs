//! The pool on a good day, with queries of many tasks, and on a bad one, with three times the load that the server can
//! serve. On the bad day bare deadpool-postgres runs beside it on the same server.
//!
//! `cargo run --release --example quickstart`. Uses `DATABASE_URL`, or starts a throwaway server.

mod support;

use std::error::Error;
use std::time::{Duration, Instant};

use failfast::{Config, Pool};
use support::Throwaway;
use tokio::task::JoinSet;
use tokio::time::{self, MissedTickBehavior};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const CONNECTIONS: usize = 10;
/// How long each query of the overload holds its connection.
const HOLD: Duration = Duration::from_millis(20);
const HOLD_SQL: &str = "SELECT pg_sleep(0.02)";
/// The deadline of each caller.
const LIMIT: Duration = Duration::from_millis(250);
const OVERLOAD: usize = 3;
const LASTS: Duration = Duration::from_secs(3);
/// How long the example waits for the last answers.
const AFTERMATH: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<()> {
    let server = Throwaway::start().await?;
    let pool = Pool::builder(server.config())
        .name("quickstart")
        .max_size(CONNECTIONS)
        .max_waiting(2 * CONNECTIONS)
        .acquire_timeout(LIMIT)
        .build()?;

    many_tasks(&pool).await?;
    overload(&pool, server.config()).await
}

/// Twice as many tasks as connections. Each waits for its turn, and the pool refuses none.
async fn many_tasks(small: &Pool) -> Result<()> {
    let client = small.get().await?;
    let version: String = client.query_one("SHOW server_version", &[]).await?.get(0);
    println!("connected to PostgreSQL {version}: {}", small.status());
    drop(client);

    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for n in 0..2 * CONNECTIONS as i64 {
        let pool = small.clone();
        tasks.spawn(async move {
            let mut sum = 0;
            for i in 0..50 {
                let client = pool.get().await?;
                sum += client.query_one("SELECT $1::int8 * 2", &[&(n + i)]).await?.get::<_, i64>(0);
            }
            Result::Ok(sum)
        });
    }
    let mut sum = 0;
    while let Some(task) = tasks.join_next().await {
        sum += task??;
    }
    println!("1000 queries from {} tasks in {:.0?}, their sum is {sum}", 2 * CONNECTIONS, begun.elapsed());
    println!("{}\n", small.status());
    Ok(())
}

async fn overload(pool: &Pool, config: Config) -> Result<()> {
    let capacity = CONNECTIONS as f64 / HOLD.as_secs_f64();
    let rate = capacity * OVERLOAD as f64;
    println!(
        "{OVERLOAD}x overload: {rate:.0} queries/s of {HOLD:?} each on {CONNECTIONS} connections for {LASTS:?}; \
         an answer after {LIMIT:?} is late"
    );

    let failfast = arrive(rate, || {
        let pool = pool.clone();
        async move {
            let client = pool.get().await?;
            client.batch_execute(HOLD_SQL).await?;
            Ok(())
        }
    })
    .await;
    println!("{}", pool.status());

    let manager = deadpool_postgres::Manager::new(config, tokio_postgres::NoTls);
    let deadpool = deadpool_postgres::Pool::builder(manager).max_size(CONNECTIONS).build()?;
    let bare = arrive(rate, || {
        let pool = deadpool.clone();
        async move {
            let client = pool.get().await?;
            client.batch_execute(HOLD_SQL).await?;
            Ok(())
        }
    })
    .await;

    println!("\n                    failfast   deadpool");
    let print = |name, cell: fn(&Tally) -> String| {
        println!("{name:<17} {:>10} {:>10}", cell(&failfast), cell(&bare));
    };
    print("asked", |tally| tally.asked.to_string());
    print("served in time", |tally| tally.served.len().to_string());
    print("served too late", |tally| tally.late.len().to_string());
    print("refused", |tally| tally.refused.len().to_string());
    print("never answered", |tally| tally.unanswered().to_string());
    print("median answer", |tally| median(tally.served.iter().chain(&tally.late)));
    print("median refusal", |tally| median(tally.refused.iter()));
    Ok(())
}

/// How many callers were served, refused or late, and after how long.
#[derive(Default)]
struct Tally {
    asked: usize,
    served: Vec<Duration>,
    late: Vec<Duration>,
    refused: Vec<Duration>,
}

impl Tally {
    fn unanswered(&self) -> usize {
        self.asked - self.served.len() - self.late.len() - self.refused.len()
    }
}

/// Callers arrive at a steady rate, whether or not the earlier ones have their answer, as real traffic does.
async fn arrive<F>(rate: f64, call: impl Fn() -> F) -> Tally
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut tally = Tally::default();
    let mut callers = JoinSet::new();
    let mut tick = time::interval(Duration::from_millis(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begun = Instant::now();
    while begun.elapsed() < LASTS {
        tick.tick().await;
        while (tally.asked as f64) < begun.elapsed().as_secs_f64() * rate {
            tally.asked += 1;
            let caller = call();
            callers.spawn(async move {
                let asked = Instant::now();
                (caller.await.is_ok(), asked.elapsed())
            });
        }
    }
    let give_up = time::Instant::now() + AFTERMATH;
    while let Ok(Some(answer)) = time::timeout_at(give_up, callers.join_next()).await {
        match answer {
            Ok((true, after)) if after <= LIMIT => tally.served.push(after),
            Ok((true, after)) => tally.late.push(after),
            Ok((false, after)) => tally.refused.push(after),
            Err(_) => {}
        }
    }
    tally
}

fn median<'a>(times: impl Iterator<Item = &'a Duration>) -> String {
    let mut times: Vec<_> = times.collect();
    times.sort();
    times.get(times.len() / 2).map_or("-".into(), |time| format!("{time:.1?}"))
}

//! Below capacity the pool should refuse no caller that a plain queue would have served in time. The same callers come
//! to failfast and to deadpool, whose queue is first come, first served, with the same acquire timeout. Both run at
//! once, so that a noisy machine slows both.
//!
//! The load is open loop, a seeded Poisson process. Each caller keeps its connection while the server sleeps.

use std::time::{Duration, Instant};

use deadpool_postgres::{Pool as Deadpool, Timeouts};
use failfast::Pool;
use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time;

use super::support::Throwaway;
use super::{Report, median, peers};

const CONNECTIONS: usize = 10;
const LIMIT: Duration = Duration::from_secs(1);
const WARM: Duration = Duration::from_secs(20);
const LASTS: Duration = Duration::from_secs(15);
/// The loads, as shares of the capacity.
const LOADS: [f64; 2] = [0.7, 0.8];

pub(super) async fn measure(server: &Throwaway, report: &mut Report) {
    let holds = [
        ("fixed", Holds { short: 0.020, long: 0.020, share: 0.0 }),
        ("bimodal", Holds { short: 0.005, long: 0.500, share: 0.03 }),
    ];
    for (name, holds) in holds {
        let name = format!("false-refusals-{name}-percent");
        if report.wants(&name) {
            let pools = Pools::new(server).await;
            let mut falsely = 0.0_f64;
            for load in LOADS {
                falsely = falsely.max(pools.compare(holds, load).await);
            }
            report.at_most(&name, falsely, 0.5);
        }
    }
}

/// How long callers keep their connections, in seconds, and the share of callers with the long time.
#[derive(Debug, Clone, Copy)]
struct Holds {
    short: f64,
    long: f64,
    share: f64,
}

impl Holds {
    fn mean(self) -> f64 {
        self.short * (1.0 - self.share) + self.long * self.share
    }

    fn next(self, rng: &mut Rng) -> f64 {
        if rng.f64() < self.share { self.long } else { self.short }
    }
}

/// How long a caller waited, if the pool served it.
type Answer = Option<Duration>;

struct Pools {
    ours: Pool,
    plain: Deadpool,
    /// The time that the machine adds to each hold, without load.
    overhead: Duration,
}

impl Pools {
    async fn new(server: &Throwaway) -> Self {
        let builder = Pool::builder(server.config()).max_size(CONNECTIONS).acquire_timeout(LIMIT);
        let ours = builder.build().expect("good settings");
        ours.warm_up(CONNECTIONS, WARM).await.expect("connections");
        let timeouts = Timeouts { wait: Some(LIMIT), ..peers::NO_TIMEOUT };
        let plain = peers::deadpool(server.config(), CONNECTIONS, timeouts).await;
        let mut times = Vec::new();
        for _ in 0..101 {
            let begun = Instant::now();
            ask_ours(&ours, 0.005).await.expect("idle");
            times.push(begun.elapsed());
        }
        Self { ours, plain, overhead: median(times).saturating_sub(Duration::from_millis(5)) }
    }

    /// Returns the share of callers that failfast refused and the plain queue served, in percent.
    async fn compare(&self, holds: Holds, load: f64) -> f64 {
        let rate = load * CONNECTIONS as f64 / (holds.mean() + self.overhead.as_secs_f64());
        let mut rng = Rng::with_seed(7);
        let mut callers = JoinSet::new();
        let (begun, mut tick) = (Instant::now(), time::interval(Duration::from_millis(1)));
        let mut arrives = 0.0;
        while begun.elapsed() < LASTS {
            tick.tick().await;
            while arrives < begun.elapsed().as_secs_f64() {
                arrives += -(1.0 - rng.f64()).ln() / rate;
                let hold = holds.next(&mut rng);
                let (ours, plain) = (self.ours.clone(), self.plain.clone());
                callers.spawn(async move { tokio::join!(ask_ours(&ours, hold), ask_plain(&plain, hold)) });
            }
        }
        let (ours, plain): (Vec<_>, Vec<_>) = callers.join_all().await.into_iter().unzip();
        let falsely = ours.iter().zip(&plain).filter(|(ours, plain)| ours.is_none() && plain.is_some()).count();
        println!("# {holds:?}, {:.1?} added, load {load}: {} callers", self.overhead, ours.len());
        for (name, answers) in [("failfast", &ours), ("the plain queue", &plain)] {
            let refused = answers.iter().filter(|answer| answer.is_none()).count();
            let slowest = answers.iter().flatten().max();
            println!("# {name} refused {refused}; slowest wait {:.0?}", slowest.copied().unwrap_or_default());
        }
        100.0 * falsely as f64 / ours.len() as f64
    }
}

async fn ask_ours(pool: &Pool, hold: f64) -> Answer {
    let asked = Instant::now();
    let client = pool.get().await.ok()?;
    let waited = asked.elapsed();
    client.execute("SELECT pg_sleep($1)", &[&hold]).await.expect("an answer");
    Some(waited)
}

async fn ask_plain(pool: &Deadpool, hold: f64) -> Answer {
    let asked = Instant::now();
    let client = pool.get().await.ok()?;
    let waited = asked.elapsed();
    client.execute("SELECT pg_sleep($1)", &[&hold]).await.expect("an answer");
    Some(waited)
}

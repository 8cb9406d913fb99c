//! Callers ask for more than the server can do. The benchmark measures how much is served in time, how fast, and how
//! fast the others are refused.
//!
//! The load is open loop: callers arrive whether or not earlier ones have an answer.

use std::time::{Duration, Instant};

use failfast::{Error, Pool, ShedReason};
use tokio::task::JoinSet;
use tokio::time;

use super::support::Throwaway;
use super::{Report, median};

const CONNECTIONS: usize = 20;
const LIMIT: Duration = Duration::from_millis(250);
const LASTS: Duration = Duration::from_secs(5);
const WARM: Duration = Duration::from_secs(20);

pub(super) async fn measure(server: &Throwaway, report: &mut Report) {
    for times in [3, 10] {
        let name = format!("surge-{times}x");
        if report.wants(&name) {
            let run = Run::new(server, 20).await;
            let tally = run.offer(run.capacity * f64::from(times)).await;
            report.at_least(&format!("{name}-goodput"), tally.goodput(run.capacity), 0.98);
            report.at_most(&format!("{name}-p50-in-holds"), tally.median_answer(run.service), 2.0);
            report.at_most(&format!("{name}-refusal-p99-ms"), tally.slowest_refusals(), 1.0);
        }
    }
    if report.wants("slow-9x-goodput") {
        let fast = Run::new(server, 20).await;
        let slow = Run { pool: fast.pool.clone(), ..Run::new(server, 180).await };
        fast.offer(fast.capacity * 0.7).await;
        let tally = slow.offer(fast.capacity * 0.7).await;
        report.at_least("slow-9x-goodput", tally.goodput(slow.capacity), 0.95);
    }
}

struct Run {
    pool: Pool,
    sql: String,
    /// The time of one call without load.
    service: Duration,
    /// Calls per second: the connections divided by the service time.
    capacity: f64,
}

impl Run {
    async fn new(server: &Throwaway, hold_ms: u32) -> Self {
        let builder = Pool::builder(server.config()).max_size(CONNECTIONS).acquire_timeout(LIMIT);
        let pool = builder.build().expect("good settings");
        pool.warm_up(CONNECTIONS, WARM).await.expect("connections");
        let sql = format!("SELECT pg_sleep({})", f64::from(hold_ms) / 1e3);
        let mut times = Vec::new();
        for _ in 0..21 {
            let asked = Instant::now();
            pool.call().execute(&sql, &[]).await.expect("an answer");
            times.push(asked.elapsed());
        }
        let service = median(times);
        let capacity = CONNECTIONS as f64 / service.as_secs_f64();
        println!("# {hold_ms} ms holds: {service:.1?} unloaded, {capacity:.0}/s on {CONNECTIONS} connections");
        Self { pool, sql, service, capacity }
    }

    async fn offer(&self, rate: f64) -> Tally {
        let mut tally = Tally { asked: 0, served: Vec::new(), refused: Vec::new(), late: 0 };
        let mut callers = JoinSet::new();
        let mut tick = time::interval(Duration::from_millis(1));
        let begun = Instant::now();
        while begun.elapsed() < LASTS {
            tick.tick().await;
            while (tally.asked as f64) < begun.elapsed().as_secs_f64() * rate {
                tally.asked += 1;
                let (pool, sql) = (self.pool.clone(), self.sql.clone());
                callers.spawn(async move {
                    let asked = Instant::now();
                    let result = pool.call().deadline(LIMIT).execute(&sql, &[]).await;
                    (result, asked.elapsed())
                });
            }
            while let Some(answer) = callers.try_join_next() {
                tally.add(answer.expect("no panic"));
            }
        }
        while let Some(answer) = callers.join_next().await {
            tally.add(answer.expect("no panic"));
        }
        println!(
            "# {rate:.0}/s offered for {LASTS:?}: {} asked, {} served, {} refused at entry, {} too late",
            tally.asked,
            tally.served.len(),
            tally.refused.len(),
            tally.late
        );
        tally
    }
}

struct Tally {
    asked: usize,
    served: Vec<Duration>,
    /// The durations of the refusals at entry.
    refused: Vec<Duration>,
    /// Calls refused at hand-over, or not finished in time.
    late: usize,
}

impl Tally {
    fn add(&mut self, (result, after): (Result<u64, Error>, Duration)) {
        match result {
            Ok(_) if after <= LIMIT => self.served.push(after),
            Ok(_) | Err(Error::Shed { reason: ShedReason::TooLate, .. }) => self.late += 1,
            Err(Error::Shed { .. }) => self.refused.push(after),
            Err(_) => self.late += 1,
        }
    }

    fn goodput(&self, capacity: f64) -> f64 {
        self.served.len() as f64 / (capacity * LASTS.as_secs_f64())
    }

    fn median_answer(&self, service: Duration) -> f64 {
        median(self.served.clone()).as_secs_f64() / service.as_secs_f64()
    }

    /// Returns the 99th percentile of the refusals, in milliseconds.
    fn slowest_refusals(&self) -> f64 {
        let mut refused = self.refused.clone();
        refused.sort();
        refused[refused.len() * 99 / 100].as_secs_f64() * 1e3
    }
}

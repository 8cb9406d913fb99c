//! A flood in the lane `Background`, beside callers of `Critical`, on a pool of 20: with lanes, and with lanes off.
//!
//! The load is open loop. Critical asks for 30% of the pool, the flood for 20 times what the pool can do.

use std::time::{Duration, Instant};

use failfast::{Call, Error, Lane, Pool};
use tokio::task::JoinSet;
use tokio::time;

use super::Report;
use super::support::Throwaway;

const CONNECTIONS: usize = 20;
const LASTS: Duration = Duration::from_secs(5);
const WARM: Duration = Duration::from_secs(20);
/// How long the statements of each lane take on the server, in seconds.
const LOGIN: f64 = 0.02;
const REPORT: f64 = 0.2;

/// Calls of one kind: how many in a second, for how long on the server each, and in which lane.
#[derive(Clone, Copy)]
struct Load {
    rate: f64,
    seconds: f64,
    lane: Lane,
}

const LOGINS: Load = Load { rate: 0.3 * CONNECTIONS as f64 / LOGIN, seconds: LOGIN, lane: Lane::Critical };
const FLOOD: Load = Load { rate: 20.0 * CONNECTIONS as f64 / REPORT, seconds: REPORT, lane: Lane::Background };

pub(super) async fn measure(server: &Throwaway, report: &mut Report) {
    if report.wants("lanes-flood") {
        let calm = Run::new(server, true).await.offer(&[LOGINS]).await;
        let lanes = Run::new(server, true).await.offer(&[LOGINS, FLOOD]).await;
        let off = Run::new(server, false).await.offer(&[LOGINS, FLOOD]).await;
        for (name, run) in [("calm", &calm), ("flood, lanes", &lanes), ("flood, lanes off", &off)] {
            println!("# {name}: logins {}", run[0]);
            run.get(1).into_iter().for_each(|flood| println!("# {name}: reports {flood}"));
        }
        report.at_most("lanes-flood-p99", lanes[0].served_p99() / calm[0].served_p99(), 1.5);
        report.at_most("lanes-flood-refused", (lanes[0].refused.len() + lanes[0].timed_out) as f64, 0.0);
        report.at_most("lanes-flood-refusal-p99-ms", lanes[1].refused_p99() * 1e3, 1.0);
    }
    if report.wants("lanes-alone") {
        let alone = Load { rate: 0.9 * CONNECTIONS as f64 / LOGIN, lane: Lane::Normal, ..LOGINS };
        let mut rounds = Vec::new();
        for _ in 0..3 {
            let with = Run::new(server, true).await.offer(&[alone]).await[0].served.len() as f64;
            let without = Run::new(server, false).await.offer(&[alone]).await[0].served.len() as f64;
            println!("# Normal alone at 90% load: {with} served with lanes, {without} without");
            rounds.push(with / without);
        }
        rounds.sort_by(f64::total_cmp);
        report.at_least("lanes-alone", rounds[1], 0.97);
    }
}

struct Run {
    pool: Pool,
    has_lanes: bool,
}

impl Run {
    async fn new(server: &Throwaway, has_lanes: bool) -> Self {
        let pool = Pool::builder(server.config()).max_size(CONNECTIONS).build().expect("good settings");
        pool.warm_up(CONNECTIONS, WARM).await.expect("connections");
        if has_lanes {
            pool.lane(Lane::Critical).execute("SELECT 1", &[]).await.expect("an answer");
        }
        Self { pool, has_lanes }
    }

    /// Returns the answers of each load.
    async fn offer(self, loads: &[Load]) -> Vec<Answers> {
        let mut answers: Vec<_> = loads.iter().map(|_| Answers::default()).collect();
        let mut asked = vec![0.0; loads.len()];
        let mut callers = JoinSet::new();
        let mut tick = time::interval(Duration::from_millis(1));
        let begun = Instant::now();
        while begun.elapsed() < LASTS {
            tick.tick().await;
            for (index, load) in loads.iter().enumerate() {
                while asked[index] < begun.elapsed().as_secs_f64() * load.rate {
                    asked[index] += 1.0;
                    callers.spawn(call(self.pool.clone(), self.has_lanes.then_some(load.lane), load.seconds, index));
                }
            }
            while let Some(answer) = callers.try_join_next() {
                add(&mut answers, answer.expect("no panic"));
            }
        }
        while let Some(answer) = callers.join_next().await {
            add(&mut answers, answer.expect("no panic"));
        }
        answers
    }
}

/// The index of the load, how the call came out, and how long it took.
type Answer = (usize, Outcome, Duration);

enum Outcome {
    Served,
    Refused,
    /// The call waited for the whole acquire timeout.
    TimedOut,
}

async fn call(pool: Pool, lane: Option<Lane>, seconds: f64, index: usize) -> Answer {
    let asked = Instant::now();
    let call: Call<'_> = lane.map_or_else(|| pool.call(), |lane| pool.lane(lane));
    let result = call.execute("SELECT pg_sleep($1)", &[&seconds]).await;
    let outcome = match result {
        Ok(_) => Outcome::Served,
        Err(Error::Shed { .. }) => Outcome::Refused,
        Err(_) => Outcome::TimedOut,
    };
    (index, outcome, asked.elapsed())
}

/// How long the calls of one load took, in seconds.
#[derive(Default)]
struct Answers {
    served: Vec<f64>,
    refused: Vec<f64>,
    timed_out: usize,
}

fn add(answers: &mut [Answers], (index, outcome, took): Answer) {
    let answers = &mut answers[index];
    match outcome {
        Outcome::Served => answers.served.push(took.as_secs_f64()),
        Outcome::Refused => answers.refused.push(took.as_secs_f64()),
        Outcome::TimedOut => answers.timed_out += 1,
    }
}

fn percentile(times: &[f64], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times.get(times.len() * percent / 100).copied().unwrap_or_default()
}

impl Answers {
    fn served_p99(&self) -> f64 {
        percentile(&self.served, 99)
    }

    fn refused_p99(&self) -> f64 {
        percentile(&self.refused, 99)
    }
}

impl std::fmt::Display for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (served, refused) = (self.served.len(), self.refused.len());
        let [p50, p99] = [50, 99].map(|percent| percentile(&self.served, percent) * 1e3);
        write!(f, "{served} served, p50 {p50:.0} ms, p99 {p99:.0} ms; {refused} refused")?;
        write!(f, ", p50 {:.3} ms, p99 {:.3} ms", percentile(&self.refused, 50) * 1e3, self.refused_p99() * 1e3)?;
        write!(f, "; {} waited in vain", self.timed_out)
    }
}

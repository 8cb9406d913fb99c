//! Callers ask for three times the capacity, in bursts, and then for less than the capacity. The benchmark measures how
//! much is served in time, how fast, how fast the others are refused, and whether any caller is refused afterwards.
//!
//! Three pools get the same arrivals in turns of some seconds, in rotating order, so that a noisy machine slows all of
//! them. Only one pool is under load at a time, because they share the server's processors.

mod arrivals;
pub(super) mod burner;
mod pools;

use std::ops::Range;
use std::time::{Duration, Instant};

use arrivals::Pattern;
use burner::Burner;
use fastrand::Rng;
use pools::{Answer, Kind, Pool};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::Report;
use super::support::Throwaway;

const CONNECTIONS: usize = 20;
const HOLD: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_millis(250);
/// The loads, as shares of the capacity.
const SURGE: f64 = 3.0;
const CALM: f64 = 0.6;

/// A turn begins with the surge, of which this part is counted.
const SURGE_LASTS: Duration = Duration::from_millis(10_250);
const COUNTED: Range<Duration> = Duration::from_millis(1_000)..Duration::from_millis(10_000);
/// Then comes the calm. It counts the callers that arrive after every caller of the surge has an answer.
const CALM_LASTS: Duration = Duration::from_millis(1_000);
const QUARTER: Duration = Duration::from_millis(250);
const REST: Duration = Duration::from_millis(100);
const ROUNDS: usize = 3;

struct Scenario {
    name: &'static str,
    pattern: Pattern,
    /// Whether another process keeps all processors busy.
    is_pressed: bool,
    /// The limit of the goodput, as a share of tuned deadpool's.
    goodput: f64,
    /// The limit of the median answer, as a share of tuned deadpool's.
    answer: f64,
}

fn scenarios() -> [Scenario; 7] {
    let together = |ms| Pattern::Together { every: Duration::from_millis(ms) };
    let on_off = Pattern::OnOff { sources: 3, on: Duration::from_millis(50), off: Duration::from_millis(100) };
    let scenario = |name, pattern| Scenario { name, pattern, is_pressed: false, goodput: 0.98, answer: 0.5 };
    let pressed = |name, pattern| Scenario { is_pressed: true, goodput: 0.97, ..scenario(name, pattern) };
    [
        scenario("bursts-20ms", together(20)),
        scenario("bursts-50ms", together(50)),
        scenario("bursts-100ms", together(100)),
        // The bursts are one deadline apart. Every pool with the same goodput then has the same queue, and the same
        // median answer.
        Scenario { answer: 1.1, ..scenario("bursts-250ms", together(250)) },
        // All sources are off 30% of the time, for 33 ms on average. A queue that loses at most half a percent by it
        // lasts for 135 ms, and 20 ms of work follow.
        Scenario { answer: 1.0, ..scenario("bursts-on-off", on_off) },
        pressed("pressure-at-random", Pattern::AtRandom),
        pressed("pressure-100ms", together(100)),
    ]
}

pub(super) async fn measure(server: &Throwaway, report: &mut Report) {
    for scenario in scenarios() {
        if report.wants(scenario.name) {
            scenario.measure(server, report).await;
        }
    }
}

impl Scenario {
    async fn measure(&self, server: &Throwaway, report: &mut Report) {
        let run = Run::new(server).await;
        let burner = self.is_pressed.then(|| Burner::start().expect("a second process"));
        let mut turns = Kind::ALL.map(|_| Vec::new());
        for round in 0..ROUNDS {
            let arrivals = run.arrivals(self.pattern, round as u64);
            for turn in order(round) {
                turns[turn].push(run.turn(&run.pools[turn], &arrivals).await);
                sleep(REST).await;
            }
        }
        drop(burner);
        self.report(&run, &turns, report);
    }

    fn report(&self, run: &Run, turns: &[Vec<Tally>; 3], report: &mut Report) {
        let name = self.name;
        for (kind, turns) in Kind::ALL.iter().zip(turns) {
            println!("# {name}: {}: {}", kind.name(), run.line(turns));
            println!("# {name}: {}: median answers in ms per quarter of a second: {}", kind.name(), over_time(turns));
        }
        let [ours, tuned, fifo] = turns;
        let answer = |turns: &[Tally]| percentile(&all(turns, |turn| &turn.served), 50);
        println!("# {name}: goodput beside a plain queue {:.3}", goodput(ours, fifo));
        report.at_least(&format!("{name}-goodput"), goodput(ours, tuned), self.goodput);
        report.at_most(&format!("{name}-median-answer"), answer(ours) / answer(tuned), self.answer);
        report.at_most(&format!("{name}-refusal-p99-ms"), percentile(&all(ours, |turn| &turn.refused), 99), 1.0);
        report.at_most(&format!("{name}-refused-after-percent"), refused_after(ours), 0.0);
    }
}

/// Every round begins with another pool, and every other round goes backwards, so that no pool always follows the same
/// one.
fn order(round: usize) -> [usize; 3] {
    let order = [round % 3, (round + 1) % 3, (round + 2) % 3];
    if round % 2 == 0 { order } else { [order[0], order[2], order[1]] }
}

struct Run {
    pools: Vec<Pool>,
    sql: String,
    /// The time of one call without load.
    service: Duration,
    /// Calls per second: the connections divided by the service time.
    capacity: f64,
}

impl Run {
    async fn new(server: &Throwaway) -> Self {
        let sql = format!("SELECT pg_sleep({})", HOLD.as_secs_f64());
        let mut pools = Vec::new();
        for kind in Kind::ALL {
            pools.push(kind.connect(server).await);
        }
        let service = pools[0].service(&sql).await;
        let capacity = CONNECTIONS as f64 / service.as_secs_f64();
        println!("# {HOLD:?} holds: {service:.1?} unloaded, {capacity:.0}/s on {CONNECTIONS} connections");
        Self { pools, sql, service, capacity }
    }

    /// The arrivals of one turn, in order.
    fn arrivals(&self, pattern: Pattern, seed: u64) -> Vec<Duration> {
        let mut rng = Rng::with_seed(seed);
        let surge = pattern.arrivals(SURGE * self.capacity, SURGE_LASTS, &mut rng);
        let calm = pattern.arrivals(CALM * self.capacity, CALM_LASTS, &mut rng);
        surge.into_iter().chain(calm.into_iter().map(|due| SURGE_LASTS + due)).collect()
    }

    async fn turn(&self, pool: &Pool, arrivals: &[Duration]) -> Tally {
        let mut tally = Tally::default();
        let mut callers = JoinSet::new();
        let begun = Instant::now();
        for due in arrivals.iter().copied() {
            if begun.elapsed() < due {
                while let Some(call) = callers.try_join_next() {
                    tally.add(&call.expect("no panic"), self.service);
                }
                sleep_until((begun + due).into()).await;
            }
            tally.lag = tally.lag.max(begun.elapsed().saturating_sub(due));
            let (pool, sql) = (pool.clone(), self.sql.clone());
            callers.spawn(async move {
                let (answer, after) = pool.ask(&sql).await;
                Call { due, answered: begun.elapsed(), after, answer }
            });
        }
        while let Some(call) = callers.join_next().await {
            tally.add(&call.expect("no panic"), self.service);
        }
        tally
    }

    /// Describes what one pool did in all its turns.
    fn line(&self, turns: &[Tally]) -> String {
        let possible = self.capacity * (COUNTED.end - COUNTED.start).as_secs_f64();
        let share = |turn: &Tally| format!("{:.0}", 100.0 * turn.served.len() as f64 / possible);
        let served = all(turns, |turn| &turn.served);
        format!(
            "served {}% of capacity, half within {:.0} ms, 99% within {:.0} ms; {} refused at entry, {} too late; \
             then {} of {} refused; callers sent up to {:.0?} late",
            turns.iter().map(share).collect::<Vec<_>>().join(", "),
            percentile(&served, 50),
            percentile(&served, 99),
            sum(turns, |turn| turn.refused.len()),
            sum(turns, |turn| turn.late),
            sum(turns, |turn| turn.refused_after),
            sum(turns, |turn| turn.after),
            turns.iter().map(|turn| turn.lag).max().unwrap_or_default(),
        )
    }
}

/// One caller. `due` and `answered` are times since the turn began.
struct Call {
    due: Duration,
    answered: Duration,
    /// From the call to the answer.
    after: Duration,
    answer: Answer,
}

/// What one pool did in one turn.
#[derive(Default)]
struct Tally {
    /// The durations of the calls whose work began in the counted part of the surge.
    served: Vec<Duration>,
    /// All served calls: when each was answered, and how long it took.
    answers: Vec<(Duration, Duration)>,
    /// The durations of the refusals at entry of callers from the counted part of the surge.
    refused: Vec<Duration>,
    /// The number of callers from the counted part of the surge that got an error after a wait.
    late: usize,
    /// The number of callers after the surge, and how many of them were not served.
    after: usize,
    refused_after: usize,
    /// The largest delay between the due time of a caller and its start.
    lag: Duration,
}

impl Tally {
    fn add(&mut self, call: &Call, service: Duration) {
        if call.answer == Answer::Served {
            self.answers.push((call.answered, call.after));
        }
        let came_in_surge = COUNTED.contains(&call.due);
        match call.answer {
            Answer::Served if COUNTED.contains(&call.answered.saturating_sub(service)) => self.served.push(call.after),
            Answer::RefusedAtEntry if came_in_surge => self.refused.push(call.after),
            Answer::TooLate if came_in_surge => self.late += 1,
            _ => {}
        }
        if call.due >= SURGE_LASTS + DEADLINE {
            self.after += 1;
            self.refused_after += usize::from(call.answer != Answer::Served);
        }
    }
}

fn all(turns: &[Tally], times: fn(&Tally) -> &Vec<Duration>) -> Vec<Duration> {
    turns.iter().flat_map(times).copied().collect()
}

fn sum(turns: &[Tally], count: fn(&Tally) -> usize) -> usize {
    turns.iter().map(count).sum()
}

/// Returns the medians in order of time, beginning with the surge. The first quarters of the calm show how long a pool
/// needs to recover.
fn over_time(turns: &[Tally]) -> String {
    let median = |from: u32| {
        let quarter = QUARTER * from..QUARTER * (from + 1);
        let answers = turns.iter().flat_map(|turn| &turn.answers).filter(|(answered, _)| quarter.contains(answered));
        format!("{:.0}", percentile(&answers.map(|(_, after)| *after).collect::<Vec<_>>(), 50))
    };
    let quarters = (SURGE_LASTS + CALM_LASTS).div_duration_f64(QUARTER) as u32;
    (0..quarters).map(median).collect::<Vec<_>>().join(" ")
}

/// Returns the median over the rounds of one pool's served calls divided by the other's. So a single disturbed round
/// does not decide.
fn goodput(one: &[Tally], other: &[Tally]) -> f64 {
    let share = |(one, other): (&Tally, &Tally)| one.served.len() as f64 / other.served.len() as f64;
    let mut shares: Vec<f64> = one.iter().zip(other).map(share).collect();
    shares.sort_by(f64::total_cmp);
    shares[(shares.len() - 1) / 2].midpoint(shares[shares.len() / 2])
}

fn refused_after(turns: &[Tally]) -> f64 {
    100.0 * sum(turns, |turn| turn.refused_after) as f64 / sum(turns, |turn| turn.after) as f64
}

/// Returns the percentile of these times in milliseconds. Without times it is not a number, which is short of any
/// limit.
fn percentile(times: &[Duration], percent: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get(sorted.len() * percent / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

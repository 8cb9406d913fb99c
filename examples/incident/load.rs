//! Open-loop load: callers arrive whether or not the earlier ones have their answer, as real traffic does.

use std::iter;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

use super::peers::{Answer, Pool};
use super::scenarios::{Pattern, Scenario};
use super::{HOLD, capacity};

/// How long the lab waits for the last answers at the end of a scenario. Until then, no caller gives up.
pub(crate) const AFTERMATH: Duration = Duration::from_secs(1);

/// One caller that got an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// The number of the arrival. Callers of a burst arrive at the same time, so the time is not unique.
    pub(crate) caller: usize,
    /// When it arrived and when it was answered, since the beginning.
    pub(crate) due: Duration,
    pub(crate) answered: Duration,
    /// From the call to the answer.
    pub(crate) took: Duration,
    pub(crate) answer: Answer,
}

/// The arrivals in order. The same seed gives the same arrivals on any machine.
pub(crate) fn arrivals(scenario: &Scenario, seed: u64) -> Vec<Duration> {
    let seed = scenario.name.bytes().fold(seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut arrivals = Vec::new();
    let mut begin = 0.0;
    for (lasts, load) in scenario.lasts.iter().zip(scenario.loads()) {
        let end = begin + lasts.as_secs_f64();
        let rate = load * capacity(HOLD);
        match scenario.pattern {
            Pattern::AtRandom => arrivals.extend(at_random(rate, begin, end, &mut random)),
            Pattern::Together { every } => arrivals.extend(together(rate, every.as_secs_f64(), begin, end)),
        }
        begin = end;
    }
    arrivals.into_iter().map(Duration::from_secs_f64).collect()
}

fn at_random(rate: f64, begin: f64, end: f64, random: &mut fastrand::Rng) -> Vec<f64> {
    let mut gap = || -(1.0 - random.f64()).ln() / rate;
    iter::successors(Some(begin + gap()), |at| Some(at + gap())).take_while(|at| *at < end).collect()
}

/// A burst in each period. Fractions of a caller are carried over to a later burst.
fn together(rate: f64, every: f64, begin: f64, end: f64) -> Vec<f64> {
    let callers_until = |burst: usize| (burst as f64 * every * rate).round() as usize;
    let bursts = ((end - begin) / every).round() as usize;
    let burst =
        |burst: usize| (callers_until(burst)..callers_until(burst + 1)).map(move |_| begin + burst as f64 * every);
    (0..bursts).flat_map(burst).collect()
}

/// The results of all calls to `pool`.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) samples: Vec<Sample>,
    /// How late the latest arrival was: a busy machine cannot keep time.
    pub(crate) lag: Duration,
}

/// Sends the callers. A caller without an answer at the end has no sample.
pub(crate) async fn send(pool: Pool, scenario: Scenario, arrivals: Arc<[Duration]>, begun: Instant) -> Answers {
    let samples = Arc::new(Mutex::new(Vec::with_capacity(arrivals.len())));
    let mut callers = JoinSet::new();
    let mut lag = Duration::ZERO;
    for (caller, due) in arrivals.iter().copied().enumerate() {
        if begun.elapsed() < due {
            sleep_until((begun + due).into()).await;
        }
        lag = lag.max(begun.elapsed().saturating_sub(due));
        let (pool, samples) = (pool.clone(), Arc::clone(&samples));
        let sql = format!("SELECT pg_sleep({})", scenario.hold_at(due).as_secs_f64());
        callers.spawn(async move {
            let asked = begun.elapsed();
            let answer = pool.ask(&sql).await;
            let answered = begun.elapsed();
            let sample = Sample { caller, due, answered, took: answered - asked, answer };
            samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
        });
        while callers.try_join_next().is_some() {}
    }
    let give_up = begun + scenario.length() + AFTERMATH;
    while let Ok(Some(_)) = timeout_at(give_up.into(), callers.join_next()).await {}
    callers.shutdown().await;
    let samples = std::mem::take(&mut *samples.lock().unwrap_or_else(PoisonError::into_inner));
    Answers { samples, lag }
}

#[cfg(test)]
mod tests {
    use super::super::scenarios::all;
    use super::*;

    fn named(name: &str) -> Scenario {
        all(true).into_iter().find(|scenario| scenario.is(name)).unwrap()
    }

    fn surge() -> Scenario {
        named("surge-10x")
    }

    #[test]
    fn arrivals_are_those_of_the_seed() {
        assert!(arrivals(&surge(), 7) == arrivals(&surge(), 7));
        assert!(arrivals(&surge(), 7) != arrivals(&surge(), 8));
    }

    #[test]
    fn arrivals_are_in_order_and_as_many_as_the_load_says() {
        let surge = surge();
        let arrivals = arrivals(&surge, 7);
        assert!(arrivals.is_sorted());
        let during = arrivals.iter().filter(|at| (surge.begins()..surge.ends()).contains(at)).count() as f64;
        assert!((during / 10_000.0 - 1.0).abs() < 0.05, "{during}");
        let gaps = arrivals.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64());
        let during: Vec<f64> = gaps.skip(1_000).take(5_000).collect();
        let mean = during.iter().sum::<f64>() / 5_000.0;
        let spread = (during.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / 5_000.0).sqrt();
        assert!(
            (spread / mean - 1.0).abs() < 0.1,
            "exponential gaps spread as wide as they are long: {}",
            spread / mean
        );
    }

    #[test]
    fn bursts_arrive_together_and_are_as_large_as_the_load_says() {
        for (name, every, usual, surge) in [("bursty-20ms", 20, 3, 15), ("bursty-100ms", 100, 15, 75)] {
            let scenario = named(name);
            let arrivals = arrivals(&scenario, 7);
            assert!(arrivals.is_sorted());
            for burst in arrivals.chunk_by(|one, next| one == next) {
                assert_eq!(burst[0].as_millis() % every, 0, "{name}: {:?}", burst[0]);
                let is_surge = (scenario.begins()..scenario.ends()).contains(&burst[0]);
                assert_eq!(burst.len(), if is_surge { surge } else { usual }, "{name}: {:?}", burst[0]);
            }
            let bursts = arrivals.chunk_by(|one, next| one == next).count();
            assert_eq!(bursts as u128, scenario.length().as_millis() / every, "{name}");
        }
    }

    #[test]
    fn a_burst_of_half_a_caller_loses_nobody() {
        let scenario = named("bursty-50ms");
        let during = arrivals(&scenario, 7);
        let during: Vec<_> = during.iter().filter(|at| (scenario.begins()..scenario.ends()).contains(at)).collect();
        let sizes: Vec<usize> = during.chunk_by(|one, next| one == next).map(<[_]>::len).collect();
        assert!(sizes.iter().all(|size| (37..=38).contains(size)), "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), 2_250, "37.5 each");
    }

    #[test]
    fn nobody_arrives_while_the_load_is_none() {
        let stale = named("stale");
        let arrivals = arrivals(&stale, 7);
        assert!(!arrivals.iter().any(|at| (stale.begins()..stale.ends()).contains(at)));
        assert!(arrivals.iter().any(|at| *at > stale.ends()));
    }
}

//! Callers that arrive whether the earlier ones have been answered or not: that is how traffic comes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

use super::peers::{Answer, Pool};
use super::scenarios::Scenario;
use super::{HOLD, capacity};

/// How long those who still wait at the end of a scenario are waited for: until then, callers do not give up.
pub(crate) const AFTERMATH: Duration = Duration::from_secs(1);

/// One caller that was answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// When it arrived and when it was answered, since the beginning.
    pub(crate) due: Duration,
    pub(crate) answered: Duration,
    /// From the call to the answer.
    pub(crate) took: Duration,
    pub(crate) answer: Answer,
}

/// Poisson arrivals: the same for the same seed, on any machine.
pub(crate) fn arrivals(scenario: &Scenario, seed: u64) -> Vec<Duration> {
    let seed = scenario.name.bytes().fold(seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut arrivals = Vec::new();
    let mut begin = 0.0;
    for (lasts, load) in scenario.lasts.iter().zip(scenario.loads()) {
        let end = begin + lasts.as_secs_f64();
        let mut gap = || -(1.0 - random.f64()).ln() / (load * capacity(HOLD));
        let mut at = begin + gap();
        while at < end {
            arrivals.push(Duration::from_secs_f64(at));
            at += gap();
        }
        begin = end;
    }
    arrivals
}

/// All that came of asking `pool`.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) samples: Vec<Sample>,
    /// How late the latest arrival was: a busy machine cannot keep time.
    pub(crate) lag: Duration,
}

/// Sends the callers. Those without an answer at the end are in none of the samples.
pub(crate) async fn send(pool: Pool, scenario: Scenario, arrivals: Arc<[Duration]>, begun: Instant) -> Answers {
    let samples = Arc::new(Mutex::new(Vec::with_capacity(arrivals.len())));
    let mut callers = JoinSet::new();
    let mut lag = Duration::ZERO;
    for due in arrivals.iter().copied() {
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
            let sample = Sample { due, answered, took: answered - asked, answer };
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

    fn surge() -> Scenario {
        all(true).into_iter().find(|scenario| scenario.is("surge-10x")).unwrap()
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
    fn nobody_arrives_while_the_load_is_none() {
        let stale = all(true).into_iter().find(|scenario| scenario.is("stale")).unwrap();
        let arrivals = arrivals(&stale, 7);
        assert!(!arrivals.iter().any(|at| (stale.begins()..stale.ends()).contains(at)));
        assert!(arrivals.iter().any(|at| *at > stale.ends()));
    }
}

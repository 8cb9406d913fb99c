//! The callers of a scenario: when each arrives, what it asks for, and until when. The load is open: callers arrive
//! whether or not the earlier ones have their answer, as real traffic does.

use std::iter;
use std::time::Duration;

use crate::scenarios::{Pattern, Scenario};
use crate::terms::{DEADLINE, HOLD, capacity};
use crate::work::Work;

/// One caller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Caller {
    /// When it arrives, since the beginning.
    pub(crate) due: Duration,
    pub(crate) work: Work,
    /// An answer after this time is late.
    pub(crate) deadline: Duration,
}

/// The callers in the order of their arrival. The same seed gives the same callers on any machine.
pub(crate) fn of(scenario: &Scenario, seed: u64) -> Vec<Caller> {
    let seed = scenario.name.bytes().fold(seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut callers = Vec::new();
    let mut begin = 0.0;
    for (lasts, load) in scenario.lasts.iter().zip(scenario.loads()) {
        let end = begin + lasts.as_secs_f64();
        let rate = load * capacity(HOLD);
        let arrivals = match scenario.pattern {
            Pattern::AtRandom => at_random(rate, begin, end, &mut random),
            Pattern::Together { every } => together(rate, every.as_secs_f64(), begin, end),
        };
        for due in arrivals.into_iter().map(Duration::from_secs_f64) {
            let deadline = scenario.deadlines[random.usize(..scenario.deadlines.len())];
            callers.push(Caller { due, work: Work::Query(scenario.hold_at(due)), deadline });
        }
        begin = end;
    }
    if let Some(others) = scenario.others {
        let (begin, end) = (scenario.begins().as_secs_f64(), scenario.ends().as_secs_f64());
        let arrivals = at_random(others.per_second, begin, end, &mut random).into_iter();
        let caller = |due| Caller { due: Duration::from_secs_f64(due), work: others.work, deadline: DEADLINE };
        callers.extend(arrivals.map(caller));
        callers.sort_by_key(|caller| caller.due);
    }
    callers
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::tests::named;

    fn arrivals(scenario: &Scenario, seed: u64) -> Vec<Duration> {
        of(scenario, seed).iter().map(|caller| caller.due).collect()
    }

    #[test]
    fn callers_are_those_of_the_seed() {
        let mixed = named("mixed");
        assert_eq!(of(&mixed, 7), of(&mixed, 7));
        assert_ne!(of(&mixed, 7), of(&mixed, 8));
    }

    #[test]
    fn arrivals_are_in_order_and_as_many_as_the_load_says() {
        let surge = named("surge-10x");
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

    #[test]
    fn others_come_only_during_the_incident() {
        let flood = named("flood");
        let callers = of(&flood, 7);
        assert!(callers.is_sorted_by_key(|caller| caller.due));
        let others: Vec<_> = callers.iter().filter(|caller| !caller.work.is_usual()).collect();
        assert!((300..500).contains(&others.len()), "{}", others.len());
        assert!(others.iter().all(|caller| (flood.begins()..flood.ends()).contains(&caller.due)));
    }

    #[test]
    fn each_deadline_has_its_share_of_the_callers() {
        let mixed = named("mixed");
        let callers = of(&mixed, 7);
        for deadline in mixed.deadlines {
            let share = callers.iter().filter(|caller| caller.deadline == *deadline).count() as f64;
            assert!((share / callers.len() as f64 - 1.0 / 3.0).abs() < 0.05, "{deadline:?}: {share}");
        }
    }
}

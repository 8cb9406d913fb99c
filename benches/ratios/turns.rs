//! Times two sides that take turns, so that a noisy machine slows both.
//!
//! The reference is timed twice in each round. The ratio of its two times would be 1 on a quiet machine. How far it is
//! from 1 is the spread, and with a wide spread the ratio of the two sides says nothing.

use std::time::Duration;

use super::Report;

/// A ratio is judged only if its spread is below this.
const SPREAD: f64 = 0.02;
/// While the spread is larger, up to this many times as many sets are measured.
const REPEATS: usize = 4;
/// Each of the three comes equally often after each of the others.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1], [2, 0, 1], [1, 0, 2]];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Ours,
    Theirs,
}

const SIDES: [Side; 3] = [Side::Ours, Side::Theirs, Side::Theirs];

/// The size of a measurement. Each set makes both sides anew, because their places in memory affect the times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) sets: usize,
    pub(super) rounds: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Ratio {
    value: f64,
    spread: f64,
}

impl Ratio {
    /// Reports the ratio. If the machine was too noisy, the figure does not fail.
    pub(super) fn at_most(self, report: &mut Report, name: &str, limit: f64) {
        if self.spread < SPREAD {
            report.at_most(name, self.value, limit);
        } else {
            report.too_noisy(name, self.value, limit);
        }
    }
}

/// Times both sides of what `prepare` makes, until the spread is small or the most sets have been measured.
pub(super) async fn measure<P>(
    what: &str,
    plan: Plan,
    prepare: impl AsyncFn() -> P,
    time: impl AsyncFn(&P, Side) -> Duration,
) -> Ratio {
    let mut times = [const { Vec::new() }; 3];
    let (mut sets, mut spread) = (0, f64::INFINITY);
    while sets < plan.sets || (spread >= SPREAD && sets < plan.sets * REPEATS) {
        let prepared = prepare().await;
        for round in 0..plan.rounds {
            for which in ORDERS[round % ORDERS.len()] {
                times[which].push(time(&prepared, SIDES[which]).await);
            }
        }
        sets += 1;
        spread = (median_ratio(&times[1], &times[2]) - 1.0).abs();
    }

    let value = median_ratio(&times[0], &times[1]);
    let [ours, theirs, _] = times.map(super::median);
    println!("# {what}: {ours:.1?} beside {theirs:.1?}; spread {:.1}% after {sets} sets", spread * 100.0);
    Ratio { value, spread }
}

/// Compares each time with its neighbour of the same round, because the machine changes between rounds.
fn median_ratio(ours: &[Duration], theirs: &[Duration]) -> f64 {
    let mut ratios: Vec<_> = ours.iter().zip(theirs).map(|(ours, theirs)| ours.div_duration_f64(*theirs)).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

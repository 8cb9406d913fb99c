//! Overloads of a few wait budgets, counted from their first moment on: what it costs to learn of them.

use fastrand::Rng;

use super::scene::*;
use super::{Bounds, Trace, Window, nanos};

pub(super) const BURSTS: &str = "bursts for six budgets";
pub(super) const SLOW: &str = "leases nine times longer, given up at the deadline";

/// Connections, the mean lease and the callers' budget, in seconds.
const POOLS: [(usize, f64, f64); 4] = [(10, 0.040, 0.500), (20, 0.020, 0.250), (5, 0.040, 0.500), (50, 0.020, 0.250)];

fn scene(pool: usize, number: usize) -> Scene {
    let (connections, lease, budget) = POOLS[pool % POOLS.len()];
    Scene::of(Rng::with_seed(number as u64), connections, Leases::Lognormal(lease, 0.02), budget)
}

/// Bursts of the same size, 25 to 2 within a budget.
pub(super) fn bursts(number: usize) -> Trace {
    let mut scene = scene(number / 4, number);
    let period = scene.budget * [0.04, 0.1, 0.2, 0.5][number % 4];
    let [begins, ends, last] = [2.0, 8.0, 11.0].map(|budgets| budgets * scene.budget);
    let (mut callers, mut at) = (0.0, scene.rng.f64() * period);
    while at < last {
        callers += if (begins..ends).contains(&at) { 3.0 } else { 0.6 } * scene.capacity() * period;
        (0..callers as usize).for_each(|_| scene.arrive(at));
        // What is left of a caller comes with a later burst.
        callers = callers.fract();
        at += period;
    }
    let calm = Window { from: ends + scene.budget, until: last };
    scene.end(BURSTS, format!("each {period} s"), Window { from: begins, until: ends }, Some(calm), ANY)
}

/// A load that was half of what the pool can do is four to six times of it. Beside a plain queue whose callers know
/// their own lease beforehand.
pub(super) fn slow(number: usize) -> Trace {
    let mut scene = scene(number / 2, number);
    let load = [0.48, 0.7][number % 2];
    let [begins, ends, last] = [3.0, 19.0, 21.0].map(|budgets| budgets * scene.budget);
    scene.world.gives_up = Some(0.003);
    scene.steady(0.0, last, load);
    let grown = nanos(begins)..nanos(ends);
    scene.callers.iter_mut().filter(|caller| grown.contains(&caller.arrives)).for_each(|caller| caller.lease *= 9);
    let counted = Window { from: begins, until: ends };
    scene.end(SLOW, format!("{load}x"), counted, None, Bounds { goodput: 0.90, slower: f64::INFINITY, ..ANY })
}

//! The families of traces. Each trace is made from its number alone.
//!
//! Overloads last for 24 wait budgets or more and are counted without the first four, in which the pool sees them
//! begin.

use fastrand::Rng;

use super::scene::*;
use super::{Bounds, Trace, Window, short};

pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) traces: usize,
    pub(super) make: fn(usize) -> Trace,
    /// The least share of the plain queue's work, on average.
    pub(super) mean: f64,
}

pub(super) fn all() -> Vec<Family> {
    let family = |name, traces, make: fn(usize) -> Trace| Family { name, traces, make, mean: 0.985 };
    vec![
        family(FIXED_BURSTS, 120, fixed_bursts),
        family(RANDOM_BURSTS, 120, random_bursts),
        family(CALM_BURSTS, 40, calm_bursts),
        family(ON_OFF, 120, on_off),
        family(B_MODEL, 60, b_model),
        family(PARETO, 40, pareto_on_off),
        family(HEAVY, 100, heavy_below_capacity),
        family(HEAVY_OVERLOAD, 100, heavy_overload),
        family(SLOWDOWN, 20, slowdown),
        family(STALLS, 60, stalls),
        family(DEADLINES, 80, mixed_deadlines),
        family(COLD, 30, cold_start),
        family(HERD, 20, herd),
        family(RAMPS, 9, ramps),
        family(STEPS, 8, steps),
        family(SURGES, 24, surges),
        family(RETURNS, 24, refused_come_back),
        family(BATCH, 16, batches),
        family(SIZES, 48, sizes),
        family(POISSON_CALM, 48, poisson_below_capacity),
        family(BIMODAL, 36, bimodal_below_capacity),
        family(NINEFOLD, 16, ninefold),
        family(MMPP, 60, markov_modulated),
        family(SPIKES, 30, spikes),
        family(WEIBULL, 40, weibull),
        family(TIMERS, 30, timers),
        family(HAWKES, 30, self_exciting),
        Family { mean: 0.99, ..family(short::BURSTS, 96, short::bursts) },
        Family { mean: 0.96, ..family(short::SLOW, 96, short::slow) },
    ]
}

const FIXED_BURSTS: &str = "bursts, fixed period 1 to 500 ms";
const RANDOM_BURSTS: &str = "bursts, exponential period";
const CALM_BURSTS: &str = "bursts below capacity";
const ON_OFF: &str = "on/off sources";
const B_MODEL: &str = "self-similar, b-model";
const PARETO: &str = "Pareto on/off";
const HEAVY: &str = "heavy-tailed leases, below capacity";
const HEAVY_OVERLOAD: &str = "heavy-tailed leases, overload";
const SLOWDOWN: &str = "leases that grow with concurrency";
const STALLS: &str = "stalls of the whole process";
const DEADLINES: &str = "mixed deadlines, 50 ms beside 30 s";
const COLD: &str = "cold start";
const HERD: &str = "herd after an outage";
const RAMPS: &str = "ramps";
const STEPS: &str = "steps 0.6x, 3x, 0.6x, 0.95x";
const SURGES: &str = "overloads of 40 budgets, again and again";
const RETURNS: &str = "refused callers come back when told";
const BATCH: &str = "a batch of 500 beside a steady half load";
const SIZES: &str = "Poisson, sizes 1 to 200, leases 0.5 ms to 2 s";
const POISSON_CALM: &str = "Poisson below capacity";
const BIMODAL: &str = "a few leases of 500 ms, below capacity";
const NINEFOLD: &str = "leases that become nine times longer";
/// With the indices of dispersion that Mi, Casale, Cherkasova and Smirni give for measured bursts ("Injecting realistic
/// burstiness to a traditional client-server benchmark", ICAC 2009).
const MMPP: &str = "Markov-modulated Poisson, dispersion 4 to 400";
/// A flash crowd as Bodik, Fox, Franklin, Jordan and Patterson describe it ("Characterizing, modeling, and generating
/// workload spikes for stateful services", SoCC 2010): it rises within moments, peaks, and decays slowly.
const SPIKES: &str = "flash crowds";
/// Gaps between arrivals as Feldmann measured them for TCP connections ("Characteristics of TCP connection arrivals",
/// 2000): Weibull, with a shape below one.
const WEIBULL: &str = "Weibull gaps, shape 0.3 to 0.8";
/// Timers that fire together beside steady traffic, the largest regular share of what Shahrad et al. saw ("Serverless
/// in the wild", ATC 2020).
const TIMERS: &str = "timers beside steady traffic";
/// Each call causes others soon after it, as one page causes several queries (Hawkes, 1971).
const HAWKES: &str = "self-exciting arrivals";

fn fixed_bursts(number: usize) -> Trace {
    let mut scene = Scene::new(FIXED_BURSTS, number);
    let period = log_uniform(&mut scene.rng, 0.001, 0.500);
    let times = one(&mut scene.rng, &[1.3, 3.0, 10.0]);
    let mut trace = scene.overload(FIXED_BURSTS, format!("each {period:.4} s"), times, |scene, from, until, times| {
        scene.bursts(from, until, times, period, true);
    });
    trace.bounds.refused = trace.bounds.refused.max(EDGE);
    trace
}

fn random_bursts(number: usize) -> Trace {
    let mut scene = Scene::new(RANDOM_BURSTS, number);
    let period = log_uniform(&mut scene.rng, 0.002, 0.200);
    let times = one(&mut scene.rng, &[1.3, 3.0, 10.0]);
    let mut trace = scene.overload(RANDOM_BURSTS, format!("each {period:.4} s"), times, |scene, from, until, times| {
        scene.bursts(from, until, times, period, false);
    });
    trace.bounds = Bounds { refused: trace.bounds.refused.max(EDGE), ..LEARNING };
    trace
}

pub(super) fn calm_bursts(number: usize) -> Trace {
    let mut scene = Scene::new(CALM_BURSTS, number);
    let (period, times) = (log_uniform(&mut scene.rng, 0.001, 0.500), scene.rng.f64() * 0.6 + 0.3);
    let is_fixed = scene.rng.bool();
    scene.bursts(0.0, 10.0, times, period, is_fixed);
    let mut trace = scene.calm(CALM_BURSTS, format!("{times:.2}x each {period:.4} s, fixed: {is_fixed}"), 10.0);
    trace.bounds.refused = trace.bounds.refused.max(EDGE);
    trace
}

fn on_off(number: usize) -> Trace {
    let mut scene = Scene::new(ON_OFF, number);
    let (on, off) = (log_uniform(&mut scene.rng, 0.02, 2.0), log_uniform(&mut scene.rng, 0.02, 2.0));
    let (times, is_fixed) = (one(&mut scene.rng, &[2.0, 3.0, 10.0]), scene.rng.bool());
    let lasts = 40.0 * 0.250_f64.max((on + off) / 2.0);
    let mut at = 0.0;
    while at < lasts {
        let of = |scene: &mut Scene, mean: f64| if is_fixed { mean } else { mean * exponential(&mut scene.rng) };
        let until = at + of(&mut scene, on);
        scene.steady(at, until.min(lasts), times);
        at = until + of(&mut scene, off);
    }
    // The pool has seen it twice.
    let counted = Window { from: (2.0 * (on + off)).max(1.0), until: lasts };
    scene.end(ON_OFF, format!("{times}x for {on:.3} s, off {off:.3} s, fixed: {is_fixed}"), counted, None, LEARNING)
}

/// Each half of an interval gets a share of its calls, again and again.
fn b_model(number: usize) -> Trace {
    let mut scene = Scene::new(B_MODEL, number);
    let (bias, times) = (0.55 + 0.25 * scene.rng.f64(), one(&mut scene.rng, &[0.8, 1.3, 2.0, 3.0]));
    let lasts = 10.0;
    let mut shares = vec![1.0];
    for _ in 0..11 {
        let rng = &mut scene.rng;
        shares = shares
            .iter()
            .flat_map(|share| {
                if rng.bool() { [share * bias, share * (1.0 - bias)] } else { [share * (1.0 - bias), share * bias] }
            })
            .collect();
    }
    let calls = lasts * times * scene.capacity();
    let slot = lasts / shares.len() as f64;
    for (place, share) in shares.iter().enumerate() {
        let mean = calls * share;
        let most = (mean / scene.capacity() / slot).max(1e-9);
        scene.steady(place as f64 * slot, (place + 1) as f64 * slot, most);
    }
    scene.end(B_MODEL, format!("{times}x, bias {bias:.2}"), Window { from: 1.0, until: lasts }, None, LEARNING)
}

fn pareto_on_off(number: usize) -> Trace {
    let mut scene = Scene::new(PARETO, number);
    let (times, alpha, sources) =
        (one(&mut scene.rng, &[0.9, 1.5, 3.0]), 1.2 + 0.7 * scene.rng.f64(), one(&mut scene.rng, &[5, 20]));
    let lasts = 10.0;
    for _ in 0..sources {
        let mut at = 0.0;
        let mut is_on = scene.rng.bool();
        while at < lasts {
            let until = at + 0.05 * pareto(&mut scene.rng, alpha);
            if is_on {
                scene.steady(at, until.min(lasts), 2.0 * times / f64::from(sources));
            }
            (at, is_on) = (until, !is_on);
        }
    }
    scene.end(
        PARETO,
        format!("{times}x, tail {alpha:.2}, {sources} sources"),
        Window { from: 1.0, until: lasts },
        None,
        ANY,
    )
}

fn heavy(family: &str, number: usize) -> Scene {
    let mut scene = Scene::new(family, number);
    let mean = scene.leases.mean();
    scene.leases = if scene.rng.bool() {
        Leases::Lognormal(mean, 1.0 + scene.rng.f64())
    } else {
        Leases::Pareto(mean, 1.5 + scene.rng.f64())
    };
    scene
}

fn heavy_below_capacity(number: usize) -> Trace {
    let mut scene = heavy(HEAVY, number);
    let times = 0.3 + 0.5 * scene.rng.f64();
    scene.steady(0.0, 10.0, times);
    scene.calm(HEAVY, format!("{times:.2}x"), 10.0)
}

fn heavy_overload(number: usize) -> Trace {
    let mut scene = heavy(HEAVY_OVERLOAD, number);
    let times = one(&mut scene.rng, &[1.3, 3.0, 10.0]);
    let mut trace = scene.overload(HEAVY_OVERLOAD, String::new(), times, Scene::steady);
    trace.bounds.refused = trace.bounds.refused.max(EDGE);
    trace
}

fn slowdown(number: usize) -> Trace {
    let mut scene = Scene::new(SLOWDOWN, number);
    scene.world.slowdown = 0.5 + 2.0 * scene.rng.f64();
    let times = one(&mut scene.rng, &[1.3, 3.0]);
    let slowdown = scene.world.slowdown;
    let mut trace = scene.overload(SLOWDOWN, format!("up to {slowdown:.2} longer"), times, Scene::steady);
    trace.calm = None;
    // One connection at 1.3 times its capacity needs a queue nearly as deep as the plain one.
    trace.bounds.slower = 1.15;
    trace
}

fn stalls(number: usize) -> Trace {
    let mut scene = Scene::new(STALLS, number);
    let times = one(&mut scene.rng, &[0.5, 0.8, 1.5, 3.0]);
    let (length, lasts) = (log_uniform(&mut scene.rng, 0.020, 0.500), 12.0);
    let mut at = 0.0;
    while at < lasts {
        at += (length * (3.0 + 7.0 * scene.rng.f64())).max(0.2);
        scene.world.stalls.push((super::nanos(at), super::nanos(at + length)));
        at += length;
    }
    scene.steady(0.0, lasts, times);
    let counted = Window { from: 1.0, until: lasts };
    // Callers that ask during a stall are served as well, but late.
    scene.end(STALLS, format!("{times}x, {length:.3} s"), counted, None, Bounds { goodput: 0.95, slower: 2.5, ..ANY })
}

fn mixed_deadlines(number: usize) -> Trace {
    let mut scene = Scene::new(DEADLINES, number);
    let (share, times) = (one(&mut scene.rng, &[0.1, 0.5, 0.9]), one(&mut scene.rng, &[0.8, 1.3, 3.0]));
    scene.world.budget = one(&mut scene.rng, &[0.050, 30.0]);
    let lasts = 20.0;
    scene.steady(0.0, lasts, times);
    for caller in &mut scene.callers {
        caller.budget =
            super::nanos(if scene.rng.f64() < share { 0.050_f64.max(10.0 * scene.leases.mean()) } else { 30.0 });
    }
    let whole = Window { from: 1.0, until: lasts };
    scene.end(DEADLINES, format!("{times}x, {share} of them short"), whole, (times < 1.0).then_some(whole), ANY)
}

fn cold_start(number: usize) -> Trace {
    let mut scene = Scene::new(COLD, number);
    scene.world.dial = log_uniform(&mut scene.rng, 0.002, 0.200);
    let times = one(&mut scene.rng, &[0.6, 1.5, 3.0]);
    scene.steady(0.0, 3.0, times);
    let dial = scene.world.dial;
    scene.end(
        COLD,
        format!("{times}x, a dial takes {dial:.3} s"),
        Window { from: 0.0, until: 3.0 },
        None,
        Bounds { goodput: 0.95, ..ANY },
    )
}

/// All callers that were refused during an outage come as soon as the server is up.
fn herd(number: usize) -> Trace {
    let mut scene = Scene::new(HERD, number);
    scene.world.dial = log_uniform(&mut scene.rng, 0.002, 0.100);
    let calls = (scene.capacity() * log_uniform(&mut scene.rng, 0.1, 2.0)) as usize;
    (0..calls).for_each(|_| scene.arrive(0.010));
    scene.steady(0.010, 5.0, 0.6);
    let dial = scene.world.dial;
    scene.end(
        HERD,
        format!("{calls} calls, a dial takes {dial:.3} s"),
        Window { from: 0.0, until: 5.0 },
        None,
        Bounds { goodput: 0.95, ..ANY },
    )
}

/// Three times the capacity after a load of 0.6; counted from two wait budgets after that on, for half a one.
pub(super) fn onset(connections: usize, is_fixed: bool) -> Trace {
    let leases = if is_fixed { Leases::Fixed(0.020) } else { Leases::Exponential(0.020) };
    let mut scene = Scene::of(Rng::with_seed(connections as u64), connections, leases, 0.250);
    scene.steady(0.0, 2.0, 0.6);
    scene.steady(2.0, 3.0, 3.0);
    scene.end(STEPS, String::new(), Window { from: 2.5, until: 2.625 }, None, ANY)
}

fn ramps(number: usize) -> Trace {
    let mut scene = Scene::new(RAMPS, number);
    let (lasts, most) = ([4.0, 8.0, 16.0][number % 3], [1.2, 2.0, 5.0][number / 3 % 3]);
    scene.poisson(0.0, lasts, most, |at| most * (1.0 - (2.0 * at / lasts - 1.0).abs()));
    scene.end(
        RAMPS,
        format!("up to {most}x and down within {lasts} s"),
        Window { from: 0.0, until: lasts * (1.0 - 0.5 / most) },
        None,
        ANY,
    )
}

fn steps(number: usize) -> Trace {
    let mut scene = Scene::new(STEPS, number);
    let times = |at: f64| [0.6, 3.0, 0.6, 0.95][(at / 6.0) as usize % 4];
    scene.poisson(0.0, 24.0, 3.0, times);
    let calm = Window { from: 12.250, until: 24.0 };
    scene.end(STEPS, String::new(), Window { from: 0.0, until: 12.0 }, Some(calm), ANY)
}

/// The end of one overload is not to make the answers of the next one slow.
fn surges(number: usize) -> Trace {
    let mut scene = Scene::new(SURGES, number);
    let (lasts, arrivals) = (40.0 * scene.budget, one(&mut scene.rng, &["alone", "together", "from sources"]));
    for surge in 0..4 {
        let begins = f64::from(surge) * 1.2 * lasts;
        for (from, until, times) in [(begins, begins + lasts, 3.0), (begins + lasts, begins + 1.2 * lasts, 0.6)] {
            match arrivals {
                "alone" => scene.steady(from, until, times),
                "together" => scene.bursts(from, until, times, scene.budget / 8.0, true),
                _ => (0..3).for_each(|_| scene.source(from, until, times, 0.2 * scene.budget)),
            }
        }
    }
    let counted = Window { from: 1.2 * lasts, until: 4.8 * lasts };
    let slower = if arrivals == "from sources" { 1.0 } else { 0.25 };
    scene.end(SURGES, arrivals.to_owned(), counted, None, Bounds { slower, ..ANY })
}

/// Each refused caller comes back after `retry_after`, again and again.
pub(super) fn refused_come_back(number: usize) -> Trace {
    let mut scene = Scene::new(RETURNS, number);
    scene.world.returns = true;
    let times = one(&mut scene.rng, &[1.5, 3.0, 5.0]);
    let ends = 24.0 * scene.budget;
    // Long enough for the last of them: callers that come back take a quarter of the capacity.
    let last = ends + (times - 1.0) * ends * 4.5;
    scene.steady(0.0, ends, times);
    scene.steady(ends, last, 0.6);
    let counted = Window { from: 4.0 * scene.budget, until: ends };
    let calm = Window { from: ends + scene.budget, until: last };
    scene.end(RETURNS, format!("{times}x"), counted, Some(calm), Bounds { refused: 0.10, ..ANY })
}

fn batches(number: usize) -> Trace {
    let mut scene = Scene::new(BATCH, number);
    let every = 1.0 + 3.0 * scene.rng.f64();
    scene.steady(0.0, 12.0, 0.5);
    let mut at = 0.5;
    while at < 12.0 {
        (0..500).for_each(|_| scene.arrive(at));
        at += every;
    }
    let whole = Window { from: 0.0, until: 12.0 };
    scene.end(BATCH, format!("each {every:.2} s"), whole, None, ANY)
}

fn sizes(number: usize) -> Trace {
    let mut rng = Rng::with_seed(number as u64);
    let connections = [1, 2, 5, 10, 20, 50, 100, 200][number % 8];
    let lease = [0.0005, 0.002, 0.010, 0.050, 0.250, 2.0][number / 8 % 6];
    let leases = if rng.bool() { Leases::Fixed(lease) } else { Leases::Exponential(lease) };
    // At most 1,000 are served within the budget: longer traces show the same.
    let budget = (lease * one(&mut rng, &[8.0, 20.0, 60.0])).min(1_000.0 * lease / connections as f64).max(4.0 * lease);
    let times = one(&mut rng, &[2.0, 3.0, 10.0]);
    let scene = Scene::of(rng, connections, leases, budget);
    let mut trace = scene.overload(SIZES, format!("budget {budget:.4} s"), times, Scene::steady);
    trace.bounds.median = if connections >= 5 {
        2.0
    } else if connections > 1 {
        4.0
    } else {
        3.0
    };
    trace
}

fn poisson_below_capacity(number: usize) -> Trace {
    let mut scene = Scene::new(POISSON_CALM, number);
    let times = 0.4 + 0.5 * scene.rng.f64();
    scene.world.includes_work = scene.rng.bool();
    scene.steady(0.0, 10.0, times);
    scene.calm(POISSON_CALM, format!("{times:.2}x"), 10.0)
}

/// `get()` with the default timeout. With two connections or a load of 0.9 a plain queue, too, is often full.
fn bimodal_below_capacity(number: usize) -> Trace {
    let connections = [2, 5, 10, 20][number % 4];
    let load = [0.5, 0.7, 0.8, 0.9][number / 4 % 4];
    let leases = [Leases::Bimodal(0.005, 0.500, 0.03), Leases::Bimodal(0.002, 0.500, 0.01)][number % 2];
    let mut scene = Scene::of(Rng::with_seed(number as u64), connections, leases, 1.0);
    scene.world.includes_work = false;
    let lasts = 12_000.0 / scene.capacity();
    scene.steady(0.0, lasts, load);
    let mut trace = scene.calm(BIMODAL, format!("{load}x"), lasts);
    if connections < 5 || load > 0.85 {
        trace.bounds.refused = 0.05;
    }
    trace
}

fn ninefold(number: usize) -> Trace {
    let (connections, lease) = ([1, 5, 20, 100][number % 4], [0.001, 0.020][number / 4 % 2]);
    let mut scene = Scene::of(Rng::with_seed(number as u64), connections, Leases::Fixed(lease), 0.250);
    let (grows, ends) = (2.0, 22.0);
    scene.steady(0.0, ends, 0.7);
    let grown = super::nanos(grows);
    scene.callers.iter_mut().filter(|caller| caller.arrives >= grown).for_each(|caller| caller.lease *= 9);
    scene.world.lease = 9.0 * lease;
    scene.end(NINEFOLD, String::new(), Window { from: grows, until: ends }, None, LEARNING)
}

/// Two rates that take turns. The index of dispersion grows with how much they differ and how long each lasts.
fn markov_modulated(number: usize) -> Trace {
    let mut scene = Scene::new(MMPP, number);
    let (times, dispersion) = (one(&mut scene.rng, &[0.8, 1.3, 2.0]), one(&mut scene.rng, &[4.0, 40.0, 400.0]));
    let lasts = 12.0;
    // Rates (1 +- 0.9) x mean, as long in the one as in the other: the index is 1 + 0.81 x mean x sojourn.
    let sojourn = (dispersion - 1.0) / (0.81 * times * scene.capacity());
    let (mut at, mut is_high) = (0.0, false);
    while at < lasts {
        let until = (at + sojourn * exponential(&mut scene.rng)).min(lasts);
        scene.steady(at, until, times * if is_high { 1.9 } else { 0.1 });
        (at, is_high) = (until.max(at + 1e-6), !is_high);
    }
    scene.end(MMPP, format!("{times}x, dispersion {dispersion}"), Window { from: 1.0, until: lasts }, None, LEARNING)
}

fn spikes(number: usize) -> Trace {
    let mut scene = Scene::new(SPIKES, number);
    let (peak, rise, decay) = (
        one(&mut scene.rng, &[2.0, 4.0, 8.0]),
        log_uniform(&mut scene.rng, 0.05, 1.0),
        log_uniform(&mut scene.rng, 0.2, 2.0),
    );
    let begins = 2.0;
    let (ends, last) = (begins + rise + 6.0 * decay, begins + rise + 6.0 * decay + 4.0);
    scene.poisson(0.0, last, 0.5 + peak, |at| {
        let since = at - begins;
        0.5 + peak
            * if since < 0.0 {
                0.0
            } else if since < rise {
                since / rise
            } else {
                (-(since - rise) / decay).exp()
            }
    });
    let calm = Window { from: ends, until: last };
    // The work that the plain queue does after the overload for callers from before its end does not count.
    let counted = Window { from: 0.0, until: begins + rise + decay * (2.0 * peak).ln() };
    scene.end(SPIKES, format!("to {peak}x in {rise:.2} s, decay {decay:.2} s"), counted, Some(calm), LEARNING)
}

fn weibull(number: usize) -> Trace {
    let mut scene = Scene::new(WEIBULL, number);
    let (shape, times) = (0.3 + 0.5 * scene.rng.f64(), one(&mut scene.rng, &[0.7, 1.3, 3.0]));
    let lasts = 10.0;
    // The mean of a Weibull variable of scale 1.
    let mean = (1..20_000).map(|n| (-(1.0 - f64::from(n) / 20_000.0).ln()).powf(1.0 / shape)).sum::<f64>() / 20_000.0;
    let mut at = 0.0;
    while at < lasts {
        at += exponential(&mut scene.rng).powf(1.0 / shape) / mean / (times * scene.capacity());
        scene.arrive(at);
    }
    scene.end(WEIBULL, format!("{times}x, shape {shape:.2}"), Window { from: 1.0, until: lasts }, None, LEARNING)
}

fn timers(number: usize) -> Trace {
    let mut scene = Scene::new(TIMERS, number);
    let (steady, lasts) = (0.2 + 0.6 * scene.rng.f64(), 12.0);
    scene.steady(0.0, lasts, steady);
    for _ in 0..scene.rng.usize(1..6) {
        let (every, share) = (log_uniform(&mut scene.rng, 0.1, 3.0), 0.05 + 0.5 * scene.rng.f64());
        let calls = (share * scene.capacity() * every) as usize;
        let mut at = every * scene.rng.f64();
        while at < lasts {
            (0..calls).for_each(|_| scene.arrive(at));
            at += every;
        }
    }
    scene.end(TIMERS, format!("{steady:.2}x between them"), Window { from: 1.0, until: lasts }, None, ANY)
}

fn self_exciting(number: usize) -> Trace {
    let mut scene = Scene::new(HAWKES, number);
    let (times, branching) = (one(&mut scene.rng, &[0.8, 1.5, 3.0]), 0.5 + 0.4 * scene.rng.f64());
    let (lasts, delay) = (10.0, log_uniform(&mut scene.rng, 0.005, 0.100));
    scene.steady(0.0, lasts, times * (1.0 - branching));
    let mut place = 0;
    while let Some(cause) = scene.callers.get(place).map(|caller| super::seconds(caller.arrives)) {
        // Each causes as many as come within `branching` of a Poisson process of rate 1.
        let mut chance = exponential(&mut scene.rng);
        while chance < branching {
            chance += exponential(&mut scene.rng);
            let at = cause + delay * exponential(&mut scene.rng);
            if at < lasts {
                scene.arrive(at);
            }
        }
        place += 1;
    }
    scene.end(HAWKES, format!("{times}x, {branching:.2} caused"), Window { from: 1.0, until: lasts }, None, LEARNING)
}

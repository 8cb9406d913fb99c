//! The rule of refusal on many arrival processes, each beside a plain queue on the same trace.
//!
//! `families` makes the traces, all from seeds. For each one is measured: the work begun in time, as a share of the
//! plain queue's; the median answer of the served; and how many are refused, below capacity or after an overload, whom
//! the plain queue would have served. A part of them is tested here in each run; `./dev traces` tests and prints all.

use std::collections::BTreeMap;

use super::world::*;

mod families;
mod scene;
mod short;

/// Part of a trace, in seconds.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: f64,
    until: f64,
}

impl Window {
    fn contains(self, at: Nanos) -> bool {
        (self.from..self.until).contains(&seconds(at))
    }
}

struct Trace {
    family: &'static str,
    name: String,
    world: World,
    callers: Vec<Caller>,
    /// Work that begins here is counted.
    counted: Window,
    /// Here the load is below the capacity: the pool may refuse no caller that the plain queue would serve.
    calm: Option<Window>,
    /// What is promised.
    bounds: Bounds,
}

#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// The least share of the plain queue's work.
    goodput: f64,
    /// The largest share of callers refused falsely while it is calm.
    refused: f64,
    /// The longest median answer of the served, in leases.
    median: f64,
    /// The longest median answer, as a multiple of the plain queue's.
    slower: f64,
}

#[derive(Debug, Clone, Copy)]
struct Score {
    goodput: f64,
    refused: f64,
    median: f64,
    plain_median: f64,
}

fn score(trace: &Trace) -> Score {
    let world = &trace.world;
    let (callers, ours) = simulate(world, &trace.callers);
    let plain = plain_queue(world, &trace.callers);
    let work = |outcomes: &[Outcome]| -> f64 {
        let begun = outcomes.iter().zip(&callers).filter(|(outcome, caller)| outcome.is_in_time(world, caller));
        begun.filter_map(|(outcome, _)| counted_lease(trace, *outcome)).map(seconds).sum()
    };
    let asked: Vec<_> = match trace.calm {
        Some(calm) => callers.iter().zip(&ours).filter(|(caller, _)| calm.contains(caller.arrives)).collect(),
        None => Vec::new(),
    };
    // If refused callers come back, the plain queue sees another trace. So all refused callers count.
    let falsely = if world.returns {
        asked.iter().filter(|(caller, ours)| caller.is_return && !ours.is_in_time(world, caller)).count()
    } else {
        let pairs = callers.iter().zip(ours.iter().zip(&plain));
        let calm = pairs.filter(|(caller, _)| trace.calm.is_some_and(|calm| calm.contains(caller.arrives)));
        calm.filter(|(caller, (ours, plain))| plain.is_in_time(world, caller) && !ours.is_in_time(world, caller))
            .count()
    };
    let all = if world.returns { asked.iter().filter(|(caller, _)| caller.is_return).count() } else { asked.len() };
    Score {
        goodput: work(&ours) / work(&plain).max(f64::MIN_POSITIVE),
        refused: falsely as f64 / all.max(1) as f64,
        median: median_answer(trace, &callers, &ours),
        plain_median: median_answer(trace, &trace.callers, &plain),
    }
}

fn counted_lease(trace: &Trace, outcome: Outcome) -> Option<Nanos> {
    let Outcome::Served { begins, lease } = outcome else { return None };
    trace.counted.contains(begins).then_some(lease)
}

/// Of those served in time, in mean leases.
fn median_answer(trace: &Trace, callers: &[Caller], outcomes: &[Outcome]) -> f64 {
    let served = callers.iter().zip(outcomes).filter(|(caller, outcome)| outcome.is_in_time(&trace.world, caller));
    let served = served.filter_map(|(caller, outcome)| {
        let lease = counted_lease(trace, *outcome)?;
        let Outcome::Served { begins, .. } = *outcome else { return None };
        Some((begins + lease - caller.arrives, lease))
    });
    let (mut answers, leases): (Vec<_>, Vec<_>) = served.unzip();
    if answers.is_empty() {
        return 0.0;
    }
    answers.sort_unstable();
    let mean = leases.iter().sum::<Nanos>() as f64 / leases.len() as f64;
    answers[answers.len() / 2] as f64 / mean
}

impl Score {
    fn failures(&self, bounds: Bounds) -> Vec<String> {
        let mut failures = Vec::new();
        if self.goodput < bounds.goodput {
            failures.push(format!("serves {:.3} of a plain queue's work, not {}", self.goodput, bounds.goodput));
        }
        if self.refused > bounds.refused {
            failures.push(format!("refuses {:.2}% falsely, not {}%", 100.0 * self.refused, 100.0 * bounds.refused));
        }
        let median = bounds.median.min(self.plain_median.max(1.0) * bounds.slower);
        if self.median > median {
            failures.push(format!("answers after {:.2} leases, not {median:.2}", self.median));
        }
        failures
    }
}

/// Scores every `step`th trace of each family, on all processors; prints a row for each family, and returns what
/// failed.
fn judge(step: usize) -> Vec<String> {
    let families = families::all();
    let jobs: Vec<_> =
        families.iter().flat_map(|family| (0..family.traces).step_by(step).map(move |seed| (family, seed))).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut scores: Vec<_> = std::thread::scope(|scope| {
        let work = || {
            let mut scores = Vec::new();
            while let Some((family, seed)) = jobs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                let trace = (family.make)(*seed);
                scores.push((trace.family, *seed, trace.name.clone(), trace.bounds, score(&trace)));
            }
            scores
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    scores.sort_by_key(|(family, seed, ..)| (families.iter().position(|known| known.name == *family), *seed));

    let mut failed = Vec::new();
    let mut rows: BTreeMap<usize, Vec<Score>> = BTreeMap::new();
    for (family, seed, name, bounds, score) in scores {
        let place = families.iter().position(|known| known.name == family).unwrap_or_default();
        rows.entry(place).or_default().push(score);
        let failures = score.failures(bounds);
        if std::env::var_os("FAILFAST_TRACES_EACH").is_some() {
            println!("{family} {seed}, {name}: {score:.3?}");
        }
        failed.extend(failures.into_iter().map(|failure| format!("{family} {seed}, {name}: {failure}")));
    }
    println!("| family (traces) | work, mean / worst | median answer, plain queue's | refused falsely, worst |");
    println!("|---|---|---|---|");
    for (place, scores) in rows {
        let family = &families[place];
        let mean = |of: fn(&Score) -> f64| scores.iter().map(of).sum::<f64>() / scores.len() as f64;
        let goodput = mean(|score| score.goodput.min(1.0));
        let worst = scores.iter().map(|score| score.goodput).fold(f64::INFINITY, f64::min);
        let refused = scores.iter().map(|score| score.refused).fold(0.0, f64::max);
        println!(
            "| {} ({}) | {goodput:.3} / {worst:.3} | {:.1}, {:.1} | {:.2}% |",
            family.name,
            scores.len(),
            mean(|score| score.median),
            mean(|score| score.plain_median),
            100.0 * refused
        );
        if step == 1 && goodput < family.mean {
            failed
                .push(format!("{}: {goodput:.3} of a plain queue's work on average, not {}", family.name, family.mean));
        }
    }
    failed
}

#[test]
fn all_callers_of_a_batch_are_served() {
    let world = World { includes_work: false, dial: 0.005, ..World::new(10, 0.050, 1.0) };
    let callers = vec![Caller::new(0.0, 0.050, 1.0); 100];
    let (callers, outcomes) = simulate(&world, &callers);
    assert!(outcomes.iter().zip(&callers).all(|(outcome, caller)| outcome.is_in_time(&world, caller)));
}

/// Without the margin for chance, a tenth of these callers would be refused falsely.
#[test]
fn where_leases_differ_a_prediction_leaves_a_margin() {
    let trace = families::calm_bursts(21);
    let failures = score(&trace).failures(trace.bounds);
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn two_wait_budgets_after_the_onset_of_an_overload_answers_are_fast_again() {
    for connections in [5, 20, 100] {
        for is_fixed in [true, false] {
            let trace = families::onset(connections, is_fixed);
            let (callers, outcomes) = simulate(&trace.world, &trace.callers);
            let median = median_answer(&trace, &callers, &outcomes);
            assert!(median > 0.0 && median < 3.0, "{}: {median:.2} leases", trace.name);
        }
    }
}

/// A caller whose lease ends at its deadline wastes a connection. The pool cannot know of the longer leases before the
/// first of them has ended.
#[test]
fn when_leases_become_longer_few_connections_are_wasted() {
    let (mut wasted, mut connections) = (0, 0);
    for number in 0..24 {
        let trace = short::slow(number);
        let (callers, outcomes) = simulate(&trace.world, &trace.callers);
        let is_wasted = |(outcome, caller): &(&Outcome, &Caller)| {
            counted_lease(&trace, **outcome).is_some() && !outcome.is_in_time(&trace.world, caller)
        };
        wasted += outcomes.iter().zip(&callers).filter(is_wasted).count();
        connections += trace.world.connections;
    }
    assert!(wasted * 10 <= connections * 4, "{wasted} wasted by {connections} connections");
}

/// In a lasting overload, callers that obey `retry_after` are served at least as often as newcomers.
#[test]
fn callers_that_obey_retry_after_are_served_as_often_as_newcomers() {
    for number in 0..8 {
        let trace = families::refused_come_back(number);
        let (callers, outcomes) = simulate(&trace.world, &trace.callers);
        let share = |is_return: bool| {
            let pairs = callers.iter().zip(&outcomes);
            let came = pairs
                .filter(|(caller, _)| caller.is_return == is_return && trace.counted.contains(caller.arrives))
                .map(|(caller, outcome)| outcome.is_in_time(&trace.world, caller));
            let came: Vec<_> = came.collect();
            came.iter().filter(|is_served| **is_served).count() as f64 / came.len() as f64
        };
        let (obedient, newcomers) = (share(true), share(false));
        assert!(obedient >= newcomers, "{}: {obedient:.3} of the obedient, {newcomers:.3} of others", trace.name);
    }
}

/// A normal run tests one trace in so many.
const FAST: usize = 13;

#[test]
fn on_any_arrival_process_the_pool_serves_what_a_plain_queue_serves() {
    let step = std::env::var("FAILFAST_TRACES").map_or(FAST, |step| step.parse().unwrap_or(1));
    let failed = judge(step);
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

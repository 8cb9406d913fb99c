//! Incidents, and loads that are no incident, in virtual time.

mod service;

use std::collections::HashMap;

use self::service::{Found, Service, about, first};
use super::*;

/// Of 600 random surges, two or three look like a step. They are predicted late or not at all.
const SEEDS: std::ops::Range<u64> = 1..6;

const NAMES: [&str; 5] = ["list", "load", "save", "search", "count"];

/// Returns whether no finding is repeated within 30 s.
fn is_seldom(found: &Found) -> bool {
    let mut last: HashMap<(std::mem::Discriminant<Finding>, Option<Operation>), f64> = HashMap::new();
    found.iter().all(|(at, finding)| {
        let operation = match finding {
            Finding::LeasesInflated { operation, .. } | Finding::LeasesNormal { operation, .. } => Some(*operation),
            _ => None,
        };
        last.insert((std::mem::discriminant(finding), operation), *at).is_none_or(|before| at - before >= 30.0)
    })
}

/// Incident A: the load rises from 0.6 to 3 times the capacity of 50 connections within a minute.
fn surge(hold: f64, steady: f64, seed: u64) -> Found {
    let load = |now: f64| (0.6 + 0.04 * (now - steady).max(0.0)) * 50.0 / hold;
    let one = move |_: f64, random: &mut fastrand::Rng| (Operation::Named("list"), about(hold, random));
    Service { limit: 50, load, hold: one, shows_running: true }.run(seed, steady + 40.0)
}

#[test]
fn a_surge_is_reported_and_predicted_before_any_caller_is_refused() {
    for (hold, steady) in [(0.02, 0.0), (0.05, 0.0), (0.2, 0.0), (0.02, 120.0), (0.2, 120.0), (0.2, 25.0)] {
        for seed in SEEDS {
            let found = surge(hold, steady, seed);
            let when = |is: fn(&Finding) -> bool| first(&found, is).map(|at| at - steady);
            let high = when(|finding| matches!(finding, Finding::UtilizationHigh { .. })).unwrap_or(f64::INFINITY);
            let predicted = when(|finding| matches!(finding, Finding::ExhaustionPredicted { .. }));
            let predicted = predicted.unwrap_or(f64::INFINITY);
            let shed = when(|finding| matches!(finding, Finding::Shedding { .. })).expect("a refusal");
            let case = format!("hold {hold}, after {steady} s, seed {seed}: {high} {predicted} {shed}");
            assert!((0.0..16.0).contains(&high) && (0.0..15.0).contains(&predicted), "{case}");
            assert!(high < shed - 1.0 && predicted < shed - 1.0, "{case}");
            assert!(is_seldom(&found), "{found:?}");
        }
    }
}

/// Incident B: one of five operations becomes nine times slower after `fast` seconds.
fn slow_query(limit: usize, load: f64, shares: [f64; 5], shows_running: bool, fast: f64, seed: u64) -> Found {
    let rate = load * limit as f64 / 0.2;
    let pick = move |now: f64, random: &mut fastrand::Rng| {
        let mut place = random.f64() * shares.iter().sum::<f64>();
        let index = shares.iter().position(|share| {
            place -= share;
            place < 0.0
        });
        let index = index.unwrap_or(0);
        let factor = if index == 1 && now >= fast { 9.0 } else { 1.0 };
        (Operation::Named(NAMES[index]), 0.2 * factor * (0.8 + 0.4 * random.f64()))
    };
    Service { limit, load: |_| rate, hold: pick, shows_running }.run(seed, fast + 45.0)
}

#[test]
fn the_first_finding_of_a_slow_query_is_its_name() {
    for (limit, load) in [(50, 0.5), (50, 0.7), (20, 0.5), (20, 0.7), (10, 0.5), (200, 0.6)] {
        for seed in SEEDS {
            let found = slow_query(limit, load, [1.0; 5], true, 60.0, seed);
            let (at, finding) = found.iter().find(|(at, _)| *at >= 60.0).expect("a finding");
            let case = format!("{limit} connections, load {load}, seed {seed}: {at} {finding:?}");
            assert!(matches!(finding, Finding::LeasesInflated { operation: Operation::Named("load"), .. }), "{case}");
            assert!(*at < 64.0, "{case}");
            let others = found.iter().filter(|(_, finding)| matches!(finding, Finding::LeasesInflated { .. })).count();
            assert!(others <= 2 && is_seldom(&found), "{found:?}");
        }
    }
}

#[test]
fn an_operation_of_a_few_calls_a_second_is_named_within_seconds() {
    for shows_running in [true, false] {
        for seed in SEEDS {
            // 50 calls a second, 2 of them of the slow operation.
            let found = slow_query(50, 0.2, [12.0, 2.0, 12.0, 12.0, 12.0], shows_running, 60.0, seed);
            let named = first(&found, |finding| {
                matches!(finding, Finding::LeasesInflated { operation: Operation::Named("load"), .. })
            });
            assert!(named.is_some_and(|at| (60.0..70.0).contains(&at)), "{seed}: {found:?}");
        }
    }
}

#[test]
fn below_capacity_nothing_but_high_utilization_is_reported() {
    for (limit, load, share, slow, fast) in [
        (10, 0.6, 0.03, 0.5, 0.005),
        (50, 0.7, 0.03, 0.5, 0.005),
        (5, 0.5, 0.01, 0.5, 0.002),
        (20, 0.6, 0.1, 1.0, 0.05),
    ] {
        let mean = share * slow + (1.0 - share) * fast;
        let rate = load * limit as f64 / mean;
        let hold = |_: f64, random: &mut fastrand::Rng| {
            let hold = if random.f64() < share { slow } else { fast };
            (Operation::Named(NAMES[random.usize(..5)]), hold)
        };
        for seed in 0..2 {
            let found = Service { limit, load: |_| rate, hold, shows_running: seed > 0 }.run(seed, 600.0);
            let is_false = |finding: &Finding| {
                matches!(finding, Finding::LeasesInflated { .. } | Finding::ExhaustionPredicted { .. })
            };
            assert_eq!(first(&found, is_false), None, "{limit}, {load}, seed {seed}: {found:?}");
            assert!(is_seldom(&found), "{found:?}");
        }
    }
}

/// Simulates a day with its peak in the middle. Connections in use are drawn at each look, without a queue.
fn day(limit: usize, hold: f64, peak: f64, seed: u64) -> Found {
    let (mut random, begun, mut watch) = (fastrand::Rng::with_seed(seed), Instant::now(), Watch::new());
    let (mut in_use, mut arrivals, mut found) = (0.0_f64, 0.0, Found::new());
    let stays = (-0.25 / hold).exp();
    for tick in 0..24 * 3600 * 4 {
        let at = f64::from(tick) / 4.0;
        let load = peak * (0.55 - 0.45 * (at / 86_400.0 * std::f64::consts::TAU).cos()) * limit as f64;
        arrivals += load / hold * 0.25;
        // The leases that go on and the new ones. Both are random, with a nearly normal distribution.
        let mean = in_use * stays + load * (1.0 - stays);
        let variance = in_use * stays * (1.0 - stays) + load * (1.0 - stays);
        let chance = ((0..4).map(|_| random.f64()).sum::<f64>() - 2.0) * 3.0_f64.sqrt();
        in_use = (mean + variance.sqrt() * chance).round().clamp(0.0, 1.2 * limit as f64);
        let reading = Reading {
            in_use: (in_use as usize).min(limit),
            limit,
            waiting: (in_use as usize).saturating_sub(limit),
            arrivals: arrivals as u64,
            ..Reading::default()
        };
        let now = begun + Duration::from_secs_f64(at);
        found.extend(watch.tick(now, &reading, []).into_iter().map(|finding| (at, finding)));
    }
    found
}

/// One operation becomes nine times slower after 60 s, and is as fast as before after 90 s. Returns what was found, and
/// the share of Background in each quarter of a second.
fn slow_beside(background: Option<Lane>) -> (Found, Vec<f64>) {
    let (begun, mut watch, mut found, mut shares) = (Instant::now(), Watch::new(), Found::new(), Vec::new());
    for tick in 0..150 * 4 {
        let at = f64::from(tick) / 4.0;
        let (now, is_slow) = (begun + Duration::from_secs_f64(at), (60.0..90.0).contains(&at));
        for _ in 0..5 {
            let hold = Duration::from_millis(if is_slow { 1_800 } else { 200 });
            watch.record(now, Operation::Named("load"), Lane::Normal, hold);
        }
        if let Some(lane) = background {
            watch.record(now, Operation::Named("report"), lane, Duration::from_secs(1));
        }
        let reading = Reading { in_use: 5, limit: 20, ..Reading::default() };
        found.extend(watch.tick(now, &reading, []).into_iter().map(|finding| (at, finding)));
        shares.push(watch.background_share());
    }
    (found, shares)
}

#[test]
fn background_is_throttled_while_others_suffer_and_restored_afterwards() {
    let (found, shares) = slow_beside(Some(Lane::Background));
    let kinds: Vec<_> = found.iter().map(|(at, finding)| (finding, *at as u64)).collect();
    let operation = Operation::Named("load");
    assert!(
        matches!(
            kinds[..],
            [
                (Finding::LeasesInflated { .. }, 60),
                (Finding::BackgroundThrottled { percent: 50, operation: because, .. }, 60),
                (Finding::LeasesNormal { .. }, 95..98),
                (Finding::BackgroundRestored { .. }, 103..107),
            ] if *because == operation
        ),
        "{kinds:?}"
    );
    assert!(shares[80 * 4] == 0.0 && shares[..60 * 4].iter().all(|share| *share == 1.0), "{shares:?}");
    assert_eq!(shares.last(), Some(&1.0));
}

#[test]
fn in_a_pool_without_background_nothing_is_throttled() {
    for lane in [None, Some(Lane::Normal), Some(Lane::Critical)] {
        let (found, shares) = slow_beside(lane);
        assert!(shares.iter().all(|share| *share == 1.0), "{lane:?}: {shares:?}");
        assert!(first(&found, |finding| matches!(finding, Finding::BackgroundThrottled { .. })).is_none(), "{found:?}");
    }
}

fn is_prediction(finding: &Finding) -> bool {
    matches!(finding, Finding::ExhaustionPredicted { .. })
}

#[test]
fn a_day_with_a_peak_of_70_percent_reports_little() {
    for (limit, hold) in [(50, 0.02), (10, 0.05), (5, 0.5)] {
        let found = day(limit, hold, 0.7, 1);
        assert_eq!(first(&found, is_prediction), None, "{limit}, {hold}");
        assert!(is_seldom(&found), "{limit}, {hold}: {found:?}");
    }
}

#[test]
fn a_day_with_a_peak_of_85_percent_predicts_nothing_and_repeats_nothing_too_soon() {
    for (limit, hold) in [(50, 0.2), (200, 1.0)] {
        let found = day(limit, hold, 0.85, 2);
        assert_eq!(first(&found, is_prediction), None, "{limit}, {hold}");
        assert!(is_seldom(&found), "{limit}, {hold}: {found:?}");
        let high = found.iter().filter(|(_, finding)| matches!(finding, Finding::UtilizationHigh { .. })).count();
        assert!(high > 0, "{limit}, {hold}");
    }
}

#[test]
fn a_step_is_no_trend_even_if_callers_arrive_at_random() {
    for (from, to) in [(0.4, 0.7), (0.3, 0.9), (0.001, 0.85), (0.001, 0.7)] {
        let load = |now: f64| if now < 60.0 { from } else { to } * 50.0 / 0.05;
        let hold = |_: f64, random: &mut fastrand::Rng| (Operation::Named("list"), about(0.05, random));
        for seed in SEEDS {
            let found = Service { limit: 50, load, hold, shows_running: true }.run(seed, 120.0);
            assert_eq!(first(&found, is_prediction), None, "{from} to {to}, seed {seed}: {found:?}");
        }
    }
}

//! What went wrong in other limiters, each with its symptom. The reports are in the trackers of Netflix's
//! concurrency-limits and of Envoy.

use std::time::{Duration, Instant};

use super::super::AdviceReason;
use super::super::controller::{Controller, Pooled};
use super::super::size::SizeTerms;
use super::world::{Kind, Server, World};
use super::{calm, service};
use crate::operation::Operation;
use crate::policy::{EndedLease, Lane};

/// concurrency-limits#137: calls that all time out take the same time each, which looked like a steady server.
#[test]
fn constant_timeouts_never_raise_the_limit() {
    let mut world = calm(6, 30, Server::of(8.0), 40.0);
    world.query_timeout = 0.25;
    world.kinds = vec![Kind { is_fixed: true, ..Kind::new("read", 300.0, 60.0) }];
    world.run(600.0);
    assert!(world.limits.iter().all(|(_, limit)| *limit <= 6), "{:?}", world.limits);
}

/// concurrency-limits#134: a queue that is always there made the limit grow without end.
#[test]
fn mild_overload_does_not_grow_the_limit_without_end() {
    // Four processors do 190 calls a second at most, and a few more than that come.
    let mut world = calm(10, 100, Server::of(4.0), 40.0);
    world.kinds = service(165.0).to_vec();
    world.run(1_800.0);
    assert!(world.limit() <= 14, "{:?}", world.limits);
    assert!(world.changes(AdviceReason::CallersQueue) <= 12, "{:?}", world.limits);
}

/// concurrency-limits#165: a duration without load that was measured too high hid every overload. Here durations of
/// busy times teach nothing.
#[test]
fn durations_under_load_do_not_become_usual() {
    let mut world = World::new(7, 20, 20, Server::of(4.0), &service(40.0)).advising();
    world.run(60.0);
    world.kinds = service(500.0).to_vec();
    world.run(600.0);
    assert!(
        world.controller.inflation().is_some_and(|inflation| inflation > 2.0),
        "{:?}",
        world.controller.inflation()
    );
}

/// In quiet times, timeouts cut most leases short. Once they no longer do, nothing has become slower.
#[test]
fn leases_that_were_cut_short_do_not_become_usual() {
    let mut controller = Controller::new(true, SizeTerms { max_size: 20, min_idle: 0, start: 20 });
    let begun = Instant::now();
    let lease = |ms, is_cut| {
        let (operation, lasted) = (Operation::Named("read"), Duration::from_millis(ms));
        EndedLease { operation, lane: Lane::Normal, lasted, is_cut }
    };
    let quiet = [vec![lease(400, false); 4], vec![lease(50, true); 16]].concat();
    let busy = vec![lease(400, false); 20];
    let mut arrivals = 0;
    for look in 0..800_u32 {
        let (in_use, ended) = if look < 480 { (4, &quiet) } else { (12, &busy) };
        arrivals += ended.len() as u64;
        let pool = Pooled { in_use, waiting: 0, limit: 20, arrivals, left: 0, ended, held: &[] };
        controller.look(begun + Duration::from_millis(250) * look, &pool);
    }
    let inflation = controller.inflation();
    assert!(inflation.is_some_and(|inflation| (0.9..1.1).contains(&inflation)), "{inflation:?}");
}

/// envoy#14997: a window without a sample was read as a duration of zero.
#[test]
fn windows_without_calls_change_nothing() {
    let mut world = calm(10, 30, Server::of(8.0), 40.0);
    world.kinds.iter_mut().for_each(|kind| kind.rate = 0.0);
    world.run(300.0);
    assert!(world.controller.inflation().is_none() && world.limits.len() == 1 && world.findings.is_empty());
}

/// envoy#46532: the floor and the probe were one number. Here the floor only bounds cuts, and there is no probe.
#[test]
fn the_limit_never_falls_below_the_floor() {
    let mut world = calm(20, 20, Server::of(4.0), 40.0);
    (world.kinds, world.server.burners) = (service(500.0).to_vec(), 4.0);
    world.server.contention = 0.2;
    world.run(900.0);
    let least = world.limits.iter().map(|(_, limit)| *limit).min().unwrap();
    assert!((5..20).contains(&least), "a quarter of 20: {:?}", world.limits);
}

/// envoy#38338: a lasting slow-down became the new normal within minutes, so that it was no overload any more.
#[test]
fn half_an_hour_of_overload_is_still_an_overload() {
    let server = Server { contention: 0.1, ..Server::of(4.0) };
    let mut world = calm(20, 20, server, 60.0);
    (world.kinds, world.server.burners) = (service(400.0).to_vec(), 4.0);
    world.run(1_800.0);
    assert!(world.controller.inflation().is_some_and(|inflation| inflation > 1.5));
    assert!(world.limit() < 20, "{:?}", world.limits);
}

/// envoy#8337: all instances measured at the same time with a few connections. Here nothing is made smaller to measure.
#[test]
fn nothing_is_measured_by_serving_less() {
    let mut world = World::new(13, 12, 12, Server::of(16.0), &service(250.0)).coarse();
    world.run(1_800.0);
    assert!(world.limits.iter().all(|(_, limit)| *limit >= 12), "{:?}", world.limits);
}

/// A stream of refusals is no demand: growth follows callers that wait, and throughput.
#[test]
fn growth_without_gain_is_taken_back_and_seldom_tried_again() {
    // Leases are short, but the server does 200 a second, however many connections there are.
    let mut world = calm(10, 40, Server::of(4.0), 40.0);
    world.kinds = service(200.0).to_vec();
    world.run(3_600.0);
    assert!(world.limit() <= 14, "{:?}", world.limits);
    assert!(world.limits.len() <= 30, "{} changes in an hour: {:?}", world.limits.len(), world.limits);
}

/// A budget that falls while a step up is being tried: the step is taken back.
#[test]
fn a_budget_that_falls_during_a_trial_ends_it() {
    let mut world = calm(6, 40, Server::of(32.0), 50.0);
    world.kinds = service(300.0).to_vec();
    while world.limit() == 6 {
        world.run(0.25);
    }
    world.budget = 4;
    world.run(10.0);
    assert_eq!((world.limit(), world.controller.limit()), (4, Some(6)));
    world.budget = usize::MAX;
    world.run(60.0);
    assert!(world.limit() > 6, "{:?}", world.limits);
}

/// The owner resizes at any moment: the limit follows at once, and never exceeds `max_size`.
#[test]
fn the_owner_resizes_during_a_trial() {
    let mut world = calm(6, 40, Server::of(32.0), 50.0);
    world.kinds = service(300.0).to_vec();
    while world.limit() == 6 {
        world.run(0.25);
    }
    for size in [3, 40, 5, 1, 30] {
        world.controller.resize(size);
        world.max_size = size;
        assert!(world.controller.limit().is_some_and(|limit| limit <= size && limit >= 1));
        world.run(7.0);
    }
}

/// A server that is saturated although the budget gives the pool only a part of its limit.
#[test]
fn a_cut_begins_below_the_budget() {
    let mut world = calm(40, 40, Server { contention: 0.1, ..Server::of(4.0) }, 60.0);
    world.budget = 20;
    (world.kinds, world.server.burners) = (service(500.0).to_vec(), 4.0);
    world.run(60.0);
    assert!(world.limit() < 20, "{:?}", world.limits);
}

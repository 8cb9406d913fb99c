//! The controller in virtual time: what it does on calm days, under overload, and what other limiters got wrong.

mod traps;
mod world;

use self::world::{Kind, Server, World};
use super::{AdaptiveFinding, AdviceReason};

/// A service: short reads, and some writes.
fn service(rate: f64) -> [Kind; 2] {
    [Kind::new("read", rate, 0.02), Kind::new("write", rate / 4.0, 0.03)]
}

/// The same with durations that are always the same, so that throughput has little noise.
fn steady(rate: f64) -> Vec<Kind> {
    service(rate).map(|kind| Kind { is_fixed: true, ..kind }).to_vec()
}

/// A minute of little load, in which the controller learns what is usual.
fn calm(start: usize, max_size: usize, server: Server, rate: f64) -> World {
    let mut world = World::new(7, start, max_size, server, &service(rate));
    world.run(60.0);
    assert!(world.controller.inflation().is_some() && world.findings.is_empty(), "{:?}", world.findings);
    world
}

#[test]
fn a_calm_day_refuses_nobody() {
    let mut world = World::new(1, 20, 20, Server::of(8.0), &service(60.0)).coarse();
    // Every fourth minute of it.
    for minute in (0..24 * 60).step_by(4) {
        // From 30 to 120 calls a second, most in the afternoon.
        let rate = 75.0 - 45.0 * (f64::from(minute) * std::f64::consts::TAU / 1_440.0).cos();
        world.kinds = service(rate).to_vec();
        world.run(60.0);
    }
    assert_eq!((world.limits.len(), world.capped), (1, 0), "{:?}", world.findings);
    assert!(world.findings.is_empty(), "{:?}", world.findings);
}

#[test]
fn the_same_seed_takes_the_same_path() {
    let path = || {
        let mut world = calm(15, 15, Server { contention: 0.1, ..Server::of(4.0) }, 60.0);
        (world.kinds, world.server.burners) = (service(400.0).to_vec(), 4.0);
        world.run(120.0);
        (world.limits, world.done, world.findings)
    };
    let first = path();
    assert!(first.0.len() > 1);
    assert_eq!(first, path());
}

/// Each size is tried with the same load. Returns the best goodput.
fn best_fixed(prepare: impl Fn(&mut World), max_size: usize, server: Server) -> (usize, f64) {
    let of = |size: usize| {
        let mut world = World::new(7, size, size, server, &service(60.0)).fixed();
        prepare(&mut world);
        world.run(10.0);
        (size, world.goodput(40.0))
    };
    (2..=max_size)
        .step_by(2)
        .chain([max_size])
        .map(of)
        .max_by(|(_, one), (_, other)| one.total_cmp(other))
        .expect("some sizes")
}

/// Returns how far the limit moved within each five minutes after this time, at most.
fn swing(world: &World, since: f64) -> usize {
    let at =
        |time: f64| world.limits.iter().take_while(|(then, _)| *then <= time).last().map_or(0, |(_, limit)| *limit);
    let begins = world.limits.iter().map(|(then, _)| *then).filter(|then| *then >= since).chain([since]);
    let swings = begins.map(|begin| {
        let within = world.limits.iter().filter(|(then, _)| (begin..begin + 300.0).contains(then));
        let within: Vec<_> = within.map(|(_, limit)| *limit).chain([at(begin)]).collect();
        within.iter().max().unwrap_or(&0) - within.iter().min().unwrap_or(&0)
    });
    swings.max().unwrap_or(0)
}

/// More sessions make the server do less, as in incident B.
#[test]
fn a_saturated_server_gets_fewer_connections_and_does_more() {
    let server = Server { contention: 0.08, ..Server::of(4.0) };
    let overload = |world: &mut World| (world.kinds, world.server.burners) = (steady(500.0), 4.0);
    let (size, best) = best_fixed(overload, 30, server);
    let mut world = calm(30, 30, server, 60.0);
    overload(&mut world);
    world.run(300.0);
    let goodput = world.goodput(300.0);
    assert!(goodput >= 0.95 * best, "{goodput:.0} a second, {best:.0} with {size}: {:?}", world.limits);
    assert!(world.changes(AdviceReason::Saturated) > 0);
    assert!(swing(&world, 300.0) <= 6, "more than two steps: {:?}", world.limits);
}

/// The server divides its processor fairly: each connection less costs throughput.
#[test]
fn a_cut_that_costs_throughput_is_taken_back() {
    let server = Server::of(2.0);
    let overload = |world: &mut World| (world.kinds, world.server.burners) = (steady(300.0), 8.0);
    let (size, best) = best_fixed(overload, 15, server);
    let mut world = calm(15, 15, server, 40.0);
    overload(&mut world);
    world.run(120.0);
    let goodput = world.goodput(600.0);
    assert!(goodput >= 0.95 * best, "{goodput:.0} a second, {best:.0} with {size}: {:?}", world.limits);
    assert!(swing(&world, 120.0) <= 4, "more than two steps: {:?}", world.limits);
}

#[test]
fn after_the_overload_the_limit_comes_back() {
    let mut world = calm(20, 20, Server { contention: 0.1, ..Server::of(4.0) }, 60.0);
    (world.kinds, world.server.burners) = (service(500.0).to_vec(), 4.0);
    world.run(180.0);
    let cut = world.limit();
    assert!(cut < 20, "{:?}", world.findings);
    let ended = world.now;
    (world.kinds, world.server.burners) = (service(60.0).to_vec(), 0.0);
    world.run(20.0 + 4.0 * 20.0);
    assert_eq!(world.limit(), 20, "{:?}", world.limits);
    let back = world.limits.iter().filter(|(at, _)| *at > ended).map(|(_, limit)| *limit).collect::<Vec<_>>();
    assert!(back.windows(2).all(|pair| pair[1] <= pair[0] + 1), "by single connections: {:?}", world.limits);
}

#[test]
fn twice_the_traffic_makes_the_pool_grow_within_10_s() {
    let mut world = calm(6, 40, Server::of(32.0), 50.0);
    world.kinds = service(300.0).to_vec();
    world.run(10.0);
    assert!(world.limit() > 6, "{:?}", world.findings);
    world.run(120.0);
    let waited = world.limit();
    assert!((8..=20).contains(&waited), "as many as are needed: {:?}", world.limits);
    assert_eq!(world.changes(AdviceReason::Saturated), 0);
}

#[test]
fn a_pool_that_begins_under_load_grows_although_nothing_is_usual_yet() {
    let mut world = World::new(3, 4, 40, Server::of(32.0), &service(400.0));
    world.run(120.0);
    assert!(world.limit() >= 10, "{:?}", world.limits);
}

/// One row is updated by all: more connections would only wait with the others.
#[test]
fn a_hot_row_keeps_the_size_and_caps_the_operation() {
    let kinds = [Kind::new("read", 100.0, 0.01), Kind::new("update", 40.0, 0.01)];
    let mut world = World::new(5, 15, 15, Server::of(16.0), &kinds);
    world.query_timeout = 2.0;
    world.run(60.0);
    let usual = world.p99("read");
    world.server.locked = Some("update");
    world.run(12.0);
    let bound = |world: &World| world.findings.iter().any(|(_, f)| matches!(f, AdaptiveFinding::LockBound { .. }));
    assert!(bound(&world), "{:?}", world.findings);
    world.p99("read");
    world.run(60.0);
    let p99 = world.p99("read");
    assert!(p99 < 2.0 * usual, "{p99} s, usually {usual} s");
    assert_eq!(world.limits.len(), 1, "the size stays");
    assert!(!world.controller.caps().is_empty());
    // As while the circuit is open.
    let kinds = world.kinds.clone();
    world.kinds.iter_mut().for_each(|kind| kind.rate = 0.0);
    world.run(120.0);
    assert!(!world.controller.caps().is_empty() && !world.controller.wants_waits(), "nobody was served");
    world.kinds = kinds;
    world.server.locked = None;
    world.run(60.0);
    assert!(world.controller.caps().is_empty() && world.controller.advice(world.instant()).is_none());
}

#[test]
fn a_shift_to_slow_reports_is_no_reason_to_shrink() {
    let mut kinds = service(60.0).to_vec();
    kinds.push(Kind { is_fixed: true, ..Kind::new("report", 1.0, 0.5) });
    let mut world = World::new(9, 20, 20, Server::of(64.0), &kinds);
    world.run(120.0);
    world.kinds[0].rate = 20.0;
    world.kinds[2].rate = 36.0;
    world.run(300.0);
    assert!(world.limits.len() == 1 && world.capped == 0, "{:?}", world.findings);
}

/// It adapts once, and does not creep.
#[test]
fn an_hour_of_a_slower_network_changes_the_size_at_most_once() {
    let mut world = World::new(11, 20, 20, Server::of(8.0), &service(40.0)).coarse();
    world.run(600.0);
    // Two round trips of each call.
    world.server.network = 0.06;
    world.run(3_600.0);
    assert!(world.limits.len() <= 2, "{:?}", world.limits);
    let ends = |world: &World| {
        world.findings.iter().filter(|(_, f)| matches!(f, AdaptiveFinding::HeldByCallerEnded { .. })).count()
    };
    let said = world.findings.iter().any(|(_, f)| matches!(f, AdaptiveFinding::HeldByCaller { .. }));
    assert!(said && ends(&world) <= 2, "{}", ends(&world));
    world.run(3_600.0);
    assert!(world.limits.len() <= 2 && ends(&world) <= 3, "{:?}", world.limits);
    assert!(world.controller.inflation().is_some_and(|inflation| inflation < 1.5), "it is usual by now");
}

#[test]
fn a_pool_that_only_advises_says_the_same_and_changes_nothing() {
    let server = Server { contention: 0.1, ..Server::of(4.0) };
    let mut world = World::new(7, 20, 20, server, &service(60.0)).advising();
    world.run(60.0);
    (world.kinds, world.server.burners) = (service(500.0).to_vec(), 4.0);
    world.run(180.0);
    assert!(world.limits.len() == 1 && world.controller.limit().is_none() && world.controller.caps().is_empty());
    let of = |finding: &AdaptiveFinding| match finding {
        AdaptiveFinding::Advised { advice, .. } => Some((advice.reason, advice.to)),
        _ => None,
    };
    let advised: Vec<_> = world.findings.iter().filter_map(|(_, finding)| of(finding)).collect();
    assert!(advised.contains(&(AdviceReason::Saturated, 18)), "{:?}", world.findings);
    assert!(advised.len() <= 10, "once in 30 s: {advised:?}");
}

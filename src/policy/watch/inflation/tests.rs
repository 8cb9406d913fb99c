use super::*;

const LOAD: Operation = Operation::Named("load_dashboard");

/// One operation whose holds end in an even rhythm.
struct Rhythm {
    begun: Instant,
    at: f64,
    ticks: f64,
    inflation: Inflation,
    found: Vec<(f64, Finding)>,
}

impl Rhythm {
    fn new() -> Self {
        Self { begun: Instant::now(), at: 0.0, ticks: 0.25, inflation: Inflation::new(), found: Vec::new() }
    }

    /// Records `count` holds, `rate` a second. `hold` returns the seconds of each.
    fn play(&mut self, count: usize, rate: f64, mut hold: impl FnMut(usize) -> f64) {
        for index in 0..count {
            self.at += 1.0 / rate;
            while self.ticks < self.at {
                let now = self.now(self.ticks);
                let findings = self.inflation.tick(now, []);
                self.found.extend(findings.into_iter().map(|finding| (self.ticks, finding)));
                self.ticks += 0.25;
            }
            let now = self.now(self.at);
            self.inflation.record(now, LOAD, Lane::Normal, Duration::from_secs_f64(hold(index)));
        }
    }

    fn now(&self, at: f64) -> Instant {
        self.begun + Duration::from_secs_f64(at)
    }

    fn inflated(&self) -> Option<(f64, u128, u128)> {
        self.found.iter().find_map(|(at, finding)| match finding {
            Finding::LeasesInflated { from, to, .. } => Some((*at, from.as_millis(), to.as_millis())),
            _ => None,
        })
    }
}

#[test]
fn a_finding_has_the_duration_before_and_after() {
    let mut rhythm = Rhythm::new();
    rhythm.play(1_000, 20.0, |_| 0.2);
    rhythm.play(40, 20.0, |_| 1.8);
    let (at, from, to) = rhythm.inflated().expect("inflated");
    assert_eq!((from, to), (200, 1_800));
    assert!((50.0..51.5).contains(&at), "{at}");
}

#[test]
fn twice_as_long_is_not_inflated() {
    let mut rhythm = Rhythm::new();
    rhythm.play(1_000, 20.0, |_| 0.2);
    rhythm.play(2_000, 20.0, |_| 0.45);
    assert_eq!(rhythm.inflated(), None);
}

#[test]
fn a_few_slow_statements_are_not_inflated() {
    let mut rhythm = Rhythm::new();
    rhythm.play(1_000, 20.0, |_| 0.02);
    rhythm.play(1_000, 20.0, |index| if index % 500 == 0 { 60.0 } else { 0.02 });
    rhythm.play(1_000, 20.0, |index| if index % 100 < 3 { 5.0 } else { 0.02 });
    assert_eq!(rhythm.inflated(), None);
}

#[test]
fn a_stall_of_half_a_second_is_not_inflated() {
    let mut rhythm = Rhythm::new();
    rhythm.play(3_000, 100.0, |_| 0.02);
    rhythm.play(50, 5_000.0, |_| 0.5);
    rhythm.play(3_000, 100.0, |_| 0.02);
    assert_eq!(rhythm.inflated(), None);
}

#[test]
fn nothing_is_found_before_the_usual_average_is_known() {
    let mut rhythm = Rhythm::new();
    rhythm.play(29, 20.0, |_| 0.005);
    rhythm.play(170, 20.0, |_| 0.5);
    assert_eq!(rhythm.inflated(), None);
}

#[test]
fn an_inflation_is_repeated_while_it_lasts_and_then_ends() {
    let mut rhythm = Rhythm::new();
    rhythm.play(1_000, 20.0, |_| 0.2);
    rhythm.play(1_800, 20.0, |_| 1.8);
    rhythm.play(1_000, 20.0, |_| 0.2);
    let said = rhythm.found.iter().filter(|(_, finding)| {
        matches!(finding, Finding::LeasesInflated { from, to, .. }
        if (from.as_millis(), to.as_millis()) == (200, 1_800))
    });
    assert_eq!(said.count(), 3);
    let (at, last) = rhythm.found.last().expect("its end");
    assert!(matches!(last, Finding::LeasesNormal { to, .. } if to.as_millis() == 200), "{last:?}");
    assert!((140.0..150.0).contains(at), "{at}");
}

#[test]
fn an_operation_that_stays_slow_becomes_usual() {
    let mut rhythm = Rhythm::new();
    rhythm.play(1_000, 20.0, |_| 0.2);
    rhythm.play(20_000, 20.0, |_| 1.8);
    let (at, last) = rhythm.found.last().expect("its end");
    assert!(matches!(last, Finding::LeasesNormal { to, .. } if to.as_millis() == 1_800), "{last:?}");
    assert!((350.0..400.0).contains(at), "{at}");
    rhythm.play(100, 20.0, |_| 9.0);
    assert!(matches!(rhythm.found.last(), Some((_, Finding::LeasesInflated { .. }))));
}

#[test]
fn a_connection_still_in_use_counts_once() {
    let mut rhythm = Rhythm::new();
    rhythm.play(1_000, 20.0, |_| 0.2);
    let held = |count: usize| (0..count).map(|_| (LOAD, Lane::Normal, Duration::from_secs(2)));
    for count in [3, 3, 3, 3, 3, 3, 3, 3] {
        rhythm.at += 0.25;
        let now = rhythm.now(rhythm.at);
        assert_eq!(rhythm.inflation.tick(now, held(count)), []);
    }
    let now = rhythm.now(rhythm.at);
    (0..3).for_each(|_| rhythm.inflation.record(now, LOAD, Lane::Normal, Duration::from_secs(2)));
    assert_eq!(rhythm.inflation.tick(now, held(0)), []);
    let now = rhythm.now(rhythm.at + 0.25);
    assert!(matches!(rhythm.inflation.tick(now, held(7))[..], [Finding::LeasesInflated { .. }]));
}

#[test]
fn the_detector_remembers_256_operations_and_names_three() {
    let (mut inflation, begun) = (Inflation::new(), Instant::now());
    let names: Vec<&'static str> = (0..300).map(|n| &*Box::leak(format!("operation {n}").into_boxed_str())).collect();
    for second in 0..60 {
        let now = begun + Duration::from_secs(second);
        let hold = Duration::from_millis(if second < 40 { 10 } else { 1_000 });
        for name in &names[..10] {
            (0..10).for_each(|_| inflation.record(now, Operation::Named(name), Lane::Normal, hold));
        }
        let findings = inflation.tick(now, []);
        assert!(findings.len() <= MOST_REPORTED, "{findings:?}");
        assert_eq!(findings.len() == MOST_REPORTED, second == 41, "{second} {findings:?}");
    }
    names.iter().for_each(|name| inflation.record(begun, Operation::Named(name), Lane::Normal, Duration::ZERO));
    assert_eq!(inflation.operations.len(), OPERATIONS.get());
}

/// Plays an operation that becomes slow. `lanes` returns the lane of each hold, and whether it is slow then. Returns
/// the operation that is inflated for callers above Background, at the end and 40 s later.
fn suffering(lanes: impl Fn(usize) -> (Lane, bool)) -> [Option<Operation>; 2] {
    let (mut inflation, begun) = (Inflation::new(), Instant::now());
    let now = |index: usize| begun + Duration::from_millis(50 * index as u64);
    for index in 0..1_100 {
        let (lane, is_slow) = lanes(index);
        let hold = Duration::from_millis(if is_slow && index >= 1_000 { 1_800 } else { 200 });
        inflation.record(now(index), LOAD, lane, hold);
        inflation.tick(now(index), []);
    }
    let then = inflation.worst_above_background(now(1_100));
    inflation.tick(now(1_900), []);
    [then, inflation.worst_above_background(now(1_900))]
}

#[test]
fn callers_above_background_suffer_only_if_their_own_leases_are_slow() {
    let background =
        |share: usize| move |index: usize| if index % share == 0 { Lane::Normal } else { Lane::Background };
    assert_eq!(suffering(|_| (Lane::Normal, true))[0], Some(LOAD));
    assert_eq!(suffering(|_| (Lane::Critical, true))[0], Some(LOAD));
    assert_eq!(suffering(|_| (Lane::Background, true))[0], None);
    assert_eq!(suffering(|index| (background(10)(index), true))[0], Some(LOAD), "one in ten is above Background");
    let is_slow = |index| (background(10)(index), background(10)(index) == Lane::Background);
    assert_eq!(suffering(is_slow)[0], None, "the slow ones are of Background");
}

#[test]
fn callers_above_background_no_longer_suffer_once_none_of_them_is_slow() {
    let demoted = |index| (if index < 1_050 { Lane::Normal } else { Lane::Background }, true);
    assert_eq!(suffering(demoted), [Some(LOAD), None]);
}

#[test]
fn a_connection_still_in_use_is_evidence_of_its_lane() {
    for (lane, expected) in [(Lane::Critical, Some(LOAD)), (Lane::Background, None)] {
        let mut rhythm = Rhythm::new();
        rhythm.play(1_000, 20.0, |_| 0.2);
        let held = || (0..8).map(|_| (LOAD, lane, Duration::from_secs(2)));
        for _ in 0..8 {
            rhythm.at += 0.25;
            let now = rhythm.now(rhythm.at);
            rhythm.inflation.tick(now, held());
        }
        let now = rhythm.now(rhythm.at);
        assert_eq!(rhythm.inflation.worst_above_background(now), expected, "{lane}");
        assert_eq!(rhythm.inflation.has_background(), lane == Lane::Background);
        // They end, and have been counted.
        (0..8).for_each(|_| rhythm.inflation.record(now, LOAD, lane, Duration::from_secs(2)));
        assert_eq!(rhythm.inflation.worst_above_background(now), expected, "{lane}");
    }
}

#[test]
fn a_connection_still_in_use_is_evidence_of_its_lane_once() {
    let mut rhythm = Rhythm::new();
    rhythm.play(1_000, 20.0, |_| 0.2);
    let lane = |index: usize| if index < 4 { Lane::Critical } else { Lane::Background };
    for _ in 0..8 {
        rhythm.at += 0.25;
        let now = rhythm.now(rhythm.at);
        rhythm.inflation.tick(now, (0..12).map(|index| (LOAD, lane(index), Duration::from_secs(2))));
    }
    let now = rhythm.now(rhythm.at);
    (0..12).for_each(|index| rhythm.inflation.record(now, LOAD, lane(index), Duration::from_secs(2)));
    assert!(matches!(rhythm.found[..], []) && rhythm.inflation.operations.peek(&LOAD).unwrap().is_inflated(now));
    assert_eq!(rhythm.inflation.worst_above_background(now), None, "four leases are not evidence enough");
}

#[cfg(feature = "admin")]
#[test]
fn a_baseline_is_the_usual_duration_and_the_present_one_while_it_is_longer() {
    let mut rhythm = Rhythm::new();
    rhythm.play(10, 20.0, |_| 0.2);
    let known = |rhythm: &Rhythm| rhythm.inflation.baselines(rhythm.now(rhythm.at));
    assert_eq!(known(&rhythm)[0].slow_after, None, "too little is known");
    rhythm.play(990, 20.0, |_| 0.2);
    rhythm.play(40, 20.0, |_| 1.8);
    let [baseline] = known(&rhythm)[..] else { panic!("{:?}", known(&rhythm)) };
    let millis = |duration: Duration| duration.as_millis();
    assert_eq!((baseline.operation, millis(baseline.mean)), (LOAD, 200));
    assert_eq!((baseline.slow_after.map(millis), baseline.inflated_to.map(millis)), (Some(600), Some(1_800)));
    assert!((980..=1_000).contains(&baseline.leases), "{}", baseline.leases);
}

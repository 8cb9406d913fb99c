use proptest::prelude::*;

use super::*;

const TICK: Duration = Duration::from_millis(250);
const TICKS: usize = 4;
const LOAD: Operation = Operation::Named("load_dashboard");

/// A throttle in virtual time.
struct Play {
    begun: Instant,
    at: Duration,
    throttle: Throttle,
    /// The share after each look.
    shares: Vec<u8>,
    found: Vec<(f64, Finding)>,
}

impl Play {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            at: Duration::ZERO,
            throttle: Throttle::new(),
            shares: Vec::new(),
            found: Vec::new(),
        }
    }

    fn look(&mut self, is_slow: bool) {
        let found = self.throttle.tick(self.begun + self.at, is_slow.then_some(LOAD));
        self.found.extend(found.map(|finding| (self.at.as_secs_f64(), finding)));
        self.shares.push(self.throttle.percent());
        self.at += TICK;
    }

    fn play(&mut self, looks: usize, is_slow: bool) {
        (0..looks).for_each(|_| self.look(is_slow));
    }

    /// Returns the share and when it changed to it, in seconds.
    fn changes(&self) -> Vec<(f64, u8)> {
        let mut last = ALL;
        let changed = |(_, share): &(usize, u8)| std::mem::replace(&mut last, *share) != *share;
        let shares = self.shares.iter().copied().enumerate().filter(changed);
        shares.map(|(look, share)| (look as f64 / TICKS as f64, share)).collect()
    }

    /// Returns how often the share began to fall or to rise.
    fn turns(&self) -> usize {
        let mut turns = Vec::new();
        for pair in [&[ALL][..], &self.shares].concat().windows(2).filter(|pair| pair[0] != pair[1]) {
            turns.push(pair[0] < pair[1]);
        }
        turns.dedup();
        turns.len()
    }
}

#[test]
fn the_share_is_halved_every_two_seconds_and_comes_back_by_tenths_after_calm() {
    let mut play = Play::new();
    play.play(10 * TICKS, false);
    play.play(5 * TICKS, true);
    play.play(30 * TICKS, false);
    let falls = [(10.0, 50), (12.0, 25), (14.0, 12)];
    let rises = [22, 32, 42, 52, 62, 72, 82, 92, 100].into_iter().zip(0..);
    let rises = rises.map(|(share, step)| (19.75 + f64::from(step), share));
    assert_eq!(play.changes(), falls.into_iter().chain(rises).collect::<Vec<_>>());
}

#[test]
fn the_share_falls_to_zero_while_it_lasts_and_the_event_is_repeated() {
    let mut play = Play::new();
    play.play(70 * TICKS, true);
    assert_eq!(play.throttle.percent(), 0);
    play.play(40 * TICKS, false);
    let throttled = |percent, lasting| Finding::BackgroundThrottled {
        percent,
        operation: LOAD,
        lasting: Duration::from_secs(lasting),
    };
    // The share rises until the end.
    let restored = Finding::BackgroundRestored { lasted: Duration::from_millis(83_500) };
    let expected = [(0.0, throttled(50, 0)), (30.0, throttled(0, 30)), (60.0, throttled(0, 60)), (83.75, restored)];
    assert_eq!(play.found, expected);
    assert_eq!((play.throttle.percent(), play.turns()), (ALL, 2));
}

#[test]
fn a_process_that_stood_still_takes_one_step_and_no_more() {
    let mut play = Play::new();
    play.play(10, true);
    play.at += Duration::from_secs(3_600);
    play.look(true);
    assert_eq!(play.throttle.percent(), 12);
    play.at += Duration::from_secs(3_600);
    play.look(false);
    assert_eq!(play.throttle.percent(), 22);
}

/// Background itself makes the others slow whenever it has more than 40% of its limit. The verdict comes two seconds
/// late.
#[test]
fn a_throttle_that_meets_its_own_effect_tries_ever_more_seldom() {
    let mut play = Play::new();
    for _ in 0..3_600 * TICKS {
        let late = play.shares.len().checked_sub(2 * TICKS).map_or(ALL, |look| play.shares[look]);
        play.look(late > 40);
    }
    let (turns, hour) = (play.turns(), play.shares.len());
    let last_half: Vec<_> = play.shares[hour / 2..].windows(2).filter(|pair| pair[0] > pair[1]).collect();
    assert!(turns <= 40, "{turns} turns");
    assert!(last_half.len() <= 20, "{last_half:?}");
}

#[test]
fn after_a_minute_without_a_relapse_the_calm_is_short_again() {
    let mut play = Play::new();
    play.play(TICKS, true);
    play.play(11 * TICKS, false);
    play.play(TICKS, true);
    assert_eq!(play.throttle.calm, 2 * CALM);
    play.play(100 * TICKS, false);
    play.play(TICKS, true);
    assert_eq!(play.throttle.calm, CALM);
}

proptest! {
    /// One inflation may flicker, if it never pauses for as long as the calm.
    #[test]
    fn one_inflation_lowers_the_share_and_raises_it_once(flickers in prop::collection::vec((1_usize..40, 0_usize..19), 1..60)) {
        let mut play = Play::new();
        for (slow, pause) in flickers {
            play.play(slow, true);
            play.play(pause, false);
        }
        play.play(60 * TICKS, false);
        prop_assert_eq!(play.turns(), 2);
        prop_assert_eq!(play.throttle.percent(), ALL);
    }

    /// Whatever happens: between two turns from rising to falling lies at least the calm, and each event has its end.
    #[test]
    fn whatever_happens_the_share_turns_seldom(runs in prop::collection::vec((1_usize..200, any::<bool>()), 1..100)) {
        let mut play = Play::new();
        for (looks, is_slow) in &runs {
            play.play(*looks, *is_slow);
        }
        let seconds = play.shares.len() / TICKS;
        prop_assert!(play.turns() <= 2 + seconds / 3, "{} turns in {} s", play.turns(), seconds);
        play.play(400 * TICKS, false);
        let ends = play.found.iter().filter(|(_, finding)| matches!(finding, Finding::BackgroundRestored { .. })).count();
        let last = play.found.last().map(|(_, finding)| matches!(finding, Finding::BackgroundRestored { .. }));
        prop_assert!(last.unwrap_or(true), "{:?}", play.found);
        prop_assert!(ends <= play.found.len() - ends, "{:?}", play.found);
        prop_assert_eq!(play.throttle.percent(), ALL);
    }

    #[test]
    fn the_same_verdicts_make_the_same_shares(verdicts in prop::collection::vec(any::<bool>(), 1..500)) {
        let run = || {
            let mut play = Play::new();
            verdicts.iter().for_each(|is_slow| play.look(*is_slow));
            (play.shares, play.found)
        };
        prop_assert_eq!(run(), run());
    }
}

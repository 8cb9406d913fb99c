//! When is a condition that lasts reported, when again, and when is it over?
//!
//! A condition is reported once it has held for some time, and again every 30 s while it holds. Its end is reported
//! when it has been absent for some time. Neither is reported twice within 30 s. A condition that comes back sooner is
//! reported after the 30 s, if it still holds.

use std::time::{Duration, Instant};

/// The shortest time between two equal reports.
pub(crate) const REPEAT: Duration = Duration::from_secs(30);

/// The result of one look at a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// The condition holds.
    Yes,
    /// The condition nearly holds: a lasting one goes on, and nothing is reported.
    Near,
    No,
}

/// A report that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DueReport {
    /// The condition holds, for the first time or still, and has held for this long.
    Lasts(Duration),
    /// The condition has ended, after it had held for this long.
    Ended(Duration),
}

#[derive(Debug)]
pub(crate) struct Lasting {
    held: Duration,
    calm: Duration,
    /// When the condition began to hold, fully or nearly.
    since: Option<Instant>,
    /// The last look that showed the condition, fully or nearly.
    seen: Option<Instant>,
    /// The first look since then that did not show it.
    calm_since: Option<Instant>,
    /// Whether the condition has been reported and its end has not.
    is_reported: bool,
    /// When a condition was last reported, this one or an earlier one.
    last_report: Option<Instant>,
    /// When an end was last reported.
    ended: Option<Instant>,
}

impl Lasting {
    /// `held` is how long the condition holds before it is reported, `calm` how long it is absent before it has ended.
    pub(crate) fn new(held: Duration, calm: Duration) -> Self {
        let (since, seen, calm_since, last_report, ended) = (None, None, None, None, None);
        Self { held, calm, since, seen, calm_since, is_reported: false, last_report, ended }
    }

    /// Returns whether the condition has been reported and its end has not.
    pub(crate) fn is_reported(&self) -> bool {
        self.is_reported
    }

    pub(crate) fn look(&mut self, now: Instant, sign: Sign) -> Option<DueReport> {
        if sign == Sign::No {
            return self.calm_down(now);
        }
        self.calm_since = None;
        self.seen = Some(now);
        let lasting = now.saturating_duration_since(*self.since.get_or_insert(now));
        let is_due = sign == Sign::Yes && lasting >= self.held && has_passed(now, self.last_report, REPEAT);
        is_due.then(|| {
            (self.is_reported, self.last_report) = (true, Some(now));
            DueReport::Lasts(lasting)
        })
    }

    fn calm_down(&mut self, now: Instant) -> Option<DueReport> {
        let calm_since = *self.calm_since.get_or_insert(now);
        let is_over = !self.is_reported || has_passed(now, Some(calm_since), self.calm);
        if !is_over || (self.is_reported && !has_passed(now, self.ended, REPEAT)) {
            return None;
        }
        let (since, seen) = (self.since.take()?, self.seen.unwrap_or(now));
        let was_reported = std::mem::take(&mut self.is_reported);
        was_reported.then(|| {
            self.ended = Some(now);
            DueReport::Ended(seen.saturating_duration_since(since))
        })
    }
}

fn has_passed(now: Instant, then: Option<Instant>, time: Duration) -> bool {
    then.is_none_or(|then| now.saturating_duration_since(then) >= time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: Duration = Duration::from_millis(250);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Returns what is reported and after how many seconds. Each sign lasts for the number of seconds beside it.
    fn play(lasting: &mut Lasting, signs: &[(Sign, u64)]) -> Vec<(u64, DueReport)> {
        let begun = Instant::now();
        let (mut at, mut all) = (Duration::ZERO, Vec::new());
        for (sign, length) in signs {
            for _ in 0..length * 4 {
                all.extend(lasting.look(begun + at, *sign).map(|reported| (at.as_secs(), reported)));
                at += TICK;
            }
        }
        all
    }

    #[test]
    fn a_condition_is_reported_once_it_has_held_and_again_every_30_s() {
        let reported =
            play(&mut Lasting::new(seconds(10), seconds(5)), &[(Sign::Yes, 9), (Sign::No, 1), (Sign::Yes, 71)]);
        let lasts = |at, lasting| (at, DueReport::Lasts(seconds(lasting)));
        assert_eq!(reported, [lasts(20, 10), lasts(50, 40), lasts(80, 70)]);
    }

    #[test]
    fn an_end_is_reported_once_the_condition_has_been_absent() {
        let mut lasting = Lasting::new(seconds(0), seconds(5));
        let reported = play(&mut lasting, &[(Sign::Yes, 8), (Sign::No, 4), (Sign::Yes, 2), (Sign::No, 20)]);
        let lasted = seconds(14) - TICK;
        assert_eq!(reported, [(0, DueReport::Lasts(seconds(0))), (19, DueReport::Ended(lasted))]);
        assert!(!lasting.is_reported());
    }

    #[test]
    fn a_near_sign_keeps_the_condition_and_reports_nothing() {
        let signs = [(Sign::Near, 20), (Sign::Yes, 1), (Sign::Near, 60), (Sign::Yes, 1)];
        let reported = play(&mut Lasting::new(seconds(10), seconds(5)), &signs);
        assert_eq!(reported, [(20, DueReport::Lasts(seconds(20))), (81, DueReport::Lasts(seconds(81)))]);
    }

    #[test]
    fn a_condition_that_comes_back_too_soon_is_reported_later() {
        let mut lasting = Lasting::new(seconds(0), seconds(2));
        let reported = play(&mut lasting, &[(Sign::Yes, 1), (Sign::No, 9), (Sign::Yes, 40)]);
        let at: Vec<u64> = reported.iter().map(|(at, _)| *at).collect();
        assert_eq!(at, [0, 3, 30]);
        assert_eq!(reported[2].1, DueReport::Lasts(seconds(20)));
    }

    #[test]
    fn a_condition_that_was_not_reported_has_no_end() {
        let reported = play(&mut Lasting::new(seconds(10), seconds(2)), &[(Sign::Yes, 9), (Sign::No, 30)]);
        assert_eq!(reported, []);
    }

    proptest! {
        #[test]
        fn nothing_is_reported_twice_within_30_s_and_ends_follow_beginnings(
            signs in proptest::collection::vec((0..3u8, 1..40u64), 1..40), held in 0..15u64, calm in 0..15u64,
        ) {
            let signs: Vec<_> = signs
                .into_iter()
                .map(|(sign, length)| ([Sign::Yes, Sign::Near, Sign::No][usize::from(sign)], length))
                .collect();
            let reported = play(&mut Lasting::new(seconds(held), seconds(calm)), &signs);
            let is_end = |reported: &DueReport| matches!(reported, DueReport::Ended(_));
            for ends in [false, true] {
                let at: Vec<u64> = reported.iter().filter(|(_, reported)| is_end(reported) == ends).map(|(at, _)| *at).collect();
                prop_assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= 29), "{reported:?}");
            }
            prop_assert!(reported.first().is_none_or(|(_, reported)| !is_end(reported)));
            prop_assert!(reported.windows(2).all(|pair| !(is_end(&pair[0].1) && is_end(&pair[1].1))), "{reported:?}");
        }
    }
}

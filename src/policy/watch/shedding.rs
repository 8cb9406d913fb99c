//! Are callers refused, and how many?
//!
//! The finding is made a second after the first refusal, because the counts of a second say more than one refusal. It
//! ends when no caller has been refused for 5 s.

use std::time::{Duration, Instant};

use super::finding::Finding;
use super::lasting::{DueReport, Lasting, Sign};
use crate::policy::refusals::RefusalCounts;

const HELD: Duration = Duration::from_secs(1);
const CALM: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Shedding {
    lasting: Lasting,
    /// The counts when the shedding began.
    before: RefusalCounts,
    /// The counts at the last look.
    last: RefusalCounts,
    /// When the detector last saw a refusal.
    refused: Option<Instant>,
}

impl Shedding {
    pub(super) fn new() -> Self {
        // A refusal is a sign for half of `CALM`. Then the other half has to pass without a sign.
        let lasting = Lasting::new(HELD, CALM / 2);
        Self { lasting, before: RefusalCounts::default(), last: RefusalCounts::default(), refused: None }
    }

    /// `counted` counts from the start of the pool.
    pub(super) fn tick(&mut self, now: Instant, counted: RefusalCounts) -> Option<Finding> {
        let before = std::mem::replace(&mut self.last, counted);
        if counted.total() > before.total() {
            if self.refused.is_none() {
                self.before = before;
            }
            self.refused = Some(now);
        }
        let is_recent = self.refused.is_some_and(|refused| now.saturating_duration_since(refused) < CALM / 2);
        let due = self.lasting.look(now, if is_recent { Sign::Yes } else { Sign::No });
        if !is_recent && !self.lasting.is_reported() {
            self.refused = None;
        }
        let refused = counted - self.before;
        due.map(|due| match due {
            DueReport::Lasts(lasting) => Finding::Shedding { refused, lasting },
            DueReport::Ended(lasted) => Finding::SheddingEnded { refused, lasted },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::ShedReason;

    /// Returns what is reported and when. `seconds` has the number of refusals in each second.
    fn play(seconds: impl IntoIterator<Item = u64>) -> Vec<(f64, Finding)> {
        let begun = Instant::now();
        let (mut shedding, mut counted, mut all) = (Shedding::new(), RefusalCounts::default(), Vec::new());
        for (second, refused) in seconds.into_iter().enumerate() {
            for tick in 0..4 {
                counted[ShedReason::Hopeless] += if tick == 0 { refused } else { 0 };
                let at = second as f64 + f64::from(tick) / 4.0;
                let told = shedding.tick(begun + Duration::from_secs_f64(at), counted);
                all.extend(told.map(|told| (at, told)));
            }
        }
        all
    }

    fn counts(told: &[(f64, Finding)]) -> Vec<(u64, u64)> {
        let count = |(at, finding): &(f64, Finding)| match finding {
            Finding::Shedding { refused, .. } | Finding::SheddingEnded { refused, .. } => (*at as u64, refused.total()),
            _ => panic!("{finding:?}"),
        };
        told.iter().map(count).collect()
    }

    #[test]
    fn shedding_is_reported_with_counts_is_repeated_and_ends() {
        let told = play((0..100).map(|second| if (10..=50).contains(&second) { 3 } else { 0 }));
        assert_eq!(counts(&told), [(11, 6), (41, 96), (55, 123)]);
        assert!(matches!(told[2].1, Finding::SheddingEnded { lasted, .. } if lasted.as_secs() == 42), "{told:?}");
    }

    #[test]
    fn a_single_refusal_is_reported_too() {
        let told = play((0..20).map(|second| u64::from(second == 5)));
        assert_eq!(counts(&told), [(6, 1), (10, 1)]);
    }

    /// They met a limit that the owner set, and `try_get` would not have waited.
    #[test]
    fn refusals_by_a_rate_or_of_callers_that_do_not_wait_are_no_shedding() {
        let (begun, mut shedding, mut counted) = (Instant::now(), Shedding::new(), RefusalCounts::default());
        for tick in 0..400 {
            counted[ShedReason::RateLimited] += 3;
            counted[ShedReason::NoneIdle] += 1;
            assert_eq!(shedding.tick(begun + tick * Duration::from_millis(250), counted), None);
        }
        assert_eq!(counted.total(), 0);
    }

    #[test]
    fn each_shedding_counts_anew() {
        let told = play((0..120).map(|second| u64::from(second == 5 || second == 60) * 7));
        assert_eq!(counts(&told), [(6, 7), (10, 7), (61, 7), (65, 7)]);
    }

    #[test]
    fn rare_but_regular_refusals_are_reported_every_30_s_at_most() {
        let told = play((0..600).map(|second| u64::from(second % 7 == 0)));
        let begins: Vec<f64> =
            told.iter().filter(|told| matches!(told.1, Finding::Shedding { .. })).map(|t| t.0).collect();
        assert!(begins.len() >= 10 && begins.windows(2).all(|pair| pair[1] - pair[0] >= 30.0), "{begins:?}");
    }
}

//! Are callers refused, and how many?
//!
//! Told a second after the first refusal: by then the counts say something. Over when nobody has been refused for 5 s.

use std::time::{Duration, Instant};

use super::finding::Finding;
use super::lasting::{Lasting, Sign, Told};
use crate::policy::refusals::Refused;

/// The counts of a second say more than the first refusal.
const HELD: Duration = Duration::from_secs(1);
const CALM: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Shedding {
    lasting: Lasting,
    /// As counted when it began, and at the last look.
    before: Refused,
    last: Refused,
    /// When somebody was last seen to have been refused.
    refused: Option<Instant>,
}

impl Shedding {
    pub(super) fn new() -> Self {
        // A refusal is seen for half of that time, and then it has to be calm for the other.
        let lasting = Lasting::new(HELD, CALM / 2);
        Self { lasting, before: Refused::default(), last: Refused::default(), refused: None }
    }

    /// `counted`: since the pool began.
    pub(super) fn tick(&mut self, now: Instant, counted: Refused) -> Option<Finding> {
        let before = std::mem::replace(&mut self.last, counted);
        if counted.total() > before.total() {
            if self.refused.is_none() {
                self.before = before;
            }
            self.refused = Some(now);
        }
        let is_recent = self.refused.is_some_and(|refused| now.saturating_duration_since(refused) < CALM / 2);
        let told = self.lasting.look(now, if is_recent { Sign::Yes } else { Sign::No });
        if !is_recent && !self.lasting.is_told() {
            self.refused = None;
        }
        let refused = counted - self.before;
        told.map(|told| match told {
            Told::Lasts(lasting) => Finding::Shedding { refused, lasting },
            Told::Ended(lasted) => Finding::SheddingEnded { refused, lasted },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::ShedReason;

    /// What is told, and when, if so many are refused in each of these seconds.
    fn play(seconds: impl IntoIterator<Item = u64>) -> Vec<(f64, Finding)> {
        let begun = Instant::now();
        let (mut shedding, mut counted, mut all) = (Shedding::new(), Refused::default(), Vec::new());
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
    fn it_begins_with_counts_is_said_again_and_ends() {
        let told = play((0..100).map(|second| if (10..=50).contains(&second) { 3 } else { 0 }));
        assert_eq!(counts(&told), [(11, 6), (41, 96), (55, 123)]);
        assert!(matches!(told[2].1, Finding::SheddingEnded { lasted, .. } if lasted.as_secs() == 42), "{told:?}");
    }

    #[test]
    fn a_lone_refusal_is_told_too() {
        let told = play((0..20).map(|second| u64::from(second == 5)));
        assert_eq!(counts(&told), [(6, 1), (10, 1)]);
    }

    #[test]
    fn each_time_counts_anew() {
        let told = play((0..120).map(|second| u64::from(second == 5 || second == 60) * 7));
        assert_eq!(counts(&told), [(6, 7), (10, 7), (61, 7), (65, 7)]);
    }

    #[test]
    fn what_is_refused_all_the_time_but_seldom_is_told_every_30_s_at_most() {
        let told = play((0..600).map(|second| u64::from(second % 7 == 0)));
        let begins: Vec<f64> =
            told.iter().filter(|told| matches!(told.1, Finding::Shedding { .. })).map(|t| t.0).collect();
        assert!(begins.len() >= 10 && begins.windows(2).all(|pair| pair[1] - pair[0] >= 30.0), "{begins:?}");
    }
}

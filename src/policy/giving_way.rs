//! A change of the schema gives way to those that queue behind it: when it looks at its queue, when it ends itself, and
//! when it tries again.
//!
//! A statement that waits for a lock holds up all who come after it and want the same table, even for a read. So the
//! change ends itself once somebody has waited behind it for too long. It tries again after a pause, and never without
//! its limits: a last attempt that waits as long as it takes would be the outage that the attempts before avoided.

use std::time::{Duration, Instant};

use super::Deadline;

/// How often the queue is looked at while nobody waits for long.
const PACE: Duration = Duration::from_millis(250);
/// A look never follows the one before sooner than this: each takes the locks of the server's lock table.
const SHORTEST_PACE: Duration = Duration::from_millis(10);

/// The sessions that wait behind a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LockQueue {
    pub(crate) sessions: u32,
    /// How long the first of them has waited.
    pub(crate) longest: Duration,
}

/// What follows a look at the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextStep {
    LookIn(Duration),
    GiveWay(LockQueue),
}

impl LockQueue {
    /// Decides after a look. The transaction has `lasted` so long, and nobody may wait longer than `limit` because of
    /// it.
    pub(crate) fn next_step(self, lasted: Duration, limit: Duration) -> NextStep {
        // What a session waited for before is not this transaction's fault.
        let longest = if self.sessions == 0 { Duration::ZERO } else { self.longest.min(lasted) };
        if self.sessions > 0 && longest >= limit {
            return NextStep::GiveWay(Self { longest, ..self });
        }
        NextStep::LookIn(PACE.min(limit - longest).max(SHORTEST_PACE))
    }
}

/// How often a change is tried, and the pauses between.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tries {
    pub(crate) attempts: u32,
    /// The longest pause after the first attempt. Each is twice as long as the one before.
    pub(crate) first_pause: Duration,
    pub(crate) longest_pause: Duration,
}

impl Tries {
    /// Returns the pause after `made` attempts, or `None` if there is no further attempt, or no time for one. Jitter
    /// takes at most half of a pause away. So the pauses of all attempts together outlast a report that takes a minute.
    /// `random01` is random, from 0 to 1.
    pub(crate) fn pause(&self, made: u32, random01: f64, now: Instant, deadline: Option<Deadline>) -> Option<Duration> {
        if made >= self.attempts {
            return None;
        }
        let doubled = 2_u32.saturating_pow(made.saturating_sub(1));
        let longest = self.first_pause.saturating_mul(doubled).min(self.longest_pause);
        let share = 0.5 + 0.5 * random01.clamp(0.0, 1.0);
        let pause = Duration::try_from_secs_f64(longest.as_secs_f64() * share).unwrap_or(longest);
        let has_time = deadline.is_none_or(|deadline| deadline.left(now) > pause);
        has_time.then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);
    const LIMIT: Duration = Duration::from_millis(500);
    const LONG: Duration = Duration::from_secs(60);

    fn queue(sessions: u32, longest: u32) -> LockQueue {
        LockQueue { sessions, longest: longest * MILLI }
    }

    #[test]
    fn it_gives_way_once_somebody_has_waited_for_the_limit() {
        assert_eq!(queue(0, 0).next_step(LONG, LIMIT), NextStep::LookIn(PACE));
        assert_eq!(queue(3, 100).next_step(LONG, LIMIT), NextStep::LookIn(PACE));
        assert_eq!(queue(3, 499).next_step(LONG, LIMIT), NextStep::LookIn(SHORTEST_PACE));
        assert_eq!(queue(3, 500).next_step(LONG, LIMIT), NextStep::GiveWay(queue(3, 500)));
    }

    #[test]
    fn the_next_look_comes_when_the_first_has_waited_for_the_limit() {
        assert_eq!(queue(1, 300).next_step(LONG, LIMIT), NextStep::LookIn(200 * MILLI));
        assert_eq!(queue(0, 0).next_step(LONG, 100 * MILLI), NextStep::LookIn(100 * MILLI));
    }

    #[test]
    fn a_wait_that_began_before_the_transaction_counts_from_its_begin() {
        assert_eq!(queue(1, 9_000).next_step(300 * MILLI, LIMIT), NextStep::LookIn(200 * MILLI));
        assert_eq!(queue(1, 9_000).next_step(LIMIT, LIMIT), NextStep::GiveWay(queue(1, 500)));
    }

    fn tries(attempts: u32) -> Tries {
        Tries { attempts, first_pause: Duration::from_secs(2), longest_pause: Duration::from_secs(20) }
    }

    fn pauses(tries: Tries, random01: f64) -> Vec<f64> {
        let pause = |made| tries.pause(made, random01, Instant::now(), None);
        (1..).map_while(pause).map(|pause| pause.as_secs_f64()).collect()
    }

    #[test]
    fn the_pauses_double_up_to_the_longest() {
        assert_eq!(pauses(tries(10), 1.0), [2.0, 4.0, 8.0, 16.0, 20.0, 20.0, 20.0, 20.0, 20.0]);
        assert_eq!(pauses(tries(4), 0.0), [1.0, 2.0, 4.0]);
        assert!(pauses(tries(1), 1.0).is_empty());
        let endless = Tries { attempts: 3, first_pause: Duration::MAX, longest_pause: Duration::MAX };
        assert_eq!(pauses(endless, 1.0).len(), 2);
    }

    #[test]
    fn all_pauses_together_outlast_a_report_of_a_minute() {
        assert!(pauses(tries(10), 0.0).iter().sum::<f64>() > 60.0);
    }

    #[test]
    fn no_pause_outlasts_the_deadline() {
        let now = Instant::now();
        let in_one_second = Some(Deadline::after(now, Duration::from_secs(1)));
        assert_eq!(tries(10).pause(1, 1.0, now, in_one_second), None);
        assert_eq!(tries(10).pause(1, 0.0, now, Some(Deadline::after(now, LONG))), Some(Duration::from_secs(1)));
    }

    proptest! {
        /// Looks at any times, and a session that begins to wait at any time: nobody waits longer than the limit and
        /// one shortest pace behind a transaction that looks when it is told to.
        #[test]
        fn nobody_waits_much_longer_than_the_limit(
            began in 0_u64..2_000,
            limit in 20_u64..2_000,
        ) {
            let (began, limit) = (Duration::from_millis(began), Duration::from_millis(limit));
            let mut at = Duration::ZERO;
            let waited = loop {
                let waited = at.saturating_sub(began);
                let sessions = u32::from(at >= began);
                match (LockQueue { sessions, longest: waited }).next_step(at, limit) {
                    NextStep::GiveWay(queue) => break queue.longest,
                    NextStep::LookIn(pause) => at += pause,
                }
            };
            prop_assert!(waited >= limit && waited <= limit + SHORTEST_PACE, "{waited:?}");
        }
    }
}

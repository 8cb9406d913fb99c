//! The upper bound of a replica's lag, by the clock of this process, without a clock or a privilege of the server.
//!
//! The scout notes an instant, and then asks the primary for the place in the log at which it inserts next. Everything
//! that was committed before that instant is before that place. A replica whose replay has reached the place shows all
//! of it. So the replica's lag is at most the time since the newest such instant.
//!
//! The bound holds on an idle primary, whose log does not grow. It grows by itself while the primary is silent.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Lsn;

/// The number of samples that are kept. A replica that is behind all of them has no known lag.
const KEPT: usize = 120;
/// Samples that are closer together replace one another, so that the kept ones span two minutes.
const APART: Duration = Duration::from_secs(1);

/// No server writes more bytes of log than this in a second.
const FASTEST: u64 = 1 << 30;

/// Whose log it is. Places in the logs of two histories must not be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct History {
    /// The system identifier; 0 if the server does not show it.
    pub(crate) system: u64,
    pub(crate) timeline: u32,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    asked: Instant,
    /// Rounded, so that the replay of an idle primary's log reaches it.
    inserted: Lsn,
}

/// What the primary has answered.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    history: Option<History>,
    /// In order of both time and place.
    samples: VecDeque<Sample>,
}

impl Ring {
    /// Records that a primary of this history, asked at this instant, was about to insert at this place.
    ///
    /// Another history begins anew. So does a place that has moved back: the primary has lost the end of its log in a
    /// crash, or another server answers.
    pub(crate) fn record(&mut self, history: History, asked: Instant, inserted: Lsn) {
        let inserted = inserted.rounded();
        let moved_back = self.samples.back().is_some_and(|newest| newest.inserted > inserted);
        if self.history != Some(history) || moved_back {
            self.history = Some(history);
            self.samples.clear();
        }
        if self.samples.back().is_some_and(|newest| newest.asked >= asked) {
            return;
        }
        let count = self.samples.len();
        if count >= 2 && self.samples[count - 1].asked.duration_since(self.samples[count - 2].asked) < APART {
            self.samples.pop_back();
        }
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { asked, inserted });
    }

    pub(crate) fn history(&self) -> Option<History> {
        self.history
    }

    /// Returns how far back the samples reach.
    pub(crate) fn age(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.samples.front()?.asked))
    }

    /// Returns whether the primary has not been asked twice since this instant. Until then no replica can have been
    /// seen to have what was committed before it: the replicas are asked after the primary.
    pub(crate) fn is_unproven(&self, instant: Instant) -> bool {
        self.samples.iter().rev().nth(1).is_none_or(|sample| sample.asked < instant)
    }

    /// Returns whether a replica of this history that has replayed this much has everything that came before the
    /// history. The first sample lies behind the switch of the timeline.
    pub(crate) fn has_begun(&self, replayed: Lsn) -> bool {
        self.samples.front().is_some_and(|first| first.inserted <= replayed)
    }

    /// Returns the latest known instant for which this holds: a replica of this history that has replayed this much
    /// shows everything committed before it.
    pub(crate) fn shown_since(&self, replayed: Lsn) -> Option<Instant> {
        let reached = self.samples.partition_point(|sample| sample.inserted <= replayed);
        Some(self.samples[reached.checked_sub(1)?].asked)
    }

    /// Returns whether the primary cannot have written as far as this by now, however busy it is.
    pub(crate) fn is_out_of_reach(&self, now: Instant, lsn: Lsn) -> bool {
        let Some(newest) = self.samples.back() else { return false };
        // One second more for the look, and one for a switch to another segment of the log.
        let seconds = now.saturating_duration_since(newest.asked).as_secs() + 2;
        lsn.0.saturating_sub(newest.inserted.0) > FASTEST.saturating_mul(seconds)
    }

    /// When the primary was last asked.
    pub(crate) fn asked(&self) -> Option<Instant> {
        Some(self.samples.back()?.asked)
    }

    /// Returns how far behind the newest sample a replica is that has replayed this much, also while the primary is
    /// silent. If it is behind all samples, it may be further behind than this.
    pub(crate) fn behind(&self, replayed: Lsn) -> Duration {
        let (Some(oldest), Some(newest)) = (self.samples.front(), self.samples.back()) else { return Duration::ZERO };
        newest.asked.saturating_duration_since(self.shown_since(replayed).unwrap_or(oldest.asked))
    }

    /// Returns the upper bound of the lag of such a replica. `None` if nothing is known.
    pub(crate) fn lag(&self, now: Instant, replayed: Lsn) -> Option<Duration> {
        Some(now.saturating_duration_since(self.shown_since(replayed)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HISTORY: History = History { system: 7, timeline: 1 };

    #[test]
    fn the_bound_is_the_newest_instant_that_the_replay_has_reached() {
        let (mut ring, begun) = (Ring::default(), Instant::now());
        for second in 0..10 {
            ring.record(HISTORY, begun + SECOND * second, Lsn(u64::from(second) * 100));
        }
        let now = begun + SECOND * 9 + SECOND / 2;
        assert_eq!(ring.lag(now, Lsn(900)), Some(SECOND / 2));
        assert_eq!(ring.lag(now, Lsn(899)), Some(SECOND * 3 / 2));
        assert_eq!(ring.lag(now, Lsn(u64::MAX)), Some(SECOND / 2));
        assert_eq!(
            ring.lag(now + SECOND * 60, Lsn(900)),
            Some(SECOND * 121 / 2),
            "it grows while the primary is silent"
        );
    }

    #[test]
    fn an_idle_primary_is_no_lag() {
        let (mut ring, begun) = (Ring::default(), Instant::now());
        for second in 0..600 {
            ring.record(HISTORY, begun + SECOND * second, Lsn(8_192 * 5 + 24));
        }
        assert_eq!(ring.lag(begun + SECOND * 600, Lsn(8_192 * 5)), Some(SECOND));
    }

    #[test]
    fn what_is_older_than_all_samples_is_unknown() {
        let (mut ring, begun) = (Ring::default(), Instant::now());
        assert_eq!(ring.lag(begun, Lsn(u64::MAX)), None);
        for second in 1..=200 {
            ring.record(HISTORY, begun + SECOND * second, Lsn(u64::from(second)));
        }
        assert_eq!(ring.samples.len(), KEPT);
        assert_eq!(ring.lag(begun + SECOND * 200, Lsn(80)), None);
        assert_eq!(ring.lag(begun + SECOND * 200, Lsn(81)), Some(SECOND * 119));
    }

    #[test]
    fn an_instant_is_unproven_until_the_primary_was_asked_twice() {
        let (mut ring, begun) = (Ring::default(), Instant::now());
        assert!(ring.is_unproven(begun));
        ring.record(HISTORY, begun + SECOND, Lsn(1));
        assert!(ring.is_unproven(begun));
        ring.record(HISTORY, begun + SECOND * 2, Lsn(2));
        assert!(!ring.is_unproven(begun + SECOND));
        assert!(ring.is_unproven(begun + SECOND * 3 / 2));
        ring.record(History { timeline: 2, ..HISTORY }, begun + SECOND * 3, Lsn(3));
        assert!(ring.is_unproven(begun), "of the new history there is one look");
        assert!(!ring.has_begun(Lsn(2)) && ring.has_begun(Lsn(3)));
    }

    #[test]
    fn what_no_server_can_have_written_is_out_of_reach() {
        let (mut ring, begun) = (Ring::default(), Instant::now());
        assert!(!ring.is_out_of_reach(begun, Lsn(u64::MAX)), "nothing is known");
        ring.record(HISTORY, begun, Lsn(500));
        assert!(!ring.is_out_of_reach(begun, Lsn(1 << 31)) && ring.is_out_of_reach(begun, Lsn(3 << 30)));
        assert!(!ring.is_out_of_reach(begun + SECOND * 60, Lsn(3 << 30)), "the primary was not asked for a minute");
        assert!(ring.is_out_of_reach(begun + SECOND * 60, Lsn(u64::MAX)));
    }

    #[test]
    fn looks_that_follow_quickly_do_not_shorten_the_memory() {
        let (mut ring, begun) = (Ring::default(), Instant::now());
        for tick in 0..1_000_u32 {
            ring.record(HISTORY, begun + SECOND * tick / 10, Lsn(u64::from(tick)));
        }
        assert!(ring.lag(begun + SECOND * 100, Lsn(20)).is_some_and(|lag| lag < SECOND * 100));
        assert_eq!(ring.lag(begun + SECOND * 100, Lsn(999)), Some(SECOND / 10));
    }

    #[test]
    fn another_history_and_a_place_that_moves_back_begin_anew() {
        let (mut ring, begun) = (Ring::default(), Instant::now());
        ring.record(HISTORY, begun, Lsn(500));
        ring.record(History { timeline: 2, ..HISTORY }, begun + SECOND, Lsn(900));
        assert_eq!(ring.shown_since(Lsn(600)), None, "600 may be on the old timeline");
        ring.record(History { timeline: 2, ..HISTORY }, begun + SECOND * 2, Lsn(800));
        assert_eq!(ring.shown_since(Lsn(899)), Some(begun + SECOND * 2));
        ring.record(History { timeline: 2, ..HISTORY }, begun + SECOND * 3, Lsn(1_000));
        ring.record(History { timeline: 2, ..HISTORY }, begun + SECOND * 4, Lsn(850));
        assert_eq!(ring.shown_since(Lsn(900)), Some(begun + SECOND * 4));
        assert_eq!(ring.shown_since(Lsn(849)), None, "the places of before are out of order");
    }

    /// One step of a world of a primary and a replica.
    #[derive(Debug, Clone)]
    enum Step {
        /// Time passes.
        Wait(u64),
        /// The primary commits a transaction of this many bytes, and streams a part of the log.
        Commit(u64),
        /// The scout asks the primary; the answer says what was so this many milliseconds after the question.
        Ask(u64),
        /// The replica replays some of what it may.
        Replay(u64),
        /// The replica restarts and replays again from an earlier place.
        RestartReplica(u64),
        /// The primary crashes and loses this much of the end of its log, which no replica has.
        Crash(u64),
        /// The replica is behind, another server is promoted at this distance before the end of the log.
        Promote(u64),
        /// A read on the replica.
        Read,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u64..3_000).prop_map(Step::Wait),
            6 => (24_u64..20_000).prop_map(Step::Commit),
            5 => (0_u64..400).prop_map(Step::Ask),
            6 => (0_u64..60_000).prop_map(Step::Replay),
            1 => (0_u64..60_000).prop_map(Step::RestartReplica),
            1 => (0_u64..30_000).prop_map(Step::Crash),
            1 => (0_u64..30_000).prop_map(Step::Promote),
            6 => Just(Step::Read),
        ]
    }

    /// The truth, which the ring does not see.
    struct World {
        begun: Instant,
        now: Duration,
        timeline: u32,
        end: u64,
        replayed: u64,
        /// The timeline of the replica.
        follows: u32,
        /// When each commit that survives was acknowledged, and where it ends.
        commits: Vec<(Duration, u64)>,
        ring: Ring,
    }

    impl World {
        fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
            match step {
                Step::Wait(millis) => self.now += Duration::from_millis(millis),
                Step::Commit(bytes) => {
                    self.end += bytes;
                    self.commits.push((self.now, self.end));
                }
                Step::Ask(millis) => {
                    let asked = self.begun + self.now;
                    self.now += Duration::from_millis(millis);
                    let history = History { system: 7, timeline: self.timeline };
                    self.ring.record(history, asked, Lsn(self.end));
                }
                Step::Replay(bytes) => {
                    self.follows = self.timeline;
                    let reach = (self.replayed + bytes).min(self.end);
                    let ends = self.commits.iter().map(|(_, end)| *end).filter(|end| *end <= reach);
                    self.replayed = ends.max().unwrap_or(0).max(self.replayed);
                }
                Step::RestartReplica(bytes) => {
                    let reach = self.replayed.saturating_sub(bytes);
                    let ends = self.commits.iter().map(|(_, end)| *end).filter(|end| *end <= reach);
                    self.replayed = ends.max().unwrap_or(0);
                }
                Step::Crash(bytes) => self.lose(bytes),
                Step::Promote(bytes) => {
                    self.lose(bytes);
                    self.timeline += 1;
                }
                Step::Read => self.read()?,
            }
            Ok(())
        }

        /// The end of the log is lost, but nothing that the replica has.
        fn lose(&mut self, bytes: u64) {
            self.end = self.end.saturating_sub(bytes).max(self.replayed);
            self.commits.retain(|(_, end)| *end <= self.end);
        }

        /// Nothing that was committed before the bound, and that survives, may be missing.
        fn read(&self) -> Result<(), TestCaseError> {
            if Some(self.follows) != self.ring.history().map(|history| history.timeline) {
                return Ok(()); // such a replica is not compared
            }
            let Some(lag) = self.ring.lag(self.begun + self.now, Lsn(self.replayed)) else { return Ok(()) };
            let shown_since = self.now.saturating_sub(lag);
            let missing = self.commits.iter().find(|(at, end)| *at < shown_since && *end > self.replayed);
            prop_assert!(missing.is_none(), "{missing:?} is missing at {:?}, bound {lag:?}", self.now);
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn no_read_is_older_than_its_bound(steps in prop::collection::vec(step(), 1..200)) {
            let mut world = World {
                begun: Instant::now(),
                now: Duration::ZERO,
                timeline: 1,
                end: 0x300_0000,
                replayed: 0x300_0000,
                follows: 1,
                commits: Vec::new(),
                ring: Ring::default(),
            };
            for step in steps {
                world.take(step)?;
            }
        }
    }
}

//! Which server takes writes?
//!
//! Roles are asked, never configured: the primary is the server that is not in recovery, on the highest timeline that
//! was ever seen. A server on a lower timeline is a primary of the past, and nothing is written to it. Two primaries on
//! one timeline take no writes, because nobody knows which of them will survive. One server under two names is one.

use std::time::{Duration, Instant};

/// A server that has not answered for this long is no longer counted on.
pub(crate) const SUSPECT: Duration = Duration::from_secs(3);

/// Once all servers of a system have been silent for this long, a primary of another system takes their place.
const GONE: Duration = Duration::from_secs(120);

/// What a server has answered about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// When it has answered.
    pub(crate) at: Instant,
    pub(crate) is_in_recovery: bool,
    /// `None` if the server does not show it, as a replica often does not after a promotion of another one.
    pub(crate) timeline: Option<u32>,
    /// The system identifier; `None` if the server does not show it.
    pub(crate) system: Option<u64>,
    /// When the server was started, in microseconds, by its own clock. Two servers never share it.
    pub(crate) started: i64,
}

impl Sighting {
    fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= SUSPECT
    }

    fn is_same_server(&self, other: &Self) -> bool {
        self.started == other.started && self.system == other.system
    }
}

/// Which server takes writes. Servers are numbered in the order in which they were given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No server is known to take writes.
    #[default]
    NoPrimary,
    Primary {
        host: usize,
        timeline: u32,
    },
    TwoPrimaries(usize, usize),
}

#[derive(Debug, Default)]
pub(crate) struct Topology {
    /// The system identifier that the fence belongs to.
    system: Option<u64>,
    /// The highest timeline ever seen of this system.
    highest: u32,
    verdict: Verdict,
}

impl Topology {
    /// Decides by the latest answers of all servers. `None`: it has never answered.
    pub(crate) fn decide(&mut self, now: Instant, sightings: &[Option<Sighting>]) -> Verdict {
        let known = || sightings.iter().enumerate().filter_map(|(host, sighting)| Some((host, (*sighting)?)));
        self.adopt_another_system(now, known().map(|(_, sighting)| sighting));
        for (_, sighting) in known() {
            if self.is_ours(&sighting) {
                self.system = self.system.or(sighting.system);
                self.highest = self.highest.max(sighting.timeline.unwrap_or(0));
            }
        }
        let is_candidate = |sighting: &Sighting| {
            !sighting.is_in_recovery && (!self.is_ours(sighting) || sighting.timeline.unwrap_or(0) >= self.highest)
        };
        let candidates: Vec<_> = known().filter(|(_, sighting)| is_candidate(sighting)).collect();
        let is_live_and_ours = |sighting: &Sighting| !sighting.is_silent(now) && self.is_ours(sighting);
        // A server that is silent may only have lost its scout. It remains the primary until another one takes over.
        let is_any_live = candidates.iter().any(|(_, sighting)| is_live_and_ours(sighting));
        let mut counted = candidates.into_iter().filter(|(_, sighting)| {
            // A primary of another system takes over from none of ours: it may be an empty database on a new disk.
            if is_any_live { !sighting.is_silent(now) } else { self.is_ours(sighting) }
        });
        self.verdict = match counted.next() {
            None => Verdict::NoPrimary,
            Some(first) => match counted.clone().find(|(_, other)| !other.is_same_server(&first.1)) {
                Some((other, _)) => Verdict::TwoPrimaries(first.0, other),
                None => self.primary(first, counted),
            },
        };
        self.verdict
    }

    /// One server, perhaps under several names. The name of before is kept.
    fn primary(&self, first: (usize, Sighting), others: impl Iterator<Item = (usize, Sighting)>) -> Verdict {
        let mut names = std::iter::once(first).chain(others);
        let before = match self.verdict {
            Verdict::Primary { host, .. } => Some(host),
            _ => None,
        };
        let (host, sighting) = names.find(|(host, _)| Some(*host) == before).unwrap_or(first);
        Verdict::Primary { host, timeline: sighting.timeline.unwrap_or(0) }
    }

    /// Returns whether the server belongs to the system that the fence belongs to, as far as is known.
    pub(crate) fn is_ours(&self, sighting: &Sighting) -> bool {
        self.system.is_none() || sighting.system.is_none() || self.system == sighting.system
    }

    /// If no server of the former system has answered for long, and a primary of another one does, then the database
    /// was made anew. Its timelines begin at 1.
    fn adopt_another_system(&mut self, now: Instant, mut known: impl Iterator<Item = Sighting> + Clone) {
        let is_gone = |sighting: &Sighting| now.saturating_duration_since(sighting.at) >= GONE;
        if known.clone().any(|sighting| self.is_ours(&sighting) && !is_gone(&sighting)) {
            return;
        }
        if let Some(new) = known.find(|sighting| !sighting.is_silent(now) && !sighting.is_in_recovery) {
            *self = Self { system: new.system, ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct World {
        topology: Topology,
        begun: Instant,
        sightings: Vec<Option<Sighting>>,
    }

    impl World {
        fn of(hosts: usize) -> Self {
            Self { topology: Topology::default(), begun: Instant::now(), sightings: vec![None; hosts] }
        }

        /// A host answers. Each is a server of its own.
        fn see(&mut self, second: u32, host: usize, is_in_recovery: bool, timeline: u32) -> Verdict {
            let (at, started) = (self.begun + SECOND * second, host as i64);
            self.sightings[host] =
                Some(Sighting { at, is_in_recovery, timeline: Some(timeline), system: Some(7), started });
            self.topology.decide(at, &self.sightings)
        }
    }

    fn primary(host: usize, timeline: u32) -> Verdict {
        Verdict::Primary { host, timeline }
    }

    #[test]
    fn the_primary_is_the_one_that_is_not_in_recovery() {
        let mut world = World::of(3);
        assert_eq!(world.see(0, 1, true, 1), Verdict::NoPrimary);
        assert_eq!(world.see(0, 2, false, 1), primary(2, 1));
        assert_eq!(world.see(0, 0, true, 1), primary(2, 1));
    }

    #[test]
    fn a_promoted_server_takes_over_at_once_and_the_old_primary_never_comes_back_on_its_timeline() {
        let mut world = World::of(2);
        world.see(0, 0, false, 1);
        world.see(0, 1, true, 1);
        assert_eq!(world.see(1, 1, false, 2), primary(1, 2), "host 0 has not been found silent yet");
        assert_eq!(world.see(2, 0, false, 1), primary(1, 2));
        for second in 3..20 {
            assert_eq!(world.see(second, 0, false, 1), primary(1, 2));
        }
        assert_eq!(world.see(20, 1, true, 3), Verdict::NoPrimary, "the timeline of a replica counts, too");
        assert_eq!(world.see(21, 0, false, 1), Verdict::NoPrimary);
        assert_eq!(world.see(22, 0, false, 3), primary(0, 3));
    }

    #[test]
    fn a_silent_primary_remains_until_another_one_takes_over() {
        let mut world = World::of(2);
        world.see(0, 0, false, 1);
        assert_eq!(world.see(60, 1, true, 1), primary(0, 1));
        assert_eq!(world.see(61, 1, false, 1), primary(1, 1), "its disk was given to another server");
    }

    #[test]
    fn two_primaries_on_one_timeline_are_none_until_one_is_silent() {
        let mut world = World::of(2);
        world.see(0, 0, false, 1);
        assert_eq!(world.see(1, 1, false, 1), Verdict::TwoPrimaries(0, 1));
        assert_eq!(world.see(2, 1, false, 1), Verdict::TwoPrimaries(0, 1));
        assert_eq!(world.see(3, 1, false, 1), primary(1, 1));
    }

    #[test]
    fn one_server_under_two_names_is_one() {
        let mut world = World::of(2);
        world.see(0, 0, false, 1);
        let again = world.sightings[0];
        world.sightings[1] = again;
        assert_eq!(world.topology.decide(world.begun, &world.sightings), primary(0, 1));
        world.sightings[0] = None;
        assert_eq!(world.topology.decide(world.begun, &world.sightings), primary(1, 1));
        world.sightings[0] = again;
        assert_eq!(world.topology.decide(world.begun, &world.sightings), primary(1, 1), "the name of before is kept");
    }

    #[test]
    fn a_primary_of_another_system_is_a_second_one_while_the_first_lives_and_the_only_one_long_afterwards() {
        let mut world = World::of(2);
        world.see(0, 0, false, 5);
        let foreign =
            |at| Some(Sighting { at, is_in_recovery: false, timeline: Some(1), system: Some(8), started: 99 });
        world.sightings[1] = foreign(world.begun);
        assert_eq!(world.topology.decide(world.begun, &world.sightings), Verdict::TwoPrimaries(0, 1));
        let later = world.begun + SUSPECT;
        world.sightings[1] = foreign(later);
        assert_eq!(world.topology.decide(later, &world.sightings), primary(0, 5), "silent, but not gone");
        let later = world.begun + GONE;
        world.sightings[1] = foreign(later);
        assert_eq!(world.topology.decide(later, &world.sightings), primary(1, 1));
    }

    /// The primary has lost its disk, and its image has made an empty database.
    #[test]
    fn a_primary_of_another_system_is_none_while_replicas_of_ours_live() {
        let mut world = World::of(2);
        world.see(0, 0, false, 5);
        for second in 1..300 {
            let at = world.begun + SECOND * second;
            world.sightings[0] =
                Some(Sighting { at, is_in_recovery: false, timeline: Some(1), system: Some(8), started: 99 });
            assert_eq!(world.see(second, 1, true, 5), Verdict::NoPrimary);
        }
        assert_eq!(world.see(300, 1, false, 6), Verdict::TwoPrimaries(0, 1));
    }

    proptest! {
        /// Whatever is seen in whatever order: nothing is written to a server on a lower timeline than was seen.
        #[test]
        fn nothing_is_written_below_the_highest_timeline(
            seen in prop::collection::vec((0_u32..3, 0_usize..4, any::<bool>(), 1_u32..6), 1..100),
        ) {
            let (mut world, mut highest, mut second) = (World::of(4), 0, 0);
            for (pause, host, is_in_recovery, timeline) in seen {
                second += pause;
                highest = highest.max(timeline);
                match world.see(second, host, is_in_recovery, timeline) {
                    Verdict::Primary { host, timeline } => {
                        prop_assert_eq!(timeline, highest);
                        prop_assert!(world.sightings[host].is_some_and(|sighting| !sighting.is_in_recovery));
                    }
                    Verdict::TwoPrimaries(one, other) => {
                        prop_assert_ne!(one, other);
                        for host in [one, other] {
                            prop_assert_eq!(world.sightings[host].and_then(|sighting| sighting.timeline), Some(highest));
                        }
                    }
                    Verdict::NoPrimary => {}
                }
            }
        }
    }
}

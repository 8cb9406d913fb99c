//! Which server takes writes?
//!
//! The primary is the server that is not in recovery, on the highest timeline that was ever seen. Roles are asked,
//! never configured. A server on a lower timeline is a former primary, and gets no writes. Two primaries on one
//! timeline get none either, because nobody knows which of them will survive. One server under two names counts once.
//!
//! The first answer may come from a former primary, or from an empty database on a new disk. So there is no primary
//! until every host has answered or failed, and no system is adopted before that either, unless most hosts agree. While
//! most hosts show our system, a primary of another one is ignored; otherwise it is a second primary.

use std::time::{Duration, Instant};

use super::Looks;

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

/// What is known of one host.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    /// The latest answer.
    pub(crate) sighting: Option<Sighting>,
    /// When the host last failed to answer.
    pub(crate) failed: Option<Instant>,
    /// Since the answer, another name of the same server has shown that the server was restarted.
    pub(crate) is_outdated: bool,
    /// The host leads to several servers.
    pub(crate) is_balanced: bool,
}

impl Look {
    /// Returns whether the host has answered, or failed to do so since this instant.
    fn was_asked_since(&self, instant: Instant) -> bool {
        self.sighting.is_some() || self.failed.is_some_and(|failed| failed >= instant)
    }

    /// Returns whether the answer was of a server process that has ended: another name of the server shows it, and the
    /// host has failed since.
    fn has_ended(&self) -> bool {
        self.is_outdated && self.sighting.is_some_and(|sighting| self.failed.is_some_and(|failed| failed > sighting.at))
    }
}

impl Sighting {
    fn is_gone(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= GONE
    }

    /// Returns whether both are of one process of one server. A promotion keeps it, and a restart ends it. The timeline
    /// and the role change within a process, so they do not count.
    pub(crate) fn is_same_server(&self, other: &Self) -> bool {
        self.started == other.started && self.system == other.system
    }
}

/// Which server takes writes. Servers are numbered in the order in which they were given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Primacy {
    /// No server is known to take writes.
    #[default]
    NoPrimary,
    Primary {
        host: usize,
        timeline: u32,
    },
    TwoPrimaries(usize, usize),
    /// These hosts belong to different systems, and nobody knows yet which of the systems is ours.
    TwoSystems(usize, usize),
}

#[derive(Debug, Default)]
pub(crate) struct Topology {
    looks: Looks,
    /// When a host answered for the first time.
    opened: Option<Instant>,
    /// Whether every host has answered, or failed, or was silent. Before that, one that was not heard may be the
    /// primary.
    has_heard_all: bool,
    /// Whether it is known which system is ours, as far as servers show it.
    is_settled: bool,
    /// The system identifier that the fence belongs to.
    system: Option<u64>,
    /// The highest timeline ever seen of this system.
    highest: u32,
    /// Earlier answers count no more, because the owner gave the order to forget the highest timeline.
    since: Option<Instant>,
    primacy: Primacy,
}

impl Topology {
    pub(crate) fn new(looks: Looks) -> Self {
        Self { looks, ..Self::default() }
    }

    /// Decides by what is known of all hosts.
    pub(crate) fn decide(&mut self, now: Instant, looks: &[Look]) -> Primacy {
        self.primacy = self.conclude(now, looks);
        self.primacy
    }

    fn conclude(&mut self, now: Instant, looks: &[Look]) -> Primacy {
        let since = self.since;
        let counts = |sighting: &Sighting| since.is_none_or(|since| sighting.at > since);
        let known = || looks.iter().enumerate().filter_map(|(host, look)| Some((host, look.sighting.filter(counts)?)));
        self.hear(now, looks);
        if self.is_settled {
            self.adopt_another_system(now, looks);
        } else if let Err(primacy) = self.settle(now, looks) {
            return primacy;
        }
        for (_, sighting) in known() {
            if self.is_ours(&sighting) {
                self.system = self.system.or(sighting.system);
                self.highest = self.highest.max(sighting.timeline.unwrap_or(0));
            }
        }
        if !self.has_heard_all {
            return Primacy::NoPrimary;
        }
        // Then every process knows that a primary of another system is foreign, also one that starts now.
        let is_majority = self.system.is_some() && self.majority(now, looks) == self.system;
        let is_candidate = |sighting: &Sighting| {
            let is_foreign = !self.is_ours(sighting);
            let may_count = if is_foreign { !is_majority } else { sighting.timeline.unwrap_or(0) >= self.highest };
            !sighting.is_in_recovery && may_count
        };
        let candidates: Vec<_> =
            known().filter(|(host, sighting)| is_candidate(sighting) && !looks[*host].has_ended()).collect();
        let is_silent = |sighting: &Sighting| self.looks.is_silent(sighting.at, now);
        let is_live_and_ours = |sighting: &Sighting| !is_silent(sighting) && self.is_ours(sighting);
        // A server that is silent may only have lost its scout. It remains the primary until another one takes over.
        let is_any_live = candidates.iter().any(|(_, sighting)| is_live_and_ours(sighting));
        let mut counted = candidates.into_iter().filter(|(_, sighting)| {
            // A primary of another system takes over from none of ours: it may be an empty database on a new disk.
            if is_any_live { !is_silent(sighting) } else { self.is_ours(sighting) }
        });
        // Such a host is asked at once.
        if counted.clone().any(|(host, _)| looks[host].is_outdated) {
            return Primacy::NoPrimary;
        }
        match counted.next() {
            None => Primacy::NoPrimary,
            Some(first) => match counted.clone().find(|(_, other)| !other.is_same_server(&first.1)) {
                Some((other, _)) => Primacy::TwoPrimaries(first.0, other),
                None => self.primary(first, counted, looks),
            },
        }
    }

    /// Notes whether every host has answered, or has failed since the first answer. A host that is silent counts as
    /// failed, and does so sooner if most of the others agree.
    fn hear(&mut self, now: Instant, looks: &[Look]) {
        let answers = looks.iter().filter_map(|look| look.sighting.map(|sighting| sighting.at));
        let Some(opened) = self.opened.or(answers.min()) else { return };
        self.opened = Some(opened);
        let waited = now.saturating_duration_since(opened);
        let is_over = self.looks.is_silent(opened, now)
            || waited >= self.looks.wait_for_others() && self.majority(now, looks).is_some();
        self.has_heard_all |= is_over || looks.iter().all(|look| look.was_asked_since(opened));
    }

    /// Finds out which system is ours: the one of most hosts, or the only one once all hosts were heard. An error says
    /// why it is not known yet.
    fn settle(&mut self, now: Instant, looks: &[Look]) -> Result<(), Primacy> {
        let live = || {
            let sighting = |look: &Look| look.sighting.filter(|sighting| !sighting.is_gone(now));
            looks.iter().enumerate().filter_map(move |(host, look)| Some((host, sighting(look)?)))
        };
        let Some((first, _)) = live().next() else { return Err(Primacy::NoPrimary) };
        if let Some(system) = self.majority(now, looks) {
            (self.system, self.is_settled) = (Some(system), true);
            return Ok(());
        }
        if !self.has_heard_all {
            return Err(Primacy::NoPrimary);
        }
        let mut shown = live().filter(|(_, sighting)| sighting.system.is_some());
        let (one, system) = shown.next().map_or((first, None), |(host, sighting)| (host, sighting.system));
        if let Some((other, _)) = shown.find(|(_, sighting)| sighting.system != system) {
            return Err(Primacy::TwoSystems(one, other));
        }
        (self.system, self.is_settled) = (system, true);
        Ok(())
    }

    /// One server, perhaps under several names. The name that was the primary before stays the primary. A name that
    /// leads to other servers as well comes last.
    fn primary(
        &self,
        first: (usize, Sighting),
        others: impl Iterator<Item = (usize, Sighting)>,
        looks: &[Look],
    ) -> Primacy {
        let before = match self.primacy {
            Primacy::Primary { host, .. } => Some(host),
            _ => None,
        };
        let names = std::iter::once(first).chain(others);
        let rank = |(host, _): &(usize, Sighting)| (looks[*host].is_balanced, Some(*host) != before);
        let (host, sighting) = names.min_by_key(rank).unwrap_or(first);
        Primacy::Primary { host, timeline: sighting.timeline.unwrap_or(0) }
    }

    /// Returns whether the server belongs to the system that the fence belongs to, as far as is known.
    pub(crate) fn is_ours(&self, sighting: &Sighting) -> bool {
        self.system.is_none() || sighting.system.is_none() || self.system == sighting.system
    }

    /// Returns whether a host has answered, and others still have to answer or fail until it is known whether it
    /// counts.
    pub(crate) fn is_open(&self) -> bool {
        let is_known = self.is_settled && self.has_heard_all;
        self.opened.is_some() && !is_known && self.primacy == Primacy::NoPrimary
    }

    /// Forgets the highest timeline and the answers of silent servers. Returns that timeline.
    pub(crate) fn forget_timeline(&mut self, now: Instant) -> u32 {
        self.since = now.checked_sub(self.looks.silent_after());
        std::mem::take(&mut self.highest)
    }

    /// Returns whether the server may serve reads: it is ours, and it is known which system is.
    pub(crate) fn may_serve(&self, sighting: &Sighting) -> bool {
        !matches!(self.primacy, Primacy::TwoSystems(..)) && self.is_ours(sighting)
    }

    /// The database was made anew if most hosts show another system, or if no server of the former one has answered for
    /// long and a primary of another one does. Its timelines begin at 1.
    fn adopt_another_system(&mut self, now: Instant, looks: &[Look]) {
        let known = || looks.iter().filter_map(|look| look.sighting);
        let is_another = |system: &u64| self.system.is_some_and(|ours| ours != *system);
        let of_most = self.majority(now, looks).filter(is_another);
        let is_ours_gone = !known().any(|sighting| self.is_ours(&sighting) && !sighting.is_gone(now));
        let is_new = |sighting: &Sighting| !self.looks.is_silent(sighting.at, now) && !sighting.is_in_recovery;
        let of_primary = known().find(|sighting| is_ours_gone && is_new(sighting)).map(|sighting| sighting.system);
        if let Some(system) = of_most.map(Some).or(of_primary) {
            let (opened, has_heard_all) = (self.opened, self.has_heard_all);
            *self = Self { system, is_settled: true, opened, has_heard_all, ..Self::new(self.looks) };
        }
    }

    /// The system that more than half of the hosts show, each by a server of its own. A name that leads to several
    /// servers proves nothing, nor does an answer of a server that may have been restarted since: it would count twice.
    fn majority(&self, now: Instant, looks: &[Look]) -> Option<u64> {
        let has_failed_since = |look: &Look, at| look.failed.is_some_and(|failed| failed > at);
        let is_certain = |look: &&Look| !look.is_outdated && !look.is_balanced;
        let live = looks.iter().filter(is_certain).filter_map(|look| {
            look.sighting
                .filter(|sighting| !self.looks.is_silent(sighting.at, now) && !has_failed_since(look, sighting.at))
        });
        most(&live.collect::<Vec<_>>(), looks.len())
    }
}

/// The system that more than half of the hosts show. One server under several names counts once.
fn most(live: &[Sighting], hosts: usize) -> Option<u64> {
    let is_first_name = |index: usize| !live[..index].iter().any(|other| other.is_same_server(&live[index]));
    let servers: Vec<_> = (0..live.len()).filter(|index| is_first_name(*index)).map(|index| live[index]).collect();
    let count = |system: u64| servers.iter().filter(|server| server.system == Some(system)).count();
    servers.iter().filter_map(|server| server.system).find(|system| count(*system) > hosts / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    /// By default, a server is silent after this.
    const SUSPECT: Duration = Duration::from_secs(3);

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
        fn see(&mut self, second: u32, host: usize, is_in_recovery: bool, timeline: u32) -> Primacy {
            let (at, started) = (self.begun + SECOND * second, host as i64);
            self.sightings[host] =
                Some(Sighting { at, is_in_recovery, timeline: Some(timeline), system: Some(7), started });
            self.decide(at)
        }

        /// Hosts without an answer have failed.
        fn decide(&mut self, now: Instant) -> Primacy {
            let look = |sighting: &Option<Sighting>| Look {
                sighting: *sighting,
                failed: Some(now),
                is_outdated: false,
                is_balanced: false,
            };
            let looks: Vec<_> = self.sightings.iter().map(look).collect();
            self.topology.decide(now, &looks)
        }
    }

    /// A server that answers for the first time.
    fn server(at: Instant, system: u64, is_in_recovery: bool, timeline: u32, started: i64) -> Look {
        let sighting = Sighting { at, is_in_recovery, timeline: Some(timeline), system: Some(system), started };
        Look { sighting: Some(sighting), ..Look::default() }
    }

    fn primary(host: usize, timeline: u32) -> Primacy {
        Primacy::Primary { host, timeline }
    }

    #[test]
    fn the_primary_is_the_one_that_is_not_in_recovery() {
        let mut world = World::of(3);
        assert_eq!(world.see(0, 1, true, 1), Primacy::NoPrimary);
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
        assert_eq!(world.see(20, 1, true, 3), Primacy::NoPrimary, "the timeline of a replica counts, too");
        assert_eq!(world.see(21, 0, false, 1), Primacy::NoPrimary);
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
        assert_eq!(world.see(1, 1, false, 1), Primacy::TwoPrimaries(0, 1));
        assert_eq!(world.see(2, 1, false, 1), Primacy::TwoPrimaries(0, 1));
        assert_eq!(world.see(3, 1, false, 1), primary(1, 1));
    }

    #[test]
    fn one_server_under_two_names_is_one() {
        let mut world = World::of(2);
        world.see(0, 0, false, 1);
        let again = world.sightings[0];
        world.sightings[1] = again;
        assert_eq!(world.decide(world.begun), primary(0, 1));
        world.sightings[0] = None;
        assert_eq!(world.decide(world.begun), primary(1, 1));
        world.sightings[0] = again;
        assert_eq!(world.decide(world.begun), primary(1, 1), "the name of before is kept");
    }

    #[test]
    fn a_primary_of_another_system_is_a_second_one_while_the_first_lives_and_the_only_one_long_afterwards() {
        let mut world = World::of(2);
        world.see(0, 0, false, 5);
        let foreign =
            |at| Some(Sighting { at, is_in_recovery: false, timeline: Some(1), system: Some(8), started: 99 });
        world.sightings[1] = foreign(world.begun);
        assert_eq!(world.decide(world.begun), Primacy::TwoPrimaries(0, 1));
        let later = world.begun + SUSPECT;
        world.sightings[1] = foreign(later);
        assert_eq!(world.decide(later), primary(0, 5), "silent, but not gone");
        let later = world.begun + GONE;
        world.sightings[1] = foreign(later);
        assert_eq!(world.decide(later), primary(1, 1));
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
            assert_eq!(world.see(second, 1, true, 5), Primacy::NoPrimary);
        }
        assert_eq!(world.see(300, 1, false, 6), Primacy::TwoPrimaries(0, 1));
    }

    #[test]
    fn no_system_is_adopted_until_every_host_was_asked() {
        let (mut topology, at) = (Topology::default(), Instant::now());
        let (wiped, unasked) = (server(at, 8, false, 1, 99), Look::default());
        assert_eq!(topology.decide(at, &[wiped, unasked]), Primacy::NoPrimary);
        assert_eq!(topology.decide(at, &[wiped, server(at, 7, true, 5, 1)]), Primacy::TwoSystems(0, 1));
        assert!(!topology.may_serve(&wiped.sighting.unwrap()), "nor does it serve reads");
        let later = at + GONE - SECOND;
        let wiped = server(later, 8, false, 1, 99);
        assert_eq!(topology.decide(later, &[wiped, server(at, 7, true, 5, 1)]), Primacy::TwoSystems(0, 1));
        let later = at + GONE;
        assert_eq!(topology.decide(later, &[wiped, server(at, 7, true, 5, 1)]), primary(0, 1), "the other is gone");
    }

    #[test]
    fn a_failure_of_before_the_first_answer_is_no_outcome() {
        let (mut topology, begun) = (Topology::default(), Instant::now());
        let failed = |at| Look { failed: Some(at), ..Look::default() };
        assert_eq!(topology.decide(begun, &[failed(begun), failed(begun)]), Primacy::NoPrimary);
        let first = begun + SECOND / 2;
        let wiped = server(first, 8, false, 1, 99);
        assert_eq!(
            topology.decide(first, &[wiped, failed(begun)]),
            Primacy::NoPrimary,
            "the network was away for both"
        );
        assert_eq!(topology.decide(first, &[wiped, failed(first)]), primary(0, 1));
    }

    #[test]
    fn a_host_that_never_answers_holds_nobody_up_for_long() {
        let (mut topology, at) = (Topology::default(), Instant::now());
        let looks = |at| [server(at, 7, false, 5, 1), Look::default()];
        assert_eq!(topology.decide(at, &looks(at)), Primacy::NoPrimary);
        assert_eq!(topology.decide(at + SUSPECT, &looks(at + SUSPECT)), primary(0, 5));
    }

    /// Host 1 was promoted. Host 0 does not know it, and host 2 follows it, but does not show its timeline yet.
    #[test]
    fn a_process_that_starts_writes_to_no_former_primary_while_a_host_was_not_heard() {
        let (mut topology, at) = (Topology::default(), Instant::now());
        let (former, replica) = (server(at, 7, false, 1, 0), server(at, 7, true, 1, 2));
        assert_eq!(topology.decide(at, &[former, Look::default(), replica]), Primacy::NoPrimary);
        assert!(topology.is_open() && topology.may_serve(&replica.sighting.unwrap()), "reads need not wait");
        let promoted = server(at, 7, false, 2, 1);
        assert_eq!(topology.decide(at, &[former, promoted, replica]), primary(1, 2));
        let mut topology = Topology::default();
        topology.decide(at, &[former, Look::default(), replica]);
        for (millis, decided) in [(499, Primacy::NoPrimary), (500, primary(0, 1))] {
            let later = at + Duration::from_millis(millis);
            let (former, replica) = (server(later, 7, false, 1, 0), server(later, 7, true, 1, 2));
            assert_eq!(topology.decide(later, &[former, Look::default(), replica]), decided, "it says nothing");
        }
        assert!(!topology.is_open());
    }

    #[test]
    fn one_host_is_adopted_at_once() {
        let (mut topology, at) = (Topology::default(), Instant::now());
        assert_eq!(topology.decide(at, &[server(at, 7, false, 5, 1)]), primary(0, 5));
    }

    #[test]
    fn most_hosts_decide_and_an_adopted_system_stays() {
        let (mut topology, at) = (Topology::default(), Instant::now());
        let (wiped, ours) = (server(at, 8, false, 1, 99), |started| server(at, 7, true, 5, started));
        assert_eq!(topology.decide(at, &[wiped, wiped, Look::default()]), Primacy::NoPrimary, "one server, two names");
        let mut topology = Topology::default();
        assert_eq!(topology.decide(at, &[wiped, ours(1), Look::default()]), Primacy::NoPrimary);
        assert_eq!(topology.decide(at, &[wiped, ours(1), ours(2)]), Primacy::NoPrimary, "ours has no primary");
        assert!(!topology.may_serve(&wiped.sighting.unwrap()) && topology.may_serve(&ours(1).sighting.unwrap()));
        let promoted = server(at, 7, false, 6, 1);
        assert_eq!(topology.decide(at, &[wiped, promoted, ours(2)]), primary(1, 6), "most hosts agree");
        let without_most = [wiped, promoted, Look { failed: Some(at), ..Look::default() }];
        assert_eq!(topology.decide(at, &without_most), Primacy::TwoPrimaries(0, 1), "a process that starts may differ");
        let balanced = [wiped, promoted, Look { is_balanced: true, ..ours(2) }];
        assert_eq!(topology.decide(at, &balanced), Primacy::TwoPrimaries(0, 1), "it leads to the second as well");
        let later = at + SUSPECT;
        let looks = [server(later, 8, false, 1, 99), server(later, 7, false, 6, 1), ours(2)];
        assert_eq!(topology.decide(later, &looks), Primacy::TwoPrimaries(0, 1), "the third is silent");
    }

    /// All processes with the same view come to the same conclusion, whenever they were started.
    #[test]
    fn most_hosts_decide_also_later() {
        let at = Instant::now();
        let (old, new) = (server(at, 7, false, 5, 1), [server(at, 8, false, 1, 98), server(at, 8, true, 1, 99)]);
        let down = Look { failed: Some(at), ..Look::default() };
        let mut topology = Topology::default();
        assert_eq!(topology.decide(at, &[old, down, down]), primary(0, 5));
        assert_eq!(topology.decide(at, &[old, new[0], down]), Primacy::TwoPrimaries(0, 1));
        assert_eq!(topology.decide(at, &[old, new[0], new[1]]), primary(1, 1));
        assert_eq!(Topology::default().decide(at, &[old, new[0], new[1]]), primary(1, 1));
    }

    /// Two of three names are those of a wiped server, which is restarted: one of them answers first.
    #[test]
    fn a_server_under_two_names_that_restarts_is_not_most_hosts() {
        let (mut topology, at) = (Topology::default(), Instant::now());
        let ours = server(at, 7, true, 5, 1);
        let (before, after) = (server(at, 8, false, 1, 100), server(at, 8, false, 1, 200));
        assert_eq!(topology.decide(at, &[ours, before, before]), Primacy::TwoSystems(0, 1));
        let outdated = Look { is_outdated: true, ..before };
        assert_eq!(topology.decide(at, &[ours, after, outdated]), Primacy::TwoSystems(0, 1));
        let failed = Look { failed: Some(at + SECOND), ..before };
        assert_eq!(topology.decide(at, &[ours, after, failed]), Primacy::TwoSystems(0, 1));
    }

    #[test]
    fn the_order_to_forget_adopts_no_other_system() {
        let (mut topology, at) = (Topology::default(), Instant::now());
        let ours = server(at, 7, false, 6, 1);
        assert_eq!(topology.decide(at, &[ours, server(at, 7, true, 7, 2)]), Primacy::NoPrimary, "fenced");
        let later = at + 2 * SUSPECT;
        topology.forget_timeline(later);
        let wiped = server(later, 8, false, 1, 99);
        assert_eq!(topology.decide(later, &[ours, wiped]), Primacy::NoPrimary, "ours has been silent for six seconds");
        assert_eq!(topology.decide(later, &[server(later, 7, false, 6, 1), wiped]), Primacy::TwoPrimaries(0, 1));
    }

    /// A host that was down comes later, with the old data.
    #[test]
    fn a_host_of_another_system_that_comes_later_is_foreign() {
        let (mut topology, at) = (Topology::default(), Instant::now());
        let down = Look { failed: Some(at), ..Look::default() };
        assert_eq!(topology.decide(at, &[server(at, 7, false, 1, 1), down]), primary(0, 1));
        let foreign = server(at, 8, true, 9, 99);
        assert_eq!(topology.decide(at, &[server(at, 7, false, 1, 1), foreign]), primary(0, 1), "no fence of ours");
        assert!(!topology.may_serve(&foreign.sighting.unwrap()));
    }

    /// A host was promoted by mistake, and then made a replica of the old primary again, or switched off.
    #[test]
    fn a_forgotten_timeline_counts_only_while_a_server_is_on_it() {
        let mut world = World::of(3);
        world.see(0, 0, false, 6);
        world.see(0, 1, false, 7);
        assert_eq!(world.see(10, 0, false, 6), primary(1, 7));
        assert_eq!(world.see(11, 1, true, 6), Primacy::NoPrimary, "fenced for ever");
        assert_eq!(world.topology.forget_timeline(world.begun + SECOND * 11), 7);
        assert_eq!(world.see(11, 0, false, 6), primary(0, 6));
        world.see(12, 2, true, 7);
        world.topology.forget_timeline(world.begun + SECOND * 12);
        assert_eq!(world.see(12, 0, false, 6), Primacy::NoPrimary, "a live server is on it");
        world.topology.forget_timeline(world.begun + SECOND * 15);
        assert_eq!(world.see(15, 0, false, 6), primary(0, 6), "it is silent");
        assert_eq!(world.see(16, 2, true, 7), Primacy::NoPrimary, "it is back");
    }

    #[test]
    fn a_server_under_two_names_that_restarts_is_never_two() {
        let (mut topology, at) = (Topology::default(), Instant::now());
        let (before, after) = (server(at, 7, false, 1, 100), server(at, 7, false, 1, 200));
        assert_eq!(topology.decide(at, &[before, before]), primary(0, 1));
        assert_eq!(topology.decide(at, &[after, before]), Primacy::TwoPrimaries(0, 1), "nobody knows that it was one");
        let outdated = Look { is_outdated: true, ..before };
        assert_eq!(topology.decide(at, &[after, outdated]), Primacy::NoPrimary, "until it is asked, which is at once");
        let ended = Look { failed: Some(at + SECOND), ..outdated };
        assert_eq!(topology.decide(at, &[after, ended]), primary(0, 1));
        assert_eq!(topology.decide(at, &[after, after]), primary(0, 1));
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
                    Primacy::Primary { host, timeline } => {
                        prop_assert_eq!(timeline, highest);
                        prop_assert!(world.sightings[host].is_some_and(|sighting| !sighting.is_in_recovery));
                    }
                    Primacy::TwoPrimaries(one, other) => {
                        prop_assert_ne!(one, other);
                        for host in [one, other] {
                            prop_assert_eq!(world.sightings[host].and_then(|sighting| sighting.timeline), Some(highest));
                        }
                    }
                    Primacy::NoPrimary => {}
                    Primacy::TwoSystems(..) => prop_assert!(false, "there is one"),
                }
            }
        }
    }
}

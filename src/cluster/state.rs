//! What a cluster knows of its hosts, and what it concludes from that. It does no I/O: scouts bring answers, and
//! callers read conclusions.

mod absence;
mod places;
mod reports;
mod sessions;

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::sessions::{BALANCES, Compared, Dialed, Sessions};
use crate::event::EventKind;
use crate::policy::{
    Fitness, History, Lasting, Look, Looks, Lsn, Need, Position, Primacy, Ring, Sighting, Topology, Trend,
};

/// A switchover may take this long. A shorter time without a primary is not reported.
const HELD: Duration = Duration::from_secs(3);
/// How long a replica's lag has to be small until its end is reported.
const CALM: Duration = Duration::from_secs(10);

/// What a host has answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) sighting: Sighting,
    /// Of a primary: where it inserts next. Of a replica: how far its replay is.
    pub(super) place: Option<Lsn>,
}

#[derive(Debug)]
struct Known {
    label: Arc<str>,
    answer: Option<Answer>,
    /// When the last answered question was sent. Before the first answer, when the scouts began.
    asked: Instant,
    /// When the latest answer came. Before the first answer, when the scouts began.
    heard: Instant,
    /// When it last failed to answer, and why.
    failed: Option<Instant>,
    reason: String,
    /// Since the answer, another name of the same server has shown that the server was restarted.
    is_outdated: bool,
    sessions: Sessions,
    /// The server that had answered before another one did, by when it was started, and until when.
    former: Option<(i64, Instant)>,
    /// The log of the server that was started at this time is not the one of this primary, although the timeline has
    /// its number.
    forked: Option<(i64, usize)>,
    /// Where those connections of the pool lead that were made before the first answer.
    dialed: Dialed,
    fitness: Fitness,
    trend: Trend,
    /// The last position that the host had as the primary.
    position: Option<Position>,
    silent: Lasting,
    lags: Lasting,
}

/// What waiting calls wait for. They are woken when it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decision {
    primacy: Primacy,
    has_asked_all: bool,
}

#[derive(Debug)]
pub(super) struct State {
    looks: Looks,
    /// A replica that is further behind serves no reads of `Freshness::Any`.
    max_lag: Duration,
    topology: Topology,
    primacy: Primacy,
    /// What is known of each host, in words, until something else is known. Refused calls share it.
    in_words: Option<Arc<str>>,
    ring: Ring,
    hosts: Vec<Known>,
    /// The primary that was reported last: its host and its answer.
    announced: Option<(usize, Sighting)>,
    missing: Lasting,
    two: Lasting,
}

/// What follows from an answer.
#[derive(Debug, Default)]
pub(super) struct FollowUps {
    pub(super) events: Vec<EventKind>,
    /// The connections of this host's pool lead to another server than the scout.
    pub(super) flush: bool,
    /// The hosts to ask at once: other names of the same server, or the replicas of a new primary. Nothing is known of
    /// their lag yet.
    pub(super) ask: Vec<usize>,
    pub(super) is_new_primary: bool,
    /// Something has changed since the look before.
    pub(super) is_news: bool,
}

/// The hosts that can serve a read.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Each with its share of the reads, from 0 to 1.
    pub(super) replicas: Vec<(usize, f64)>,
    /// The lag of the freshest replica that would serve it with less lag.
    pub(super) nearest: Option<Duration>,
    /// As `nearest`, but only of replicas that would serve the read as soon as they have caught up.
    pub(super) soonest: Option<Duration>,
}

/// What is known of one host, for its owner.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) sighting: Option<Sighting>,
    pub(super) is_primary: bool,
    pub(super) is_silent: bool,
    pub(super) is_balanced: bool,
    pub(super) lag: Option<Duration>,
}

impl State {
    pub(super) fn new(now: Instant, labels: impl Iterator<Item = Arc<str>>, looks: Looks, max_lag: Duration) -> Self {
        let known = |label| Known {
            label,
            answer: None,
            asked: now,
            heard: now,
            failed: None,
            reason: String::new(),
            is_outdated: false,
            sessions: Sessions::Same,
            former: None,
            forked: None,
            dialed: Dialed::default(),
            fitness: Fitness::new(looks),
            trend: Trend::default(),
            position: None,
            silent: Lasting::new(Duration::ZERO, Duration::ZERO),
            lags: Lasting::new(Duration::ZERO, CALM),
        };
        Self {
            looks,
            max_lag,
            topology: Topology::new(looks),
            primacy: Primacy::NoPrimary,
            in_words: None,
            ring: Ring::default(),
            hosts: labels.map(known).collect(),
            announced: None,
            missing: Lasting::new(HELD, Duration::ZERO),
            two: Lasting::new(Duration::ZERO, Duration::ZERO),
        }
    }

    pub(super) fn decision(&self) -> Decision {
        Decision { primacy: self.primacy, has_asked_all: self.has_asked_all() }
    }

    pub(super) fn primacy(&self) -> Primacy {
        self.primacy
    }

    pub(super) fn label(&self, host: usize) -> &Arc<str> {
        &self.hosts[host].label
    }

    /// Returns whether each host has answered, or has failed since another one has answered.
    pub(super) fn has_asked_all(&self) -> bool {
        !self.topology.is_open() && self.hosts.iter().all(|host| host.answer.is_some() || host.failed.is_some())
    }

    /// Returns whether the scout of this host has to connect anew.
    pub(super) fn is_doubted(&self, host: usize) -> bool {
        matches!(self.hosts[host].sessions, Sessions::Doubted(_))
    }

    /// How long a scout takes at most to connect anew and to ask.
    pub(super) fn longest_look(&self) -> Duration {
        2 * self.looks.timeout
    }

    /// Returns whether this host is the primary. A silent primary remains it until another host takes over.
    pub(super) fn is_primary(&self, host: usize) -> bool {
        matches!(self.primacy, Primacy::Primary { host: primary, .. } if primary == host)
    }

    /// Returns whether the connections of this host lead to the server that its scout knows, as far as is known.
    pub(super) fn is_one_server(&self, host: usize) -> bool {
        self.hosts[host].sessions == Sessions::Same
    }

    /// A host was asked at `asked` and has answered, in a new session of the scout or in the one of before.
    pub(super) fn on_answer(
        &mut self,
        now: Instant,
        host: usize,
        asked: Instant,
        answer: Answer,
        is_new_session: bool,
    ) -> FollowUps {
        let mut follow_ups = FollowUps::default();
        let primacy = self.primacy;
        let known = &mut self.hosts[host];
        let before = known.answer.map(|before| before.sighting);
        let is_as_before = known.answer.is_some_and(|before| {
            let sighting = Sighting { at: before.sighting.at, ..answer.sighting };
            before.sighting == sighting && before.place == answer.place
        });
        let ended = before.filter(|before| before.started != answer.sighting.started);
        let is_other = ended.is_some();
        let has_changed = before.is_some_and(|before| before.is_in_recovery != answer.sighting.is_in_recovery);
        if is_other || has_changed {
            known.fitness.begin_anew();
            known.trend = Trend::default();
        }
        let started = answer.sighting.started;
        let is_lately = |at: Instant| now.saturating_duration_since(at) < BALANCES;
        let has_returned = is_other && known.former.is_some_and(|(former, at)| former == started && is_lately(at));
        let dialed = known.dialed;
        let compared = Compared { now, started, is_other, has_returned, is_new_session, dialed };
        let sessions;
        (sessions, follow_ups.flush) = known.sessions.after(&compared);
        if sessions.is_several() && !known.sessions.is_several() {
            follow_ups.events.push(EventKind::HostBalances { host: known.label.to_string() });
        }
        if let Some(ended) = ended {
            known.former = Some((ended.started, now));
        }
        (known.sessions, known.dialed) = (sessions, Dialed::Nowhere);
        (known.answer, known.is_outdated) = (Some(answer), false);
        (known.asked, known.heard) = (asked, now);
        if let Some(ended) = ended {
            follow_ups.ask = self.outdate(ended);
        }
        if matches!(sessions, Sessions::Doubted(_)) && is_other {
            follow_ups.ask.push(host);
        }
        self.decide(now);
        follow_ups.is_news = !is_as_before || self.primacy != primacy;
        follow_ups.is_new_primary = self.primacy != primacy && matches!(self.primacy, Primacy::Primary { .. });
        if follow_ups.is_new_primary {
            follow_ups.ask.extend((0..self.hosts.len()).filter(|host| self.is_replica(*host)));
        }
        self.note_position();
        if answer.sighting.is_in_recovery {
            self.sample_lag(now, host);
        }
        self.look(now, &mut follow_ups.events);
        follow_ups
    }

    /// A replica has answered: its lag counts for what it is fit to serve.
    fn sample_lag(&mut self, now: Instant, host: usize) {
        let lag = self.lag(now, host);
        // After the first answer of a primary, no lag can be known yet.
        let is_known = lag.is_some() || self.ring.age(now).is_some_and(|memory| memory >= self.looks.silent_after());
        // While the primary is silent, the bound of every replica grows. That says nothing about the replicas.
        let is_recent = self.ring.asked().is_some_and(|asked| self.looks.is_recent(asked, now));
        self.hosts[host].fitness.on_answer(now);
        if is_known && is_recent {
            self.hosts[host].fitness.on_sample(now, lag);
        }
    }

    /// A process of a server has ended, so the answers under its other names are outdated. Returns these hosts.
    fn outdate(&mut self, ended: Sighting) -> Vec<usize> {
        let mut names = Vec::new();
        for (host, known) in self.hosts.iter_mut().enumerate() {
            if known.answer.is_some_and(|answer| answer.sighting.is_same_server(&ended)) {
                known.is_outdated = true;
                names.push(host);
            }
        }
        names
    }

    /// The scouts begin now.
    pub(super) fn on_start(&mut self, now: Instant) {
        self.hosts.iter_mut().for_each(|host| host.heard = now);
    }

    /// A host gave no answer. Its place in the log is no longer known, because after a crash replay goes on from an
    /// earlier place.
    pub(super) fn on_failure(&mut self, now: Instant, host: usize, reason: String) -> FollowUps {
        let known = &mut self.hosts[host];
        (known.reason, known.failed) = (reason, Some(now));
        if let Some(answer) = &mut known.answer {
            answer.place = None;
        }
        let mut follow_ups = FollowUps::default();
        self.decide(now);
        self.look(now, &mut follow_ups.events);
        follow_ups
    }

    /// The pool has made a connection to a server that was started at this time. A replica, asked at `asked`, had
    /// replayed this much. Returns whether the scout has to check that it is the server that it knows.
    pub(super) fn on_dialed(&mut self, host: usize, asked: Instant, started: i64, replayed: Option<Lsn>) -> bool {
        let known = &mut self.hosts[host];
        let Some(answer) = known.answer else {
            known.dialed = known.dialed.and(started);
            return false;
        };
        // After the crash of one session, a replica goes on from an earlier place, in the process of before.
        let is_behind = answer.place.zip(replayed).is_some_and(|(before, now)| now < before);
        let has_gone_back = is_behind && known.heard <= asked;
        match known.sessions {
            _ if answer.sighting.started == started && !has_gone_back => false,
            Sessions::Several(_) => false,
            Sessions::Same | Sessions::Doubted(_) => {
                known.sessions = Sessions::Doubted(started);
                true
            }
        }
    }

    fn decide(&mut self, now: Instant) {
        let look = |host: &Known| Look {
            sighting: host.answer.map(|answer| answer.sighting),
            failed: host.failed,
            is_outdated: host.is_outdated,
            is_balanced: host.sessions.is_several(),
        };
        let looks: Vec<_> = self.hosts.iter().map(look).collect();
        (self.primacy, self.in_words) = (self.topology.decide(now, &looks), None);
    }

    /// The replicas that have what a read needs, without those that are excluded.
    pub(super) fn candidates(&self, now: Instant, need: Need, excluded: &[usize]) -> Candidates {
        let mut candidates = Candidates::default();
        for (host, known) in self.hosts.iter().enumerate() {
            if known.answer.is_none_or(|answer| !answer.sighting.is_in_recovery) {
                continue;
            }
            if let Some(lag) = self.lag(now, host).filter(|_| self.may_catch_up(now, host, excluded)) {
                let (bound, is_fit) = match need {
                    Need::Within(bound) => (bound, known.fitness.is_fit(bound)),
                    _ => (Duration::ZERO, true),
                };
                // A replica that is fresh enough and still unfit would not serve the read with less lag either.
                if is_fit || lag > bound {
                    candidates.nearest = Some(candidates.nearest.map_or(lag, |nearest| nearest.min(lag)));
                }
                if is_fit {
                    candidates.soonest = Some(candidates.soonest.map_or(lag, |soonest| soonest.min(lag)));
                }
            }
            if !excluded.contains(&host) && self.has(now, host, need) {
                candidates.replicas.push((host, known.fitness.share(now)));
            }
        }
        candidates
    }

    /// Returns whether nothing but its lag can keep a replica from serving reads.
    fn may_catch_up(&self, now: Instant, host: usize, excluded: &[usize]) -> bool {
        let known = &self.hosts[host];
        let is_ours = known.answer.is_some_and(|answer| self.topology.may_serve(&answer.sighting));
        is_ours && self.is_one_server(host) && !known.fitness.is_silent(now) && !excluded.contains(&host)
    }

    /// Returns whether the next looks cannot find a replica with this position: it is of another history, or further
    /// ahead than a server can write by then.
    pub(super) fn is_out_of_reach(&self, now: Instant, need: Need) -> bool {
        let (Need::Position(position), Some(history)) = (need, self.ring.history()) else { return false };
        let is_ahead = || self.ring.is_out_of_reach(now, position.lsn);
        position.system != history.system || position.timeline > history.timeline || is_ahead()
    }

    /// Forgets the highest timeline, and returns it. From now on the highest of the hosts that answer counts.
    pub(super) fn forget_timeline(&mut self, now: Instant) -> (u32, Vec<EventKind>) {
        let (forgotten, mut events) = (self.topology.forget_timeline(now), Vec::new());
        self.decide(now);
        self.note_position();
        self.look(now, &mut events);
        (forgotten, events)
    }

    /// Returns whether a replica has what a read needs, at this moment.
    pub(super) fn has(&self, now: Instant, host: usize, need: Need) -> bool {
        let known = &self.hosts[host];
        let Some(answer) = known.answer else { return false };
        if known.fitness.is_silent(now) || !self.topology.may_serve(&answer.sighting) {
            return false;
        }
        if need == Need::Any {
            // The timeline does not matter: a replica that cannot follow to the new one falls behind in places, too.
            return answer.place.is_none_or(|place| self.ring.behind(place.rounded()) <= self.max_lag);
        }
        let Some(replayed) = self.replayed(host).filter(|_| self.is_one_server(host)) else { return false };
        match need {
            Need::Any => true,
            Need::Within(bound) => {
                self.ring.lag(now, replayed).is_some_and(|lag| lag <= bound) && known.fitness.is_fit(bound)
            }
            Need::Since(instant) => self.ring.shown_since(replayed).is_some_and(|shown| shown >= instant),
            Need::Position(position) => {
                let is_reached = |history: History| match position.timeline.cmp(&history.timeline) {
                    Ordering::Equal => position.lsn <= replayed,
                    // What an earlier timeline has left to this one lies before the switch. The rest of it is lost, on
                    // the primary as well. But a replica may have been on this timeline already when it served a read,
                    // before this process knew of the switch.
                    Ordering::Less => self.ring.has_begun(replayed) && position.lsn <= replayed,
                    Ordering::Greater => false,
                };
                self.ring.history().is_some_and(|history| history.system == position.system && is_reached(history))
            }
        }
    }

    /// Returns whether no replica can have been seen to have what a read of this process needs.
    pub(super) fn is_unproven(&self, need: Need) -> bool {
        matches!(need, Need::Since(instant) if self.ring.is_unproven(instant))
    }

    /// The system identifier of the database cluster, if a host shows it.
    pub(super) fn system(&self) -> Option<u64> {
        let sightings = self.hosts.iter().filter_map(|host| Some(host.answer?.sighting));
        sightings.filter(|sighting| self.topology.is_ours(sighting)).find_map(|sighting| sighting.system)
    }

    /// The system identifier, and the timeline of the log that replicas are compared with.
    pub(super) fn log(&self) -> (Option<u64>, Option<u32>) {
        (self.system(), self.ring.history().map(|history| history.timeline))
    }

    /// Returns whether a primary was ever found.
    pub(super) fn has_had_primary(&self) -> bool {
        self.announced.is_some()
    }

    /// Returns whether this host has answered that it is a replica.
    pub(super) fn is_replica(&self, host: usize) -> bool {
        self.hosts[host].answer.is_some_and(|answer| answer.sighting.is_in_recovery)
    }

    /// Returns whether this host is silent: it has not answered for longer than [`Looks::silent_after`].
    pub(super) fn is_silent(&self, now: Instant, host: usize) -> bool {
        self.looks.is_silent(self.hosts[host].heard, now)
    }
}

#[cfg(test)]
mod tests;

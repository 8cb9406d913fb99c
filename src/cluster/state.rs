//! What a cluster knows of its hosts, and what it concludes. No I/O: the scouts bring answers, and callers ask.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::EventKind;
use crate::policy::{
    DueReport, Fitness, History, Lag, Lasting, Lsn, Need, Position, PrimaryVerdict as Verdict, Ring, SUSPECT, Sighting,
    Sign, Topology, Trend,
};

/// A failover takes this long at least. A shorter time without a primary is no news.
const HELD: Duration = Duration::from_secs(3);
/// How long a replica has to be calm until its lag is over.
const CALM: Duration = Duration::from_secs(10);
/// How long a host that was found to lead to several servers serves no bounded reads.
const BALANCES: Duration = Duration::from_secs(600);
/// Samples of replicas count while the primary was asked so lately.
const RECENT: Duration = Duration::from_secs(2);
/// A replica that is further behind serves no reads at all.
pub(super) const FURTHEST: Duration = Duration::from_secs(30);

/// A replica that is behind by more than all that is remembered is reported once the memory is this long.
const CRITICAL: Duration = Duration::from_secs(45);

/// What a host has answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) sighting: Sighting,
    /// Of a primary: where it inserts next. Of a replica: how far its replay is.
    pub(super) place: Option<Lsn>,
}

/// What the sessions of a host say about one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sessions {
    /// The scout and the pool are connected to the same server, as far as is known.
    Same,
    /// A connection of the pool has found a server that was started at another time. The scout has to look again.
    Doubted(i64),
    /// The host leads to several servers.
    Several(Instant),
}

#[derive(Debug)]
struct Known {
    label: Arc<str>,
    answer: Option<Answer>,
    /// The latest answer, or the beginning.
    heard: Instant,
    has_outcome: bool,
    reason: String,
    sessions: Sessions,
    /// Where a connection of the pool leads that was made before the first answer.
    dialed: Option<i64>,
    fitness: Fitness,
    trend: Trend,
    /// The last position as the primary.
    position: Option<Position>,
    silent: Lasting,
    lags: Lasting,
}

#[derive(Debug)]
pub(super) struct State {
    topology: Topology,
    verdict: Verdict,
    ring: Ring,
    hosts: Vec<Known>,
    /// The primary that was announced last: its host and what it said.
    announced: Option<(usize, Sighting)>,
    missing: Lasting,
    two: Lasting,
}

/// What follows from an answer.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) events: Vec<EventKind>,
    /// The connections of this host's pool lead to another server than the scout.
    pub(super) flush: bool,
}

/// The hosts that can serve a read.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Each with the share of the reads that it gets now.
    pub(super) replicas: Vec<(usize, f64)>,
    /// The lag of the freshest replica.
    pub(super) nearest: Option<Duration>,
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
    pub(super) fn new(now: Instant, labels: impl Iterator<Item = Arc<str>>) -> Self {
        let known = |label| Known {
            label,
            answer: None,
            heard: now,
            has_outcome: false,
            reason: String::new(),
            sessions: Sessions::Same,
            dialed: None,
            fitness: Fitness::default(),
            trend: Trend::default(),
            position: None,
            silent: Lasting::new(Duration::ZERO, Duration::ZERO),
            lags: Lasting::new(Duration::ZERO, CALM),
        };
        Self {
            topology: Topology::default(),
            verdict: Verdict::NoPrimary,
            ring: Ring::default(),
            hosts: labels.map(known).collect(),
            announced: None,
            missing: Lasting::new(HELD, Duration::ZERO),
            two: Lasting::new(Duration::ZERO, Duration::ZERO),
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.verdict
    }

    pub(super) fn label(&self, host: usize) -> &Arc<str> {
        &self.hosts[host].label
    }

    /// Returns whether each host has answered or failed at least once.
    pub(super) fn has_asked_all(&self) -> bool {
        self.hosts.iter().all(|host| host.has_outcome)
    }

    /// Returns whether the scout of this host has to connect anew.
    pub(super) fn is_doubted(&self, host: usize) -> bool {
        matches!(self.hosts[host].sessions, Sessions::Doubted(_))
    }

    /// Returns whether this host counts as the primary, or did so last.
    pub(super) fn is_primary(&self, host: usize) -> bool {
        matches!(self.verdict, Verdict::Primary { host: primary, .. } if primary == host)
    }

    /// A host was asked at `asked` and has answered, in a new session of the scout or in the one of before.
    pub(super) fn on_answer(
        &mut self,
        now: Instant,
        host: usize,
        asked: Instant,
        answer: Answer,
        is_new_session: bool,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let known = &mut self.hosts[host];
        let before = known.answer.map(|before| before.sighting);
        let is_other = before.is_some_and(|before| before.started != answer.sighting.started);
        let has_changed = before.is_some_and(|before| before.is_in_recovery != answer.sighting.is_in_recovery);
        if is_other || has_changed {
            known.fitness.begin_anew();
            known.trend = Trend::default();
        }
        let started = answer.sighting.started;
        let sessions = match known.sessions {
            // One session leads to one server, unless a pooler is between.
            Sessions::Same | Sessions::Doubted(_) if is_other && !is_new_session => Sessions::Several(now),
            // An older session knows nothing of where new ones lead.
            Sessions::Doubted(dialed) if is_new_session && dialed != started => Sessions::Several(now),
            Sessions::Doubted(_) if is_new_session => Sessions::Same,
            Sessions::Same if known.dialed.is_some_and(|dialed| dialed != started) => {
                outcome.flush = true;
                Sessions::Same
            }
            // Perhaps the name leads to one server by now. All connections are made anew and compared.
            Sessions::Several(since) if now.saturating_duration_since(since) >= BALANCES => {
                outcome.flush = true;
                Sessions::Same
            }
            sessions => sessions,
        };
        let is_several = |sessions| matches!(sessions, Sessions::Several(_));
        if is_several(sessions) && !is_several(known.sessions) {
            outcome.events.push(EventKind::HostBalances { host: known.label.to_string() });
        }
        outcome.flush |= is_other && !is_several(sessions);
        (known.sessions, known.dialed) = (sessions, None);
        (known.answer, known.heard, known.has_outcome) = (Some(answer), now, true);
        self.decide(now);
        self.note_position(host, asked);
        if answer.sighting.is_in_recovery {
            let lag = self.lag(now, host);
            // The first answer of the primary, and that of a new one, cannot bound anything yet.
            let is_known = lag.is_some() || self.ring.age(now).is_some_and(|memory| memory >= SUSPECT);
            // A silent primary makes the bound of all replicas grow, and says nothing about them.
            let is_recent = self.ring.asked().is_some_and(|asked| now.saturating_duration_since(asked) <= RECENT);
            self.hosts[host].fitness.on_answer(now);
            if is_known && is_recent {
                self.hosts[host].fitness.on_sample(now, lag);
            }
        }
        self.look(now, &mut outcome.events);
        outcome
    }

    /// The hosts are asked from now on.
    pub(super) fn on_start(&mut self, now: Instant) {
        self.hosts.iter_mut().for_each(|host| host.heard = now);
    }

    /// A host gave no answer. How far its replay is, is no longer known: after a crash it goes on from an earlier place.
    pub(super) fn on_failure(&mut self, now: Instant, host: usize, reason: String) -> Outcome {
        let known = &mut self.hosts[host];
        (known.reason, known.has_outcome) = (reason, true);
        if let Some(answer) = &mut known.answer {
            answer.place = None;
        }
        let mut outcome = Outcome::default();
        self.decide(now);
        self.look(now, &mut outcome.events);
        outcome
    }

    /// A connection of the pool was made, to a server that was started at this time. Returns whether the scout has to
    /// look whether it is the same.
    pub(super) fn on_dialed(&mut self, host: usize, started: i64) -> bool {
        let known = &mut self.hosts[host];
        let Some(answer) = known.answer else {
            known.dialed = Some(started);
            return false;
        };
        match known.sessions {
            _ if answer.sighting.started == started => false,
            Sessions::Several(_) => false,
            Sessions::Same | Sessions::Doubted(_) => {
                known.sessions = Sessions::Doubted(started);
                true
            }
        }
    }

    fn decide(&mut self, now: Instant) {
        let sightings: Vec<_> = self.hosts.iter().map(|host| host.answer.map(|answer| answer.sighting)).collect();
        self.verdict = self.topology.decide(now, &sightings);
    }

    /// Records where the primary writes, for the lag of the replicas.
    fn note_position(&mut self, host: usize, asked: Instant) {
        let Verdict::Primary { host: primary, timeline } = self.verdict else { return };
        let Some(Answer { sighting, place: Some(place) }) = self.hosts[host].answer else { return };
        if primary == host && !sighting.is_in_recovery {
            let history = History { system: sighting.system.unwrap_or(0), timeline };
            if self.ring.history().is_some_and(|before| before != history) {
                self.hosts.iter_mut().for_each(|host| host.fitness.forget_samples());
            }
            self.ring.record(history, asked, place);
            self.hosts[host].position = Some(Position::new(sighting.system, timeline, place));
        }
    }

    /// How far the replay of a replica is, if its log is that of the primary.
    fn replayed(&self, host: usize) -> Option<Lsn> {
        let Answer { sighting, place } = self.hosts[host].answer?;
        let history = History { system: sighting.system.unwrap_or(0), timeline: sighting.timeline? };
        if sighting.is_in_recovery && self.ring.history() == Some(history) { place } else { None }
    }

    /// How old what a replica shows is, at most.
    fn lag(&self, now: Instant, host: usize) -> Option<Duration> {
        self.ring.lag(now, self.replayed(host)?)
    }

    /// The hosts that have what a read needs, without those that are excluded.
    pub(super) fn candidates(&self, now: Instant, need: Need, excluded: &[usize]) -> Candidates {
        let mut candidates = Candidates::default();
        for (host, known) in self.hosts.iter().enumerate() {
            if known.answer.is_none_or(|answer| !answer.sighting.is_in_recovery) {
                continue;
            }
            let lag = self.lag(now, host).filter(|_| known.sessions == Sessions::Same && !known.fitness.is_silent(now));
            if lag.is_some_and(|lag| candidates.nearest.is_none_or(|nearest| lag < nearest)) {
                candidates.nearest = lag;
            }
            if !excluded.contains(&host) && self.has(now, host, need) {
                candidates.replicas.push((host, known.fitness.share(now)));
            }
        }
        candidates
    }

    /// Returns whether a replica has what a read needs, at this moment.
    pub(super) fn has(&self, now: Instant, host: usize, need: Need) -> bool {
        let known = &self.hosts[host];
        let Some(answer) = known.answer else { return false };
        if known.fitness.is_silent(now) || !self.topology.is_ours(&answer.sighting) {
            return false;
        }
        if need == Need::Any {
            // Whatever its timeline: a replica that cannot follow to the present one falls behind its numbers, too.
            return answer.place.is_none_or(|place| self.ring.behind(place.rounded()) <= FURTHEST);
        }
        let is_one_server = known.sessions == Sessions::Same;
        let Some(replayed) = self.replayed(host).filter(|_| is_one_server) else { return false };
        match need {
            Need::Any => true,
            Need::Within(bound) => {
                self.ring.lag(now, replayed).is_some_and(|lag| lag <= bound) && known.fitness.is_fit(bound)
            }
            Need::Since(instant) => self.ring.shown_since(replayed).is_some_and(|shown| shown >= instant),
            Need::Position(position) => {
                let is_reached = |history: History| match position.timeline.cmp(&history.timeline) {
                    Ordering::Equal => position.lsn <= replayed,
                    // What an earlier timeline has left to this one lies before the switch. The rest of it is lost,
                    // on the primary as well.
                    Ordering::Less => self.ring.has_begun(replayed),
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

    /// Returns whether this host has answered that it is a replica.
    pub(super) fn is_replica(&self, host: usize) -> bool {
        self.hosts[host].answer.is_some_and(|answer| answer.sighting.is_in_recovery)
    }

    /// Returns whether this host has not answered for long.
    pub(super) fn is_silent(&self, now: Instant, host: usize) -> bool {
        now.saturating_duration_since(self.hosts[host].heard) >= SUSPECT
    }

    pub(super) fn report(&self, now: Instant, host: usize) -> Report {
        let known = &self.hosts[host];
        Report {
            sighting: known.answer.map(|answer| answer.sighting),
            is_primary: self.is_primary(host),
            is_silent: now.saturating_duration_since(known.heard) >= SUSPECT,
            is_balanced: matches!(known.sessions, Sessions::Several(_)),
            lag: self.lag(now, host),
        }
    }

    /// Finds what an operator should know.
    fn look(&mut self, now: Instant, events: &mut Vec<EventKind>) {
        self.look_for_primary(now, events);
        for host in 0..self.hosts.len() {
            self.look_for_silence(now, host, events);
            self.look_for_lag(now, host, events);
        }
    }

    fn look_for_primary(&mut self, now: Instant, events: &mut Vec<EventKind>) {
        let sign = |is_so| if is_so { Sign::Yes } else { Sign::No };
        // A silent primary remains the verdict until another one takes over.
        let is_missing = match self.verdict {
            Verdict::NoPrimary => true,
            Verdict::Primary { host, .. } => now.saturating_duration_since(self.hosts[host].heard) >= SUSPECT,
            Verdict::TwoPrimaries(..) => false,
        };
        let missing = self.missing.look(now, sign(is_missing));
        let two = self.two.look(now, sign(matches!(self.verdict, Verdict::TwoPrimaries(..))));
        if let Some(DueReport::Lasts(lasting)) = missing {
            events.push(EventKind::PrimaryMissing { lasting });
        }
        match self.verdict {
            Verdict::NoPrimary => {}
            Verdict::TwoPrimaries(one, other) => {
                if let Some(DueReport::Lasts(lasting)) = two {
                    let hosts = [one, other].map(|host| self.label(host).to_string());
                    events.push(EventKind::TwoPrimaries { hosts, lasting });
                }
            }
            Verdict::Primary { host, .. } => {
                for due in [missing, two] {
                    if let Some(DueReport::Ended(lasted)) = due {
                        events.push(EventKind::PrimaryFound { host: self.label(host).to_string(), lasted });
                    }
                }
                self.announce(host, events);
            }
        }
    }

    /// Reports another primary, once.
    fn announce(&mut self, host: usize, events: &mut Vec<EventKind>) {
        let Some(Answer { sighting, .. }) = self.hosts[host].answer else { return };
        let Some((before, was)) = self.announced.replace((host, sighting)) else { return };
        // One server under two names is no change, and neither is a restart.
        let is_another = before != host && was.started != sighting.started;
        if is_another || was.timeline != sighting.timeline {
            let (from, to) = (Some(self.label(before).to_string()), Some(self.label(host).to_string()));
            let (last, first) = (self.hosts[before].position, self.hosts[host].position);
            events.push(EventKind::PrimaryChanged { from, to, last: last.filter(|_| before != host), first });
        }
    }

    fn look_for_silence(&mut self, now: Instant, host: usize, events: &mut Vec<EventKind>) {
        let known = &mut self.hosts[host];
        let host = known.label.to_string();
        let is_silent = now.saturating_duration_since(known.heard) >= SUSPECT;
        match known.silent.look(now, if is_silent { Sign::Yes } else { Sign::No }) {
            Some(DueReport::Lasts(lasting)) => {
                events.push(EventKind::HostSilent { host, reason: known.reason.clone(), lasting });
            }
            Some(DueReport::Ended(lasted)) => events.push(EventKind::HostAnswers { host, lasted }),
            None => {}
        }
    }

    fn look_for_lag(&mut self, now: Instant, host: usize, events: &mut Vec<EventKind>) {
        let known = &self.hosts[host];
        // After a failed look the place is unknown.
        let is_replica = known.answer.is_some_and(|answer| answer.sighting.is_in_recovery && answer.place.is_some());
        let is_silent = now.saturating_duration_since(known.heard) >= SUSPECT;
        // Without a primary the lag of all replicas grows, and says nothing about them.
        if !is_replica || is_silent || !matches!(self.verdict, Verdict::Primary { .. }) {
            return;
        }
        let lag = self.lag(now, host);
        // While the memory is short, a replica that is behind all of it is only known to be that far behind.
        let memory = self.ring.age(now).filter(|memory| *memory < CRITICAL);
        let known = &mut self.hosts[host];
        let host = known.label.to_string();
        let matters = known.trend.look(now, lag.or(memory)) > Lag::Calm;
        match known.lags.look(now, if matters { Sign::Yes } else { Sign::No }) {
            Some(DueReport::Lasts(lasting)) => events.push(EventKind::ReplicaLags { host, lag, lasting }),
            Some(DueReport::Ended(lasted)) => events.push(EventKind::ReplicaCaughtUp { host, lasted }),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;

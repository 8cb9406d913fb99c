//! What an operator should know of a cluster: which events follow from an answer.

use std::time::{Duration, Instant};

use super::{Answer, Report, State};
use crate::event::EventKind;
use crate::policy::{DueReport, Lag, Primacy, Sign};

/// A replica may be behind everything that is remembered. It is reported once the memory is this long.
const CRITICAL: Duration = Duration::from_secs(45);

impl State {
    /// Returns what is known of a host, for the owner.
    pub(in crate::cluster) fn report(&self, now: Instant, host: usize) -> Report {
        let known = &self.hosts[host];
        Report {
            sighting: known.answer.map(|answer| answer.sighting),
            is_primary: self.is_primary(host),
            is_silent: self.is_silent(now, host),
            is_balanced: known.sessions.is_several(),
            lag: self.lag(now, host),
        }
    }

    /// Finds what an operator should know.
    pub(super) fn look(&mut self, now: Instant, events: &mut Vec<EventKind>) {
        self.look_for_primary(now, events);
        for host in 0..self.hosts.len() {
            self.look_for_silence(now, host, events);
            self.look_for_lag(now, host, events);
        }
    }

    fn look_for_primary(&mut self, now: Instant, events: &mut Vec<EventKind>) {
        let sign = |is_so| if is_so { Sign::Yes } else { Sign::No };
        // A silent primary remains the primary until another one takes over.
        let is_missing = match self.primacy {
            Primacy::NoPrimary | Primacy::TwoSystems(..) => true,
            Primacy::Primary { host, .. } => self.is_silent(now, host),
            Primacy::TwoPrimaries(..) => false,
        };
        let missing = self.missing.look(now, sign(is_missing));
        let two = self.two.look(now, sign(matches!(self.primacy, Primacy::TwoPrimaries(..))));
        if let Some(DueReport::Lasts(lasting)) = missing {
            events.push(match self.systems() {
                Some(systems) => {
                    EventKind::TwoSystems { systems: systems.map(|(host, id)| (host.to_string(), id)), lasting }
                }
                None => EventKind::PrimaryMissing { lasting },
            });
        }
        match self.primacy {
            Primacy::NoPrimary | Primacy::TwoSystems(..) => {}
            Primacy::TwoPrimaries(one, other) => {
                if let Some(DueReport::Lasts(lasting)) = two {
                    let hosts = [one, other].map(|host| self.label(host).to_string());
                    events.push(EventKind::TwoPrimaries { hosts, lasting });
                }
            }
            Primacy::Primary { host, .. } => {
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
        let is_silent = self.is_silent(now, host);
        let known = &mut self.hosts[host];
        let host = known.label.to_string();
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
        let is_silent = self.is_silent(now, host);
        // Without a primary the lag of all replicas grows, and says nothing about them.
        if !is_replica || is_silent || !matches!(self.primacy, Primacy::Primary { .. }) {
            return;
        }
        let lag = self.lag(now, host);
        // A replica behind everything that is remembered is at least that far behind. While the memory is short, use
        // that.
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

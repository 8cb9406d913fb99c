//! Where the primary writes in the log, and how far the replicas have replayed the same log.

use std::time::{Duration, Instant};

use super::{Answer, State};
use crate::policy::{History, Lsn, Position, Primacy};

impl State {
    /// Records where the primary writes, for the lag of the replicas. Another host's answer may have made it the
    /// primary.
    pub(super) fn note_position(&mut self) {
        let Primacy::Primary { host, timeline } = self.primacy else { return };
        let Some(Answer { sighting, place: Some(place) }) = self.hosts[host].answer else { return };
        let history = History { system: sighting.system.unwrap_or(0), timeline };
        if self.ring.history().is_some_and(|before| before != history) {
            for host in &mut self.hosts {
                host.fitness.forget_samples();
                host.forked = None;
            }
        }
        let asked = self.hosts[host].asked;
        self.ring.record(history, asked, place);
        if self.is_one_server(host) {
            self.find_forks(host, asked, place);
        }
        self.hosts[host].position = Some(Position::new(sighting.system, timeline, place));
    }

    /// Two servers that are promoted without knowing of each other begin timelines with the same number. A replica that
    /// was further than the primary is now has the log of the other one: nobody replays what was not written yet.
    fn find_forks(&mut self, primary: usize, asked: Instant, inserted: Lsn) {
        for host in 0..self.hosts.len() {
            if self.hosts[host].heard < asked && self.replayed(host).is_some_and(|replayed| replayed > inserted) {
                let replica = self.hosts[host].answer.map(|answer| answer.sighting.started);
                self.hosts[host].forked = replica.map(|started| (started, primary));
            }
        }
    }

    /// How far a replica has replayed the log, if it is the log of the primary.
    pub(super) fn replayed(&self, host: usize) -> Option<Lsn> {
        let Answer { sighting, place } = self.hosts[host].answer?;
        let history = History { system: sighting.system.unwrap_or(0), timeline: sighting.timeline? };
        let is_of = |primary: usize| !matches!(self.primacy, Primacy::Primary { host, .. } if host != primary);
        let is_forked = self.hosts[host].forked.is_some_and(|(of, primary)| of == sighting.started && is_of(primary));
        if sighting.is_in_recovery && !is_forked && self.ring.history() == Some(history) { place } else { None }
    }

    /// The upper bound of a replica's lag.
    pub(super) fn lag(&self, now: Instant, host: usize) -> Option<Duration> {
        self.ring.lag(now, self.replayed(host)?)
    }
}

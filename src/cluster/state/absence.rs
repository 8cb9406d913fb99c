//! Why no host of a cluster is the primary, in words: for the error of a call.

use std::sync::Arc;
use std::time::Instant;

use super::{Known, State};
use crate::policy::Primacy;

impl State {
    /// Two hosts with the identifiers of their systems, while nobody knows which of the systems is ours.
    pub(in crate::cluster) fn systems(&self) -> Option<[(Arc<str>, u64); 2]> {
        let Primacy::TwoSystems(one, other) = self.primacy else { return None };
        let system = |host: usize| self.hosts[host].answer.and_then(|answer| answer.sighting.system).unwrap_or(0);
        Some([one, other].map(|host| (Arc::clone(self.label(host)), system(host))))
    }

    /// Says why no host is the primary: what is known of each of them.
    pub(in crate::cluster) fn why_no_primary(&mut self, now: Instant) -> Arc<str> {
        if let Some(words) = &self.in_words {
            return Arc::clone(words);
        }
        let hosts: Vec<_> = (0..self.hosts.len()).map(|host| self.words(now, host)).collect();
        let words = Arc::from(hosts.join("; "));
        self.in_words = Some(Arc::clone(&words));
        words
    }

    fn words(&self, now: Instant, host: usize) -> String {
        let Known { label, answer, failed, reason, .. } = &self.hosts[host];
        // A failed dial names the host.
        let reason = reason.strip_prefix(&**label).map_or(reason.as_str(), |reason| reason.trim_start_matches(": "));
        match answer {
            None if failed.is_none() => format!("{label} has not answered yet"),
            None => format!("{label}: {reason}"),
            Some(_) if self.is_silent(now, host) => format!("{label} is silent: {reason}"),
            Some(answer) if answer.sighting.is_in_recovery => format!("{label} is a replica"),
            Some(answer) if !self.topology.is_ours(&answer.sighting) => format!("{label} is of another system"),
            Some(answer) => format!("{label} accepts writes on timeline {}", answer.sighting.timeline.unwrap_or(0)),
        }
    }
}

//! What the server's processes wait for while callers hold their connections.
//!
//! The last few samples, a second apart, as `pg_stat_activity` shows them. One category has to have most of the
//! sightings, otherwise there is no answer.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::operation::Operation;

/// So many samples give an answer.
const SAMPLES: usize = 5;
/// An older sample says nothing about now.
const RECENT: Duration = Duration::from_secs(10);
/// A category has to have more than this share of the sightings.
const MOST: f64 = 0.5;
/// An operation that was seen less often is not judged.
const SIGHTINGS: usize = 3;

/// What one process waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Wait {
    /// A lock of the database: of a row, a table, or an advisory one.
    Lock,
    /// The client: no statement runs, or its next data have not come.
    Client,
    /// Nothing (it computes), IO, or one of the server's internal locks: it is busy.
    Server,
    /// Something that says nothing about load: a sleep, a synchronous standby.
    Other,
}

impl Wait {
    /// Reads the columns `state` and `wait_event_type` of `pg_stat_activity`. `None` if the role may not see them.
    pub(crate) fn of(state: &str, wait_event_type: &str) -> Option<Self> {
        if state.is_empty() {
            return None;
        }
        Some(match wait_event_type {
            "Lock" => Self::Lock,
            "Client" => Self::Client,
            // A process that does not wait for its client is not idle.
            "" | "IO" | "LWLock" | "BufferPin" | "Buffer" => Self::Server,
            _ => Self::Other,
        })
    }
}

#[derive(Debug, Default)]
pub(super) struct Waits {
    samples: VecDeque<(Instant, Vec<(Operation, Wait)>)>,
}

impl Waits {
    /// Adds a sample: the operation of each lease, and what its process waits for.
    pub(super) fn push(&mut self, now: Instant, sample: Vec<(Operation, Wait)>) {
        if self.samples.len() >= SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, sample));
    }

    pub(super) fn forget(&mut self) {
        self.samples.clear();
    }

    fn recent(&self, now: Instant) -> Option<impl Iterator<Item = &(Operation, Wait)>> {
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) <= RECENT;
        let is_known = self.samples.len() >= SAMPLES && self.samples.iter().all(|(at, _)| is_recent(at));
        is_known.then(|| self.samples.iter().flat_map(|(_, sample)| sample))
    }

    /// What most processes wait for, without those of operations that are left out. `None` if there is no majority, or
    /// too few recent samples.
    pub(super) fn cause(&self, now: Instant, is_left_out: impl Fn(Operation) -> bool) -> Option<Wait> {
        let (mut counts, mut all) = (HashMap::new(), 0.0);
        for (_, wait) in self.recent(now)?.filter(|(operation, _)| !is_left_out(*operation)) {
            *counts.entry(*wait).or_insert(0.0) += 1.0;
            all += 1.0;
        }
        counts.into_iter().find(|(_, count)| *count > all * MOST).map(|(wait, _)| wait)
    }

    /// The operations of which most processes wait for locks, those with most sightings first.
    pub(super) fn waiting_for_locks(&self, now: Instant) -> Vec<Operation> {
        let mut counts: HashMap<Operation, (usize, usize)> = HashMap::new();
        for (operation, wait) in self.recent(now).into_iter().flatten() {
            let (locks, all) = counts.entry(*operation).or_default();
            *locks += usize::from(*wait == Wait::Lock);
            *all += 1;
        }
        let is_bound = |locks: usize, all: usize| all >= SIGHTINGS && locks as f64 > all as f64 * MOST;
        let bound = counts.into_iter().filter(|(_, (locks, all))| is_bound(*locks, *all));
        let mut bound: Vec<_> = bound.map(|(operation, (locks, _))| (locks, operation)).collect();
        bound.sort_by_cached_key(|(locks, operation)| (usize::MAX - locks, operation.to_string()));
        bound.into_iter().map(|(_, operation)| operation).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPDATE: Operation = Operation::Named("update");
    const READ: Operation = Operation::Named("read");

    fn waits(sample: &[(Operation, Wait)], count: u32) -> (Waits, Instant) {
        let (mut waits, begun) = (Waits::default(), Instant::now());
        (0..count).for_each(|n| waits.push(begun + n * Duration::from_secs(1), sample.to_vec()));
        (waits, begun + Duration::from_secs(5))
    }

    #[test]
    fn five_recent_samples_give_an_answer() {
        let sample = [(UPDATE, Wait::Lock), (READ, Wait::Lock), (READ, Wait::Client)];
        let cause = |count| {
            let (waits, now) = waits(&sample, count);
            waits.cause(now, |_| false)
        };
        assert_eq!((cause(4), cause(5)), (None, Some(Wait::Lock)));
        let (waits, now) = waits(&sample, 5);
        assert_eq!(waits.cause(now + RECENT, |_| false), None, "too old");
        assert_eq!(waits.cause(now, |operation| operation == UPDATE), None, "no majority without it");
        assert_eq!(waits.waiting_for_locks(now), [UPDATE]);
    }

    #[test]
    fn the_columns_are_read_by_what_they_say_of_load() {
        for (state, event, wait) in [
            ("active", "Lock", Some(Wait::Lock)),
            ("active", "", Some(Wait::Server)),
            ("active", "IO", Some(Wait::Server)),
            ("active", "LWLock", Some(Wait::Server)),
            ("idle in transaction", "Client", Some(Wait::Client)),
            ("idle", "Client", Some(Wait::Client)),
            ("active", "Client", Some(Wait::Client)),
            ("active", "Timeout", Some(Wait::Other)),
            ("active", "IPC", Some(Wait::Other)),
            ("", "", None),
        ] {
            assert_eq!(Wait::of(state, event), wait, "{state} {event}");
        }
    }
}

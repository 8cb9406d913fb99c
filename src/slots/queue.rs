//! The waiters of one lane, in order of arrival.
//!
//! Most waiters are served from the front. A waiter that gives up may leave from anywhere. Its entry becomes empty at
//! once and no longer counts. The queue removes the empty entries when they outnumber the others. Every operation is
//! O(log n) or cheaper, amortized. The memory stays in proportion to the number of waiters, and shrinks after a crowd.

use std::collections::VecDeque;
use std::time::Instant;

use crate::policy::{Deadline, Lane, WaitPolicy};

/// So many empty entries may always remain, so that a short queue needs no sweep.
const TOLERATED: usize = 32;

/// Identifies one stay in a queue, and its place. No two stays in a pool have the same number. The lane is in the
/// lowest two bits, so that ids are compared by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WaiterId(u64);

impl WaiterId {
    fn new(number: u64, lane: Lane) -> Self {
        Self(number << 2 | lane as u64)
    }

    #[inline]
    pub(crate) fn lane(self) -> Lane {
        match self.0 & 3 {
            0 => Lane::Critical,
            1 => Lane::Normal,
            _ => Lane::Background,
        }
    }

    fn number(self) -> u64 {
        self.0 >> 2
    }
}

#[derive(Debug)]
struct Entry<W> {
    id: WaiterId,
    wait_policy: WaitPolicy,
    waiter: Option<W>,
}

#[derive(Debug)]
pub(crate) struct Queue<W> {
    /// In ascending order of ids. The first entry is never empty.
    entries: VecDeque<Entry<W>>,
    live: usize,
}

impl<W> Queue<W> {
    pub(crate) fn new() -> Self {
        Self { entries: VecDeque::new(), live: 0 }
    }

    /// The number of waiters. Those that have left do not count.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// The number of the first waiter.
    pub(crate) fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.id.number())
    }

    /// Adds a waiter. Its number must be larger than those of all waiters before it.
    pub(crate) fn push(&mut self, number: u64, waiter: W, wait_policy: WaitPolicy) -> WaiterId {
        let id = WaiterId::new(number, wait_policy.lane);
        self.live += 1;
        self.entries.push_back(Entry { id, wait_policy, waiter: Some(waiter) });
        id
    }

    /// An upper bound of a newcomer's wait, in seconds. At the deadline of some waiter all waiters in front of it are
    /// gone. Those behind it are served, one each `gap` seconds. The method tries a few waiters, most of them near the
    /// end.
    pub(crate) fn wait_behind_leavers(&self, now: Instant, gap: f64) -> f64 {
        let (mut behind, mut least) = (0, f64::INFINITY);
        while behind < self.entries.len() {
            let deadline = self.entries[self.entries.len() - 1 - behind].wait_policy.deadline;
            least = least.min(deadline.left(now).as_secs_f64() + gap * behind as f64);
            behind = 2 * behind + 1;
        }
        least
    }

    /// The deadline of the waiter behind so many others. Entries of leavers count, so this is approximate.
    pub(crate) fn deadline_behind(&self, others: usize) -> Option<Deadline> {
        self.entries.get(others).map(|entry| entry.wait_policy.deadline)
    }

    /// The deadline of the first of the last so many waiters. Entries of leavers count, so this is approximate.
    pub(crate) fn deadline_of_last(&self, waiters: usize) -> Option<Deadline> {
        let first = self.entries.len().checked_sub(waiters)?;
        self.entries.get(first).map(|entry| entry.wait_policy.deadline)
    }

    /// Puts a waiter that was popped back into its old place.
    pub(crate) fn put_back(&mut self, id: WaiterId, waiter: W, wait_policy: WaitPolicy) {
        let index = self.entries.partition_point(|entry| entry.id < id);
        self.live += 1;
        self.entries.insert(index, Entry { id, wait_policy, waiter: Some(waiter) });
    }

    /// Removes the waiter that has waited longest.
    pub(crate) fn pop(&mut self) -> Option<(WaiterId, W, WaitPolicy)> {
        let entry = self.entries.pop_front()?;
        self.live -= 1;
        self.tidy();
        entry.waiter.map(|waiter| (entry.id, waiter, entry.wait_policy))
    }

    /// The deadline of a waiter that is still in the queue.
    pub(crate) fn deadline_of(&self, id: WaiterId) -> Option<Deadline> {
        let entry = self.entries.get(self.find(id)?)?;
        entry.waiter.is_some().then_some(entry.wait_policy.deadline)
    }

    /// Removes a waiter that gives up. Returns `None` if it is no longer in the queue.
    pub(crate) fn remove(&mut self, id: WaiterId) -> Option<W> {
        let index = self.find(id)?;
        let waiter = self.entries[index].waiter.take()?;
        self.live -= 1;
        self.tidy();
        Some(waiter)
    }

    /// Removes all waiters, in order.
    pub(crate) fn drain(&mut self) -> Vec<(WaiterId, W)> {
        self.live = 0;
        let entries = std::mem::take(&mut self.entries);
        entries.into_iter().filter_map(|entry| Some((entry.id, entry.waiter?))).collect()
    }

    fn find(&self, id: WaiterId) -> Option<usize> {
        // Ids ascend by at least one. So the entry is exactly here if no sweep has removed others and no number in
        // between went to another lane, and otherwise before it.
        let beyond = id.number().checked_sub(self.entries.front()?.id.number())?;
        let last = usize::try_from(beyond).unwrap_or(usize::MAX).min(self.entries.len() - 1);
        if self.entries[last].id == id {
            return Some(last);
        }
        self.entries.binary_search_by_key(&id, |entry| entry.id).ok()
    }

    fn tidy(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.waiter.is_none()) {
            self.entries.pop_front();
        }
        if self.entries.len() > 2 * self.live + TOLERATED {
            self.entries.retain(|entry| entry.waiter.is_some());
        }
        if self.entries.capacity() > 4 * (self.entries.len() + TOLERATED) {
            self.entries.shrink_to(2 * (self.entries.len() + TOLERATED));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::Shedding;

    fn wait_policy() -> WaitPolicy {
        let deadline = Deadline::after(Instant::now(), Duration::from_secs(1));
        WaitPolicy { deadline, includes_work: false, shedding: Shedding::Off, lane: Lane::Normal }
    }

    #[test]
    fn a_leaver_leaves_the_count_at_once_and_the_others_keep_their_order() {
        let mut queue = Queue::new();
        let ids: Vec<_> = (0..).zip('a'..='e').map(|(n, c)| queue.push(n, c, wait_policy())).collect();
        assert_eq!(queue.remove(ids[0]), Some('a'));
        assert_eq!(queue.remove(ids[2]), Some('c'));
        assert_eq!(queue.remove(ids[2]), None);
        assert_eq!(queue.len(), 3);
        assert_eq!(queue.pop().map(|(id, c, _)| (id, c)), Some((ids[1], 'b')));
        assert_eq!(queue.remove(ids[1]), None);
        assert_eq!(queue.drain(), [(ids[3], 'd'), (ids[4], 'e')]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn leavers_behind_a_patient_waiter_take_no_memory() {
        let mut queue = Queue::new();
        queue.push(0, 0, wait_policy());
        for n in 1..10_000 {
            let id = queue.push(n, n, wait_policy());
            queue.remove(id);
        }
        assert_eq!(queue.len(), 1);
        assert!(queue.entries.len() <= 2 + TOLERATED);
    }

    #[test]
    fn the_memory_of_a_crowd_is_given_back() {
        for leave in [true, false] {
            let mut queue = Queue::new();
            for round in 0..2 {
                let numbers = (0..100_000).map(|n| n + 100_000 * round);
                let ids: Vec<_> = numbers.map(|n| queue.push(n, n, wait_policy())).collect();
                if leave {
                    ids.iter().rev().for_each(|id| assert!(queue.remove(*id).is_some()));
                } else {
                    while queue.pop().is_some() {}
                }
                assert!(queue.entries.capacity() <= 8 * TOLERATED, "{}", queue.entries.capacity());
            }
        }
        let mut queue = Queue::new();
        (0..100_000).for_each(|n| _ = queue.push(n, n, wait_policy()));
        assert_eq!(queue.drain().len(), 100_000);
        assert!(queue.entries.capacity() <= 8 * TOLERATED);
    }

    proptest! {
        /// Against a plain vector: what pops, what leaves and how many are left never differ.
        #[test]
        fn behaves_like_a_plain_list(steps in prop::collection::vec((0u8..4, any::<prop::sample::Index>()), 0..400), gap in 1u64..4) {
            let mut queue = Queue::new();
            let mut model: Vec<(WaiterId, usize)> = Vec::new();
            let mut ids = Vec::new();
            let mut popped: Vec<(WaiterId, usize)> = Vec::new();
            for (n, (step, index)) in steps.into_iter().enumerate() {
                match step {
                    0 => {
                        let id = queue.push(gap * n as u64, n, wait_policy());
                        ids.push(id);
                        model.push((id, n));
                    }
                    1 => {
                        let expected = (!model.is_empty()).then(|| model.remove(0));
                        popped.extend(expected);
                        prop_assert_eq!(queue.pop().map(|(id, waiter, _)| (id, waiter)), expected);
                    }
                    2 if !popped.is_empty() => {
                        let (id, n) = popped.swap_remove(index.index(popped.len()));
                        queue.put_back(id, n, wait_policy());
                        model.push((id, n));
                        model.sort();
                    }
                    _ if !ids.is_empty() => {
                        let id = *index.get(&ids);
                        let position = model.iter().position(|(other, _)| *other == id);
                        prop_assert_eq!(queue.deadline_of(id).is_some(), position.is_some());
                        prop_assert_eq!(queue.remove(id), position.map(|at| model.remove(at).1));
                    }
                    _ => {}
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert!(queue.entries.len() <= 2 * queue.len() + TOLERATED);
            }
        }
    }
}

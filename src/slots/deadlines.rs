//! The deadlines of waiters, the earliest first.
//!
//! Most callers wait for equally long, so most deadlines come in ascending order and make a list. The others are in a
//! heap. Most waiters leave long before their deadline. Their entries stay until their turn comes, or until they
//! outnumber the others. Every operation is O(log n) or cheaper, amortized. The memory stays in proportion to the
//! number of waiters.
//!
//! The queue knows each waiter's deadline: `deadline_of` returns it, or `None` if the waiter has gone.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

use super::queue::WaiterId;
use crate::policy::Deadline;

/// So many entries of waiters that have gone may always remain.
const TOLERATED: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    ascending: VecDeque<WaiterId>,
    /// The last entry of `ascending`.
    latest: Option<(Deadline, WaiterId)>,
    others: BinaryHeap<Reverse<(Deadline, WaiterId)>>,
}

impl Deadlines {
    pub(super) fn push(&mut self, deadline: Deadline, id: WaiterId) {
        let entry = (deadline, id);
        if self.latest.is_none_or(|latest| latest < entry) {
            self.ascending.push_back(id);
            self.latest = Some(entry);
        } else {
            self.others.push(Reverse(entry));
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.ascending.capacity() + self.others.capacity()
    }

    fn len(&self) -> usize {
        self.ascending.len() + self.others.len()
    }

    /// Removes a waiter whose time is up.
    pub(super) fn pop(&mut self, now: Instant, deadline_of: impl Fn(WaiterId) -> Option<Deadline>) -> Option<WaiterId> {
        let (_, id) = self.earliest(deadline_of).filter(|(deadline, _)| deadline.has_passed(now))?;
        if self.ascending.front() == Some(&id) {
            self.ascending.pop_front();
        } else {
            self.others.pop();
        }
        Some(id)
    }

    /// The earliest deadline of a waiter.
    pub(super) fn first(&mut self, deadline_of: impl Fn(WaiterId) -> Option<Deadline>) -> Option<Deadline> {
        self.earliest(deadline_of).map(|(deadline, _)| deadline)
    }

    /// To be called when waiters have come or gone. `waiting` is the length of the queue.
    pub(super) fn tidy(&mut self, waiting: usize, deadline_of: impl Fn(WaiterId) -> Option<Deadline>) {
        self.first_ascending(&deadline_of);
        if self.len() > 2 * waiting + TOLERATED {
            self.ascending.retain(|id| deadline_of(*id).is_some());
            let mut others = std::mem::take(&mut self.others).into_vec();
            others.retain(|Reverse((_, id))| deadline_of(*id).is_some());
            // A waiter that entered again may be here twice.
            others.sort_unstable();
            others.dedup();
            others.shrink_to(2 * (others.len() + TOLERATED));
            self.others = others.into();
        }
        if self.ascending.capacity() > 4 * (self.ascending.len() + TOLERATED) {
            self.ascending.shrink_to(2 * (self.ascending.len() + TOLERATED));
        }
    }

    fn earliest(&mut self, deadline_of: impl Fn(WaiterId) -> Option<Deadline>) -> Option<(Deadline, WaiterId)> {
        while self.others.peek().is_some_and(|Reverse((_, id))| deadline_of(*id).is_none()) {
            self.others.pop();
        }
        let other = self.others.peek().map(|Reverse(entry)| *entry);
        self.first_ascending(&deadline_of).into_iter().chain(other).min()
    }

    /// The first entry of `ascending` whose waiter is still there. Removes the entries before it.
    fn first_ascending(&mut self, deadline_of: &impl Fn(WaiterId) -> Option<Deadline>) -> Option<(Deadline, WaiterId)> {
        while let Some(id) = self.ascending.front() {
            if let Some(deadline) = deadline_of(*id) {
                return Some((deadline, *id));
            }
            self.ascending.pop_front();
        }
        self.latest = None;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::queue::Queue;
    use super::*;
    use crate::policy::{Lane, Shedding, WaitPolicy};

    fn wait_policy(deadline: Deadline) -> WaitPolicy {
        WaitPolicy { deadline, includes_work: false, shedding: Shedding::Off, lane: Lane::Normal }
    }

    #[test]
    fn the_memory_of_a_crowd_is_given_back() {
        let begun = Instant::now();
        let (mut queue, mut deadlines) = (Queue::new(), Deadlines::default());
        for millis in 0..100_000 {
            let deadline = Deadline::after(begun, Duration::from_millis(millis));
            let id = queue.push(millis, (), wait_policy(deadline));
            deadlines.push(deadline, id);
            deadlines.tidy(queue.len(), |id| queue.deadline_of(id));
        }
        assert_eq!(deadlines.len(), 100_000);
        while queue.pop().is_some() {
            deadlines.tidy(queue.len(), |id| queue.deadline_of(id));
            assert!(deadlines.len() <= 2 * queue.len() + TOLERATED);
        }
        assert!(deadlines.capacity() <= 8 * TOLERATED, "{}", deadlines.capacity());
    }

    #[test]
    fn one_that_enters_again_and_again_takes_the_memory_of_one() {
        let deadline = Deadline::after(Instant::now(), Duration::from_secs(1));
        let (mut queue, mut deadlines) = (Queue::new(), Deadlines::default());
        let id = queue.push(0, (), wait_policy(deadline));
        for _ in 0..10_000 {
            deadlines.push(deadline, id);
            deadlines.tidy(queue.len(), |id| queue.deadline_of(id));
            assert!(deadlines.len() <= 2 + TOLERATED);
        }
    }

    proptest! {
        /// Against a sorted set, from which leavers are removed at once.
        #[test]
        fn answers_each_waiter_when_its_time_is_up(
            steps in prop::collection::vec((0u8..4, 0u64..50, any::<prop::sample::Index>()), 0..400),
        ) {
            let begun = Instant::now();
            let (mut now, mut queue, mut deadlines) = (begun, Queue::new(), Deadlines::default());
            let mut model = BTreeSet::new();
            for (number, (step, millis, index)) in (0..).zip(steps) {
                match step {
                    0 | 1 => {
                        let deadline = Deadline::after(now, Duration::from_millis(millis));
                        let id = queue.push(number, (), wait_policy(deadline));
                        deadlines.push(deadline, id);
                        model.insert((deadline, id));
                    }
                    2 if !model.is_empty() => {
                        let (deadline, id) = *index.get(&model.iter().copied().collect::<Vec<_>>());
                        model.remove(&(deadline, id));
                        queue.remove(id);
                    }
                    _ => {
                        now += Duration::from_millis(millis);
                        while let Some(id) = deadlines.pop(now, |id| queue.deadline_of(id)) {
                            let (deadline, expected) = model.pop_first().expect("a waiter in the model");
                            prop_assert_eq!(id, expected);
                            prop_assert!(deadline.has_passed(now));
                            queue.remove(id);
                        }
                    }
                }
                deadlines.tidy(queue.len(), |id| queue.deadline_of(id));
                let first = deadlines.first(|id| queue.deadline_of(id));
                prop_assert_eq!(first, model.first().map(|(deadline, _)| *deadline));
                prop_assert!(deadlines.len() <= 2 * queue.len() + TOLERATED);
            }
        }
    }
}

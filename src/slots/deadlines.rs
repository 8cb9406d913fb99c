//! Who has to be answered by when, the earliest first.
//!
//! Most waiters are served long before, so their entries are not looked up when they leave: one whose waiter is gone is skipped when its
//! turn comes, and all such are swept out when they outnumber the others. Every operation is O(log n) or cheaper, amortized, and the memory held
//! stays in proportion to the waiters.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::queue::WaiterId;
use crate::policy::Deadline;

/// Entries of those who are gone that are tolerated whatever the number of waiters.
const TOLERATED: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    entries: BinaryHeap<Reverse<(Deadline, WaiterId)>>,
}

impl Deadlines {
    pub(super) fn push(&mut self, deadline: Deadline, id: WaiterId) {
        self.entries.push(Reverse((deadline, id)));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A waiter whose time is up.
    pub(super) fn pop(&mut self, now: Instant, is_waiting: impl Fn(WaiterId) -> bool) -> Option<WaiterId> {
        let deadline = self.first(is_waiting)?;
        if deadline.has_passed(now) { self.entries.pop().map(|Reverse((_, id))| id) } else { None }
    }

    /// The earliest deadline of one who waits.
    pub(super) fn first(&mut self, is_waiting: impl Fn(WaiterId) -> bool) -> Option<Deadline> {
        while let Some(Reverse((deadline, id))) = self.entries.peek() {
            if is_waiting(*id) {
                return Some(*deadline);
            }
            self.entries.pop();
        }
        None
    }

    /// To be asked when waiters have come or gone. Of so many, at most, the deadlines are here.
    pub(super) fn tidy(&mut self, waiting: usize, is_waiting: impl Fn(WaiterId) -> bool) {
        if self.entries.len() <= 2 * waiting + TOLERATED {
            return;
        }
        let mut entries = std::mem::take(&mut self.entries).into_vec();
        entries.retain(|Reverse((_, id))| is_waiting(*id));
        // A waiter that entered again is here twice.
        entries.sort_unstable();
        entries.dedup();
        entries.shrink_to(2 * (entries.len() + TOLERATED));
        self.entries = entries.into();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::queue::Queue;
    use super::*;
    use crate::policy::{Patience, Shedding};

    fn patience(deadline: Deadline) -> Patience {
        Patience { deadline, includes_work: false, shedding: Shedding::Off }
    }

    #[test]
    fn the_memory_of_a_crowd_is_given_back() {
        let begun = Instant::now();
        let (mut queue, mut deadlines) = (Queue::new(), Deadlines::default());
        for millis in 0..100_000 {
            let deadline = Deadline::after(begun, Duration::from_millis(millis));
            let id = queue.push((), patience(deadline));
            deadlines.push(deadline, id);
            deadlines.tidy(queue.len(), |id| queue.contains(id));
        }
        assert_eq!(deadlines.entries.len(), 100_000);
        while queue.pop().is_some() {
            deadlines.tidy(queue.len(), |id| queue.contains(id));
            assert!(deadlines.entries.len() <= 2 * queue.len() + TOLERATED);
        }
        assert!(deadlines.entries.capacity() <= 4 * TOLERATED, "{}", deadlines.entries.capacity());
    }

    #[test]
    fn one_that_enters_again_and_again_takes_the_memory_of_one() {
        let deadline = Deadline::after(Instant::now(), Duration::from_secs(1));
        let (mut queue, mut deadlines) = (Queue::new(), Deadlines::default());
        let id = queue.push((), patience(deadline));
        for _ in 0..10_000 {
            deadlines.push(deadline, id);
            deadlines.tidy(queue.len(), |id| queue.contains(id));
            assert!(deadlines.entries.len() <= 2 + TOLERATED);
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
            for (step, millis, index) in steps {
                match step {
                    0 | 1 => {
                        let deadline = Deadline::after(now, Duration::from_millis(millis));
                        let id = queue.push((), patience(deadline));
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
                        while let Some(id) = deadlines.pop(now, |id| queue.contains(id)) {
                            let (deadline, expected) = model.pop_first().expect("somebody waits");
                            prop_assert_eq!(id, expected);
                            prop_assert!(deadline.has_passed(now));
                            queue.remove(id);
                        }
                    }
                }
                deadlines.tidy(queue.len(), |id| queue.contains(id));
                let first = deadlines.first(|id| queue.contains(id));
                prop_assert_eq!(first, model.first().map(|(deadline, _)| *deadline));
                prop_assert!(deadlines.entries.len() <= 2 * queue.len() + TOLERATED);
            }
        }
    }
}

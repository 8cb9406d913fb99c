//! The last calls that ended: so many of them, however long ago.

use std::collections::VecDeque;

use super::counts::Counts;

/// How one call ended. A byte for each question, since a window may hold thousands.
#[derive(Debug, Clone, Copy)]
struct Call {
    failed: bool,
    unreachable: bool,
    slow: bool,
}

impl Call {
    fn counts(self) -> Counts {
        let Self { failed, unreachable, slow } = self;
        let (failures, unreachable, slow) = (u64::from(failed), u64::from(unreachable), u64::from(slow));
        Counts { completed: 1, failures, unreachable, slow, ..Counts::default() }
    }
}

#[derive(Debug)]
pub(crate) struct CallWindow {
    most: u64,
    /// Oldest first.
    calls: VecDeque<Call>,
    /// Of those calls; and of what is no call that ended, all since the window was empty.
    sum: Counts,
}

impl CallWindow {
    pub(super) fn new(most: u32) -> Self {
        Self { most: most.into(), calls: VecDeque::new(), sum: Counts::default() }
    }

    /// One call, or several of which nobody knows the order: then those that failed or were slow come first, and of more than the window
    /// holds the shares are kept.
    pub(super) fn add(&mut self, counts: Counts) {
        let Counts { fires, completed, failures, unreachable, slow, rejected, busy } = counts;
        self.sum += Counts { fires, rejected, busy, ..Counts::default() };
        let taken = completed.min(self.most);
        let share = |part: u64| if completed > taken { part.min(completed) * taken / completed } else { part };
        let (failures, unreachable, slow) = (share(failures), share(unreachable), share(slow));
        for call in 0..taken {
            self.push(Call { failed: call < failures, unreachable: call < unreachable, slow: call < slow });
        }
    }

    fn push(&mut self, call: Call) {
        if self.calls.len() as u64 == self.most {
            if let Some(oldest) = self.calls.pop_front() {
                self.sum -= oldest.counts();
            }
        }
        self.calls.push_back(call);
        self.sum += call.counts();
    }

    pub(super) fn sum(&self) -> &Counts {
        &self.sum
    }

    pub(super) fn clear(&mut self) {
        self.calls.clear();
        self.sum = Counts::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SUCCESS: Counts =
        Counts { fires: 0, completed: 1, failures: 0, unreachable: 0, slow: 0, rejected: 0, busy: 0 };

    // R: what was seen first is forgotten first.
    #[test]
    fn the_oldest_call_is_forgotten_when_another_one_comes() {
        let mut window = CallWindow::new(3);
        for failures in [1, 0, 0, 0] {
            window.add(Counts { failures, unreachable: failures, slow: failures, ..SUCCESS });
        }
        assert_eq!(*window.sum(), Counts { completed: 3, ..Counts::default() });
    }

    #[test]
    fn what_is_no_call_displaces_none() {
        let mut window = CallWindow::new(2);
        window.add(SUCCESS);
        for _ in 0..5 {
            window.add(Counts { rejected: 1, busy: 1, ..Counts::default() });
        }
        assert_eq!(*window.sum(), Counts { rejected: 5, busy: 5, ..SUCCESS });
        window.clear();
        assert_eq!(*window.sum(), Counts::default());
    }

    /// As when what another breaker has seen is imported.
    #[test]
    fn of_more_than_it_holds_the_shares_are_kept() {
        for most in [8, 10_000] {
            let (mut window, many) = (CallWindow::new(most), 1 << 50);
            window.add(Counts { completed: many, failures: many / 2, unreachable: many / 4, slow: many, ..SUCCESS });
            let most = u64::from(most);
            let expected = Counts { completed: most, failures: most / 2, unreachable: most / 4, slow: most, ..SUCCESS };
            assert_eq!(*window.sum(), expected);
        }
    }

    proptest! {
        /// Beside a plain list.
        #[test]
        fn counts_the_last_calls(most in 1u32..8, calls in prop::collection::vec((0u64..2, 0u64..2), 1..60)) {
            let mut window = CallWindow::new(most);
            for (number, (failures, slow)) in calls.iter().enumerate() {
                window.add(Counts { failures: *failures, slow: *slow, ..SUCCESS });
                let last = &calls[(number + 1).saturating_sub(most as usize)..=number];
                let expected = Counts {
                    completed: last.len() as u64,
                    failures: last.iter().map(|(failures, _)| failures).sum(),
                    slow: last.iter().map(|(_, slow)| slow).sum(),
                    ..Counts::default()
                };
                prop_assert_eq!(*window.sum(), expected);
            }
        }
    }
}

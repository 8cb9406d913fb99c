//! The one owner of a pool's limit. Several have a say in it: the pool may use the smallest of their numbers.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::conn::Dialer;
use crate::slots::Slots;

/// The limit of a pool that is a member of a fleet, or whose limit follows the database.
#[derive(Debug)]
pub(crate) struct PoolLimit(Mutex<Parts>);

#[derive(Debug, Clone, Copy)]
struct Parts {
    /// The owner's.
    max_size: usize,
    /// What the fleet grants.
    budget: usize,
    /// What the database can bear.
    adaptive: usize,
}

impl Parts {
    fn effective(self) -> usize {
        self.max_size.min(self.budget).min(self.adaptive).max(1)
    }
}

impl PoolLimit {
    /// `None` for a part: nobody has a say there.
    pub(crate) fn new(max_size: usize, budget: Option<usize>, adaptive: Option<usize>) -> Self {
        let (budget, adaptive) = (budget.unwrap_or(usize::MAX), adaptive.unwrap_or(usize::MAX));
        Self(Mutex::new(Parts { max_size, budget, adaptive }))
    }

    /// How many connections the pool may use.
    pub(crate) fn effective(&self) -> usize {
        self.0.lock().effective()
    }

    pub(crate) fn max_size(&self) -> usize {
        self.0.lock().max_size
    }

    /// The most that the database can bear. `usize::MAX` if nothing follows it.
    pub(crate) fn adaptive(&self) -> usize {
        self.0.lock().adaptive
    }

    /// The fleet grants so many connections.
    pub(crate) fn set_budget(&self, slots: &Arc<Slots<Dialer>>, budget: usize) {
        self.change(slots, |parts| parts.budget = budget);
    }

    /// The database can bear so many connections.
    pub(crate) fn set_adaptive(&self, slots: &Arc<Slots<Dialer>>, adaptive: usize) {
        self.change(slots, |parts| parts.adaptive = adaptive);
    }

    /// The owner has changed `max_size`. Returns the value before.
    pub(crate) fn resize(&self, slots: &Arc<Slots<Dialer>>, max_size: usize) -> usize {
        let mut before = max_size;
        self.change(slots, |parts| before = std::mem::replace(&mut parts.max_size, max_size));
        before
    }

    /// Resizes under the lock, so that an older limit never comes after a newer one.
    fn change(&self, slots: &Arc<Slots<Dialer>>, change: impl FnOnce(&mut Parts)) {
        let mut parts = self.0.lock();
        change(&mut parts);
        let effective = parts.effective();
        if slots.counts().limit != effective {
            slots.resize(effective);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_number_counts() {
        let effective = |budget, adaptive| PoolLimit::new(20, budget, adaptive).effective();
        assert_eq!(
            [effective(None, None), effective(Some(9), None), effective(None, Some(7)), effective(Some(9), Some(7))],
            [20, 9, 7, 7]
        );
        assert_eq!((effective(Some(30), Some(40)), effective(Some(0), None)), (20, 1));
    }
}

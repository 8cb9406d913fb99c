//! The callers that have held connections longest, for errors.
//!
//! Refused callers come by the thousand, so they share one list: a caller that finds the list too old makes a new one.
//! In between, a refusal allocates nothing.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::holder::{Holder, LongestHeld};

/// Errors show the holders as they were at most this long before.
const FRESH: Duration = Duration::from_millis(50);

/// The list that errors share. Only errors make it, so the first error of a pool that has just been exhausted shows who
/// holds the connections then.
#[derive(Debug, Default)]
pub(super) struct SharedList(Mutex<Option<(Expiry, LongestHeld)>>);

/// When the list is too old.
type Expiry = Instant;

impl SharedList {
    /// Returns the list, or makes it of `holders` if it is too old. `holders` is called without the lock.
    #[inline]
    pub(super) fn get(&self, now: Instant, holders: impl FnOnce() -> Vec<Holder>) -> LongestHeld {
        match &*self.0.lock() {
            Some((expiry, longest)) if now < *expiry => return longest.clone(),
            _ => {}
        }
        self.renew(now, &holders())
    }

    #[cold]
    fn renew(&self, now: Instant, holders: &[Holder]) -> LongestHeld {
        let longest = LongestHeld::of(holders);
        // The former list is dropped after unlock.
        let _former = self.0.lock().replace((now + FRESH, longest.clone()));
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::holder::HolderState;

    #[test]
    fn a_list_is_shared_until_it_is_too_old() {
        let (at, list) = (Instant::now(), SharedList::default());
        let ask = |now, operation| {
            let holder = Holder::of(operation, Duration::from_secs(3), HolderState::WaitingForCaller);
            list.get(now, || vec![holder])[0].operation.to_string()
        };
        assert_eq!(ask(at, "first"), "first");
        assert_eq!(ask(at + FRESH / 2, "second"), "first");
        // The caller asked just before the list was made.
        assert_eq!(ask(at - Duration::from_millis(1), "third"), "first");
        assert_eq!(ask(at + FRESH, "fourth"), "fourth");
    }
}

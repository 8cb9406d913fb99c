//! Remembers the hosts and addresses that failed lately. A dial tries them last, so a dead one does not delay the
//! others.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long after its latest failure a host or address is tried last. The line of the event `AddressAvoided` names it.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(30);
/// The largest number of remembered hosts and addresses: more than any connection string names.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct AvoidedAddresses(Mutex<HashMap<String, Avoided>>);

#[derive(Debug, Clone, Copy)]
struct Avoided {
    /// The time of the first failure since it last worked.
    since: Instant,
    /// The time of the latest failure.
    failed: Instant,
}

impl AvoidedAddresses {
    /// Records a failure. Returns whether it is the first one since the place last worked.
    pub(crate) fn on_failed(&self, place: String) -> bool {
        let (now, mut known) = (Instant::now(), self.0.lock());
        if let Some(avoided) = known.get_mut(&place) {
            avoided.failed = now;
            return false;
        }
        if known.len() >= MOST {
            let oldest = known.iter().min_by_key(|(_, avoided)| avoided.failed).map(|(place, _)| place.clone());
            oldest.map(|oldest| known.remove(&oldest));
        }
        known.insert(place, Avoided { since: now, failed: now });
        true
    }

    /// Records a success. Returns how long the place had not worked, if it had failed.
    pub(crate) fn on_used(&self, place: &str) -> Option<Duration> {
        let mut known = self.0.lock();
        if known.is_empty() { None } else { known.remove(place).map(|avoided| avoided.since.elapsed()) }
    }

    /// Moves the places that failed lately to the end, the latest failure last.
    pub(crate) fn put_last<T>(&self, places: &mut [T], name: impl Fn(&T) -> String) {
        let (now, known) = (Instant::now(), self.0.lock());
        if known.is_empty() {
            return;
        }
        let failed = |place: &T| {
            let failed = known.get(&name(place)).map(|avoided| avoided.failed);
            failed.filter(|failed| now - *failed < REMEMBERED)
        };
        places.sort_by_key(failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn places_that_failed_come_last_for_a_while() {
        let avoided = AvoidedAddresses::default();
        let order = || {
            let mut servers = ["a", "b", "c"];
            avoided.put_last(&mut servers, |server| (*server).to_owned());
            servers.concat()
        };
        assert_eq!(order(), "abc");
        assert!(avoided.on_failed("b".to_owned()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(avoided.on_failed("a".to_owned()));
        assert_eq!(order(), "cba");
        assert_eq!(avoided.on_used("a"), Some(Duration::ZERO));
        assert_eq!(order(), "acb");
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(order(), "abc");
        assert!(!avoided.on_failed("b".to_owned()), "reported already");
        assert_eq!(order(), "acb");
        assert_eq!(avoided.on_used("b"), Some(REMEMBERED + Duration::from_secs(1)));
        assert_eq!(avoided.on_used("b"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_remembered_places_is_bounded() {
        let avoided = AvoidedAddresses::default();
        for server in 0..10_000 {
            avoided.on_failed(server.to_string());
        }
        assert_eq!(avoided.0.lock().len(), MOST);
    }
}

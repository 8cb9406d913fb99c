//! Which hosts and addresses could not be used lately: dials try those last, so that one that is down costs the others nothing.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// One that failed is tried last for so long.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(30);
/// So many are remembered: more than any connection string names.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<String, Avoided>>);

#[derive(Debug, Clone, Copy)]
struct Avoided {
    since: Instant,
    /// The latest failure.
    failed: Instant,
}

impl Refusals {
    /// Returns whether that is new: it has not failed since it last worked.
    pub(crate) fn failed(&self, place: String) -> bool {
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

    /// Returns for how long it had not worked, if it had not.
    pub(crate) fn served(&self, place: &str) -> Option<Duration> {
        let mut known = self.0.lock();
        if known.is_empty() { None } else { known.remove(place).map(|avoided| avoided.since.elapsed()) }
    }

    /// Those that failed lately come last, the latest at the very end.
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
    async fn those_that_failed_come_last_for_a_while() {
        let refusals = Refusals::default();
        let order = || {
            let mut servers = ["a", "b", "c"];
            refusals.put_last(&mut servers, |server| (*server).to_owned());
            servers.concat()
        };
        assert_eq!(order(), "abc");
        assert!(refusals.failed("b".to_owned()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(refusals.failed("a".to_owned()));
        assert_eq!(order(), "cba");
        assert_eq!(refusals.served("a"), Some(Duration::ZERO));
        assert_eq!(order(), "acb");
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(order(), "abc");
        assert!(!refusals.failed("b".to_owned()), "told already");
        assert_eq!(order(), "acb");
        assert_eq!(refusals.served("b"), Some(REMEMBERED + Duration::from_secs(1)));
        assert_eq!(refusals.served("b"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_remembered() {
        let refusals = Refusals::default();
        for server in 0..10_000 {
            refusals.failed(server.to_string());
        }
        assert_eq!(refusals.0.lock().len(), MOST);
    }
}

//! Which servers could not be used lately: dials try those last, so that a host that is down costs the others nothing.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A server that failed is tried last for so long.
const REMEMBERED: Duration = Duration::from_secs(30);
/// So many are remembered: more than any connection string names.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<String, Instant>>);

impl Refusals {
    pub(crate) fn failed(&self, server: String) {
        let (now, mut known) = (Instant::now(), self.0.lock());
        known.retain(|_, failed| now - *failed < REMEMBERED);
        if known.len() < MOST {
            known.insert(server, now);
        }
    }

    pub(crate) fn served(&self, server: &str) {
        self.0.lock().remove(server);
    }

    /// Those that failed lately come last, the latest at the very end.
    pub(crate) fn put_last<T>(&self, servers: &mut [T], name: impl Fn(&T) -> String) {
        let (now, known) = (Instant::now(), self.0.lock());
        if known.is_empty() {
            return;
        }
        let failed = |server: &T| known.get(&name(server)).copied().filter(|failed| now - *failed < REMEMBERED);
        servers.sort_by_key(failed);
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
        refusals.failed("b".to_owned());
        tokio::time::advance(Duration::from_secs(1)).await;
        refusals.failed("a".to_owned());
        assert_eq!(order(), "cba");
        refusals.served("a");
        assert_eq!(order(), "acb");
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(order(), "abc");
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

//! Where the scouts write what the hosts have answered, and where callers and the hooks of new connections read it.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use futures_util::future::{Either, select};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio::time;
use tokio_postgres::SimpleQueryMessage;

use super::state::State;

/// When a server was started, in microseconds, by its own clock. A restart or another server changes it.
pub(super) const STARTED: &str = "(extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint";

#[derive(Debug)]
pub(super) struct Board {
    state: Mutex<State>,
    /// How often something has changed.
    version: watch::Sender<u64>,
    /// Wakes the scout of each host.
    wake: Vec<Notify>,
    /// When the primary answered last, so that the scouts of the replicas ask shortly afterwards.
    primary_answered: OnceLock<watch::Sender<Option<Instant>>>,
}

impl Board {
    pub(super) fn new(now: Instant, labels: &[Arc<str>]) -> Self {
        Self {
            state: Mutex::new(State::new(now, labels.iter().cloned())),
            version: watch::Sender::new(0),
            wake: labels.iter().map(|_| Notify::new()).collect(),
            primary_answered: OnceLock::new(),
        }
    }

    /// Must not be held across an await, nor while an event is reported.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn on_change(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// A caller subscribes before it looks, so that it misses no change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The scouts ask at once.
    pub(super) fn ask_now(&self) {
        self.wake.iter().for_each(Notify::notify_one);
    }

    pub(super) async fn asked_for(&self, host: usize) {
        self.wake[host].notified().await;
    }

    pub(super) fn on_primary_answered(&self, now: Instant) {
        self.primary_answered.get_or_init(|| watch::Sender::new(None)).send_replace(Some(now));
    }

    /// How long ago the primary answered.
    pub(super) fn since_primary(&self, now: Instant) -> Option<Duration> {
        let answered = (*self.primary_answered.get()?.borrow())?;
        Some(now.saturating_duration_since(answered))
    }

    /// A new connection of a host's pool: does it lead to the server that the scout knows?
    pub(super) async fn on_connected(&self, host: usize, client: &Object) {
        let Ok(answer) = client.simple_query(&format!("SELECT {STARTED}")).await else { return };
        let started = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        });
        let is_doubted = started.is_some_and(|started| self.state().on_dialed(host, started));
        if is_doubted {
            self.wake[host].notify_one();
        }
    }
}

/// Waits for a change, at most until then. Returns whether there was one.
pub(super) async fn changed_before(changes: &mut watch::Receiver<u64>, until: Instant) -> bool {
    let changed = pin!(changes.changed());
    matches!(select(changed, pin!(time::sleep_until(until.into()))).await, Either::Left((Ok(()), _)))
}

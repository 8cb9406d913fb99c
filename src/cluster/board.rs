//! Shares the state of a cluster: scouts write the answers of the hosts, callers and new connections read them. It also
//! wakes the callers that wait for a change.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use futures_util::future::{Either, select};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio::time;
use tokio_postgres::SimpleQueryMessage;

use super::state::{Decision, State};
use crate::clock::now;
use crate::policy::Looks;

/// When a server was started, in microseconds, by its own clock. A restart or another server changes it.
pub(super) const STARTED: &str = "(extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint";

/// How far the replay of a replica is.
const REPLAYED: &str = "CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() END";

#[derive(Debug)]
pub(super) struct Board {
    state: Mutex<State>,
    /// The latest decision. Only a change of it wakes calls that wait for a primary.
    decision: watch::Sender<Decision>,
    /// The number of looks. Each look wakes the few reads that wait for a replica to catch up.
    looks: watch::Sender<u64>,
    /// Wakes the scout of each host.
    wake: Vec<Notify>,
    /// When the primary answered last, so that the scouts of the replicas ask shortly afterwards.
    primary_answered: Mutex<Option<Instant>>,
}

impl Board {
    pub(super) fn new(now: Instant, labels: &[Arc<str>], looks: Looks, max_lag: Duration) -> Self {
        let state = State::new(now, labels.iter().cloned(), looks, max_lag);
        Self {
            decision: watch::Sender::new(state.decision()),
            state: Mutex::new(state),
            looks: watch::Sender::new(0),
            wake: labels.iter().map(|_| Notify::new()).collect(),
            primary_answered: Mutex::default(),
        }
    }

    /// Must not be held across an await, nor while an event is reported.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn label(&self, host: usize) -> Arc<str> {
        Arc::clone(self.state().label(host))
    }

    /// A look has ended. Wakes the callers that wait for what it may have changed.
    pub(super) fn on_look(&self) {
        let new = self.state().decision();
        self.decision.send_if_modified(|decision| std::mem::replace(decision, new) != new);
        self.looks.send_modify(|looks| *looks += 1);
    }

    /// A caller subscribes before it looks, so that it misses no change.
    pub(super) fn decisions(&self) -> watch::Receiver<Decision> {
        self.decision.subscribe()
    }

    /// As [`decisions`](Self::decisions), for reads that wait until a replica has reached a place in the log.
    pub(super) fn looks(&self) -> watch::Receiver<u64> {
        self.looks.subscribe()
    }

    /// Makes all scouts ask at once.
    pub(super) fn ask_now(&self) {
        self.wake.iter().for_each(Notify::notify_one);
    }

    /// Makes the scout of this host ask at once.
    pub(super) fn ask(&self, host: usize) {
        self.wake[host].notify_one();
    }

    pub(super) async fn asked_for(&self, host: usize) {
        self.wake[host].notified().await;
    }

    pub(super) fn on_primary_answered(&self, now: Instant) {
        *self.primary_answered.lock() = Some(now);
    }

    /// How long ago the primary answered.
    pub(super) fn since_primary(&self, now: Instant) -> Option<Duration> {
        (*self.primary_answered.lock()).map(|answered| now.saturating_duration_since(answered))
    }

    /// Compares the server of a new connection with the one that the scout knows.
    pub(super) async fn on_connected(&self, host: usize, client: &Object) {
        let asked = now();
        let Ok(answer) = client.simple_query(&format!("SELECT {STARTED}, {REPLAYED}")).await else { return };
        let dialed = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                let replayed = row.get(1).and_then(|place| place.parse().ok());
                Some((row.get(0)?.parse().ok()?, replayed))
            }
            _ => None,
        });
        let is_doubted =
            dialed.is_some_and(|(started, replayed)| self.state().on_dialed(host, asked, started, replayed));
        if is_doubted {
            self.ask(host);
        }
    }

    /// Waits until the scout of this host knows which server answers there, or could not look in time. Another server
    /// may be an empty database on a new disk, so a new connection of the pool serves nobody before that.
    pub(super) async fn until_known(&self, host: usize) {
        let (mut looks, until) = (self.looks(), now() + self.state().longest_look());
        while self.state().is_doubted(host) && changed_before(&mut looks, until).await {}
    }
}

/// Waits for a change, at most until this instant. Returns whether there was one.
pub(super) async fn changed_before<T>(changes: &mut watch::Receiver<T>, until: Instant) -> bool {
    let changed = pin!(changes.changed());
    matches!(select(changed, pin!(time::sleep_until(until.into()))).await, Either::Left((Ok(()), _)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;
    use crate::cluster::state::Answer;
    use crate::policy::{Lsn, Sighting};

    /// A server that comes back with an empty database answers the pool before it answers the scout.
    #[tokio::test(start_paused = true)]
    async fn a_connection_to_another_server_serves_nobody_before_the_scout_has_looked() {
        let labels = ["a:5432", "b:5432"].map(Arc::from);
        let board = Arc::new(Board::new(now(), &labels, Looks::default(), Duration::from_secs(30)));
        let answer = |host: usize, is_in_recovery: bool, system: u64, started: i64| {
            let at = now();
            let sighting = Sighting { at, is_in_recovery, timeline: Some(1), system: Some(system), started };
            board.state().on_answer(at, host, at, Answer { sighting, place: Some(Lsn(1)) }, true);
            board.on_look();
        };
        answer(0, false, 7, 10);
        answer(1, true, 7, 20);
        let dial = async |started: i64| {
            let begun = now();
            if board.state().on_dialed(0, begun, started, None) {
                board.ask(0);
            }
            board.until_known(0).await;
            (now() - begun, board.state().is_primary(0))
        };
        assert_eq!(dial(10).await, (Duration::ZERO, true), "the server of before");
        let scout = async {
            board.asked_for(0).await;
            time::sleep(Duration::from_millis(300)).await;
            board.on_look();
            time::sleep(Duration::from_millis(300)).await;
            answer(0, false, 8, 11);
        };
        let ((took, is_primary), ()) = tokio::join!(dial(11), scout);
        assert!(took >= Duration::from_millis(600) && !is_primary, "{took:?}");
        let (took, _) = dial(12).await;
        assert_eq!(took, Duration::from_secs(2), "the scout cannot look");
    }

    /// A thousand calls wait for a primary while replicas answer 50 times a second.
    #[tokio::test(start_paused = true)]
    async fn calls_that_wait_for_a_primary_are_woken_by_a_decision_only() {
        let labels = ["a:5432", "b:5432"].map(Arc::from);
        let board = Arc::new(Board::new(now(), &labels, Looks::default(), Duration::from_secs(30)));
        let woken = Arc::new(AtomicUsize::new(0));
        let wait = || {
            let (board, woken) = (Arc::clone(&board), Arc::clone(&woken));
            let mut decisions = board.decisions();
            tokio::spawn(async move {
                while !board.state().is_primary(0) {
                    decisions.changed().await.unwrap();
                    woken.fetch_add(1, Relaxed);
                }
            })
        };
        let answer = |host: usize, is_in_recovery: bool, place: u64| {
            let (at, started) = (now(), host as i64);
            let sighting = Sighting { at, is_in_recovery, timeline: Some(1), system: Some(7), started };
            board.state().on_answer(at, host, at, Answer { sighting, place: Some(Lsn(place)) }, true);
            board.on_look();
        };
        answer(0, true, 1);
        answer(1, true, 1);
        let waiting: Vec<_> = (0..1_000).map(|_| wait()).collect();
        for look in 2..102 {
            answer(look as usize % 2, true, look);
            time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(woken.load(Relaxed), 0, "of 100,000");
        answer(0, false, 200);
        for call in waiting {
            call.await.unwrap();
        }
        assert_eq!(woken.load(Relaxed), 1_000);
    }
}

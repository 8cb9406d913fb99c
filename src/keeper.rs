//! What a pool does by itself, in the background: it looks after the server while its circuit breaker keeps callers from it.
//!
//! When the circuit opens, whoever waits is told so, and nothing more is dialed. Then the server is looked at at once, and once a second after that: on
//! an idle connection, or by a dial. If what opened the circuit was that the server could not be reached, the first answer lets
//! callers probe it, long before the reset timeout; else that is waited out, for a server that answers may still fail its callers.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::{self, Instant};

use crate::breaker::{State, Transition};
use crate::conn::{Dialer, Witness};
use crate::slots::{Look, Slots};

/// Between two looks at the server; and how long one may take.
pub(crate) const PACE: Duration = Duration::from_secs(1);

/// After a look that found no way to the server: every slot was taken, by a dial just given up perhaps.
const NO_WAY: Duration = Duration::from_millis(50);

/// Follows the circuit breaker. Of the pool it holds nothing.
#[derive(Debug)]
pub(crate) struct Keeper {
    pool: OnceLock<(Weak<Slots<Dialer>>, Weak<Witness>)>,
    permitted_probes: usize,
    is_looking: AtomicBool,
    next_look: Mutex<Option<Instant>>,
}

impl Keeper {
    pub(crate) fn new(permitted_probes: usize) -> Arc<Self> {
        let (is_looking, next_look) = (AtomicBool::new(false), Mutex::new(None));
        Arc::new(Self { pool: OnceLock::new(), permitted_probes, is_looking, next_look })
    }

    /// What it keeps, known only now.
    pub(crate) fn keep(&self, slots: &Arc<Slots<Dialer>>, witness: &Arc<Witness>) {
        let _ = self.pool.set((Arc::downgrade(slots), Arc::downgrade(witness)));
    }

    /// The circuit has changed its state.
    pub(crate) fn follow(self: &Arc<Self>, transition: &Transition) {
        let Some((slots, _)) = self.pool() else { return };
        let at_once = match transition.to {
            State::Open | State::ForcedOpen | State::ShutDown => Some(0),
            State::HalfOpen => Some(self.permitted_probes),
            State::Closed | State::Disabled | State::MetricsOnly => None,
        };
        slots.hold_back(transition.number, at_once);
        if transition.to == State::Open {
            // Lost with its runtime, looking begins again when the circuit opens again.
            if let Some(runtime) = Handle::try_current().ok().or_else(|| slots.runtime()) {
                if let Some(looking) = Looking::begin(self) {
                    runtime.spawn(looking.run());
                }
            }
        }
    }

    async fn look_while_open(&self) {
        let mut dial = None;
        while self.open_pool().is_some() {
            let next = *self.next_look.lock();
            if let Some(next) = next {
                time::sleep_until(next).await;
            }
            let Some((slots, witness)) = self.open_pool() else { return };
            let begun = Instant::now();
            *self.next_look.lock() = Some(begun + PACE);
            if dial.take().is_some_and(|dial| slots.look_away(dial)) {
                witness.server_is_silent();
            }
            match slots.look(PACE).await {
                Look::Answers => witness.server_answers(),
                Look::Silent => witness.server_is_silent(),
                Look::Dials(number) => dial = Some(number),
                Look::Nothing => *self.next_look.lock() = Some(begun + NO_WAY),
            }
        }
    }

    fn pool(&self) -> Option<(Arc<Slots<Dialer>>, Arc<Witness>)> {
        let (slots, witness) = self.pool.get()?;
        Some((slots.upgrade()?, witness.upgrade()?))
    }

    /// The pool, while its circuit is open.
    fn open_pool(&self) -> Option<(Arc<Slots<Dialer>>, Arc<Witness>)> {
        self.pool().filter(|(slots, witness)| witness.breaker().last_state() == State::Open && slots.counts().is_open)
    }
}

/// The right to look, of which there is one.
struct Looking(Arc<Keeper>);

impl Looking {
    fn begin(keeper: &Arc<Keeper>) -> Option<Self> {
        (!keeper.is_looking.swap(true, SeqCst)).then(|| Self(Arc::clone(keeper)))
    }

    async fn run(self) {
        let mut looking = Some(self);
        while let Some(right) = looking.take() {
            let keeper = Arc::clone(&right.0);
            keeper.look_while_open().await;
            drop(right);
            // Opened again in between? Whoever followed that has found the right taken.
            looking = keeper.open_pool().and_then(|_| Self::begin(&keeper));
        }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.is_looking.store(false, SeqCst);
    }
}

//! The breaker that all clones share: the rules of `policy::breaker` under a lock, and a word beside it.
//!
//! Most of the time the circuit is closed and a call need not ask: then the word holds the generation, and asking is one load. Most successes need no
//! judgement either, and are counted in the tally. The lock is taken for everything else. Hooks are called after unlock.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::config::{BreakerConfig, Checked};
use super::hooks::{CallEvent, CallOutcome, Hooks};
#[cfg(feature = "metrics")]
use super::metered;
use super::tally::Tally;
use super::timer::{Due, Timer};
use crate::error::ConfigError;
use crate::policy::{Breaker, Deadline, Denied, Outcome, State, Ticket};

#[derive(Debug)]
pub(super) struct Shared {
    name: Option<Arc<str>>,
    free_pass: FreePass,
    tally: Tally,
    locked: Mutex<Locked>,
    hooks: Hooks,
    /// A call that takes longer is slow. `None`: nobody wants to know.
    slow_after: Option<Duration>,
    /// How long each call took is remembered.
    remembers_latency: bool,
    /// `None`: what time brings is told when somebody asks.
    timer: Option<Timer>,
}

#[derive(Debug)]
struct Locked {
    breaker: Breaker,
    /// For which generation and until when the tally is armed.
    armed: Option<(u64, Option<Instant>)>,
    /// How often it has been, round and round.
    armings: u32,
    /// When time alone will change the state, as the timer knows.
    due: Option<Deadline>,
}

/// One more than the generation in which calls need not ask, or 0. On a cache line of its own, which recording leaves alone.
///
/// Nothing else is read by it, so its loads and stores need no order. A call that saw an old value holds a stale ticket.
#[derive(Debug)]
#[repr(align(128))]
struct FreePass(AtomicU64);

impl FreePass {
    #[inline]
    fn ticket(&self) -> Option<Ticket> {
        self.0.load(Ordering::Relaxed).checked_sub(1).map(Ticket::free)
    }

    /// Stored only when it differs: a store takes the cache line away from all who ask.
    fn set(&self, ticket: Option<Ticket>) {
        let word = ticket.map_or(0, |ticket| ticket.generation() + 1);
        if self.0.load(Ordering::Relaxed) != word {
            self.0.store(word, Ordering::Relaxed);
        }
    }
}

impl Shared {
    pub(super) fn new(now: Instant, config: BreakerConfig) -> Result<Arc<Self>, ConfigError> {
        let Checked { name, automatic_transitions, settings, hooks } = config.finish()?;
        #[cfg(feature = "metrics")]
        let hooks = metered::add_to(hooks, name.as_ref());
        let breaker = Breaker::new(now, settings, fastrand::f64()).named(name.clone());
        let free_pass = FreePass(AtomicU64::default());
        free_pass.set(breaker.free_pass());
        let slow_after = settings.slow_call.map(|slow| slow.longer_than);
        let locked = Mutex::new(Locked { breaker, armed: None, armings: 0, due: None });
        Ok(Arc::new_cyclic(|shared: &Weak<Self>| {
            let timer = automatic_transitions.then(|| Timer::new(shared.clone()));
            let (tally, remembers_latency) = (Tally::new(now), settings.latency);
            Self { name, free_pass, tally, locked, hooks, slow_after, remembers_latency, timer }
        }))
    }

    pub(super) fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    /// Whether somebody wants to know how long calls take.
    #[inline]
    pub(super) fn measures(&self) -> bool {
        self.slow_after.is_some() || self.remembers_latency || self.hooks.want_calls()
    }

    /// Tells the hooks what became of a call.
    #[inline]
    pub(super) fn tell_call(&self, outcome: CallOutcome, took: Duration) {
        if self.hooks.want_calls() {
            self.hooks.tell_call(&CallEvent { name: self.name.as_deref(), outcome, took });
        }
    }

    /// A ticket without asking, while everybody gets one.
    #[inline]
    pub(super) fn pass(&self) -> Option<Ticket> {
        self.free_pass.ticket()
    }

    /// Whether a call would be admitted. Takes nothing; a rejection is counted.
    pub(super) fn check(&self, now: Instant) -> Result<(), Denied> {
        self.pass().map_or_else(|| self.with(|breaker| breaker.check(now)), |_| Ok(()))
    }

    /// Lets a call through, perhaps as a probe; or not, which is counted.
    pub(super) fn admit(&self, now: Instant) -> Result<Ticket, Denied> {
        self.pass().map_or_else(|| self.with(|breaker| breaker.admit(now)), Ok)
    }

    /// A call that was admitted ends at `limit` by itself, which matters only if it is a probe.
    pub(super) fn ends_at(&self, ticket: Ticket, limit: impl FnOnce() -> Deadline) {
        if ticket.is_probe() {
            self.with(|breaker| breaker.ends_at(ticket, limit()));
        }
    }

    /// A call ended after `took`, which matters only if slow calls do.
    pub(super) fn record(&self, now: Instant, ticket: Ticket, outcome: Outcome, took: Duration) {
        // Anything else may raise a rate.
        let is_slow = self.slow_after.is_some_and(|limit| took > limit);
        let is_plain = outcome == Outcome::Success && !is_slow && !self.remembers_latency;
        if !is_plain || !self.tally.count(now, ticket.generation()) {
            self.with(|breaker| breaker.record(now, ticket, outcome, took, fastrand::f64));
        }
    }

    /// A call ended without saying anything of the dependency.
    pub(super) fn release(&self, now: Instant, ticket: Ticket) {
        if ticket.is_probe() {
            self.with(|breaker| breaker.release(now, ticket));
        }
    }

    /// Does something under the lock, and tells what has come of it.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Breaker) -> R) -> R {
        let mut locked = self.lock();
        locked.breaker.count_successes(self.tally.collect());
        let result = act(&mut locked.breaker);
        self.free_pass.set(locked.breaker.free_pass());
        self.arm(&mut locked);
        let changes = locked.breaker.take_changes();
        let due = locked.breaker.due();
        let is_due_anew = mem::replace(&mut locked.due, due) != due;
        drop(locked);
        if let (Some(timer), true) = (&self.timer, is_due_anew) {
            timer.look();
        }
        self.hooks.tell(&changes);
        result
    }

    pub(super) fn last_state(&self) -> State {
        self.lock().breaker.last_state()
    }

    #[cfg(test)]
    pub(super) fn hold_lock(&self) -> impl Drop + '_ {
        self.lock()
    }

    /// Arms the tally for what holds now. What it has counted meanwhile is stale if the generation is another.
    fn arm(&self, locked: &mut Locked) {
        let calm = locked.breaker.calm();
        if calm == locked.armed {
            return;
        }
        let (counted, before) = (self.tally.disarm(), locked.armed.take());
        if before.is_some_and(|(generation, _)| locked.breaker.is_generation(generation)) {
            locked.breaker.count_successes(counted);
        }
        if let Some((generation, until)) = calm {
            locked.armings = locked.armings.wrapping_add(1).max(1);
            self.tally.arm(locked.armings, generation, until);
        }
        locked.armed = calm;
    }

    fn lock(&self) -> MutexGuard<'_, Locked> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Due for Shared {
    fn due(&self, now: Instant) -> Option<Deadline> {
        self.with(|breaker| {
            breaker.state(now);
            breaker.due()
        })
    }
}

//! The breaker that all clones share: the rules of `src/policy/breaker.rs` under a lock.
//!
//! Most calls do not take the lock: `fast_path` admits them and counts their success. Each method that takes the lock
//! collects these counts first. Hooks run after the lock is released.

use std::mem;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::config::{BreakerConfig, Checked};
use super::fast_path::{FreePass, Tally};
use super::hooks::{CallEvent, CallOutcome, Hooks};
#[cfg(feature = "metrics")]
use super::metered;
use super::timer::{Due, Timer};
use crate::error::ConfigError;
use crate::policy::{Breaker, Deadline, Denied, ResultKind, State, Ticket};

#[derive(Debug)]
pub(super) struct Shared {
    name: Option<Arc<str>>,
    free_pass: FreePass,
    tally: Tally,
    locked: Mutex<Locked>,
    hooks: Hooks,
    /// A call that takes longer is slow. `None`: slow calls do not count.
    slow_after: Option<Duration>,
    /// The breaker records how long each call took.
    records_latency: bool,
    /// `None`: the next call or question makes the changes that time causes.
    timer: Option<Timer>,
}

#[derive(Debug)]
struct Locked {
    breaker: Breaker,
    /// The generation for which the tally is armed, and until when.
    armed: Option<(u64, Option<Instant>)>,
    /// The number of the latest arming. It wraps.
    armings: u32,
    /// When time alone will change the state, as the timer knows it.
    due: Option<Deadline>,
}

impl Shared {
    pub(super) fn new(now: Instant, config: BreakerConfig) -> Result<Arc<Self>, ConfigError> {
        let Checked { name, automatic_transitions, settings, hooks } = config.finish()?;
        #[cfg(feature = "metrics")]
        let hooks = metered::add_to(hooks, name.as_ref());
        let breaker = Breaker::new(now, settings, fastrand::f64()).named(name.clone());
        let free_pass = FreePass::new(breaker.free_pass());
        let slow_after = settings.slow_call.map(|slow| slow.longer_than);
        let locked = Mutex::new(Locked { breaker, armed: None, armings: 0, due: None });
        Ok(Arc::new_cyclic(|shared: &Weak<Self>| {
            let timer = automatic_transitions.then(|| Timer::new(shared.clone()));
            let (tally, records_latency) = (Tally::new(now), settings.latency);
            Self { name, free_pass, tally, locked, hooks, slow_after, records_latency, timer }
        }))
    }

    pub(super) fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    /// Returns whether the duration of calls has to be measured.
    #[inline]
    pub(super) fn needs_durations(&self) -> bool {
        self.slow_after.is_some() || self.records_latency || self.hooks.want_calls()
    }

    /// Runs the hooks for calls.
    #[inline]
    pub(super) fn notify_of_call(&self, outcome: CallOutcome, took: Duration) {
        if self.hooks.want_calls() {
            self.hooks.run_for_call(&CallEvent { name: self.name.as_deref(), outcome, took });
        }
    }

    /// Returns a ticket without the lock, while every call passes.
    #[inline]
    pub(super) fn pass(&self) -> Option<Ticket> {
        self.free_pass.ticket()
    }

    /// Checks whether a call would be admitted, without admitting it. Counts a rejection.
    pub(super) fn check(&self, now: Instant) -> Result<(), Denied> {
        self.pass().map_or_else(|| self.with(|breaker| breaker.check(now)), |_| Ok(()))
    }

    /// Admits a call, perhaps as a probe. Counts a rejection.
    pub(super) fn admit(&self, now: Instant) -> Result<Ticket, Denied> {
        self.pass().map_or_else(|| self.with(|breaker| breaker.admit(now)), Ok)
    }

    /// An admitted call ends at `limit` by itself. That matters only for a probe.
    pub(super) fn limit_call(&self, ticket: Ticket, limit: impl FnOnce() -> Deadline) {
        if ticket.is_probe() {
            self.with(|breaker| breaker.limit_call(ticket, limit()));
        }
    }

    /// Records a call that ended after `took`.
    pub(super) fn record(&self, now: Instant, ticket: Ticket, outcome: ResultKind, took: Duration) {
        let is_slow = self.slow_after.is_some_and(|limit| took > limit);
        let only_lowers_rates = outcome == ResultKind::Success && !is_slow && !self.records_latency;
        if !only_lowers_rates || !self.tally.try_count(now, ticket.generation()) {
            self.with(|breaker| breaker.record(now, ticket, outcome, took, fastrand::f64));
        }
    }

    /// Takes back the ticket of a call that says nothing about the dependency.
    pub(super) fn release(&self, now: Instant, ticket: Ticket) {
        if ticket.is_probe() {
            self.with(|breaker| breaker.release(now, ticket));
        }
    }

    /// Runs `act` under the lock, then the hooks for the changes of state that it caused.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Breaker) -> R) -> R {
        let mut locked = self.locked.lock();
        locked.breaker.count_successes(self.tally.collect());
        let result = act(&mut locked.breaker);
        self.free_pass.set(locked.breaker.free_pass());
        self.arm(&mut locked);
        let changes = locked.breaker.take_changes();
        let due = locked.breaker.due();
        let has_new_due = mem::replace(&mut locked.due, due) != due;
        drop(locked);
        if let (Some(timer), true) = (&self.timer, has_new_due) {
            timer.reschedule();
        }
        self.hooks.run_for_changes(&changes);
        result
    }

    pub(super) fn last_state(&self) -> State {
        self.locked.lock().breaker.last_state()
    }

    #[cfg(test)]
    pub(super) fn hold_lock(&self) -> impl Drop + '_ {
        self.locked.lock()
    }

    /// Arms the tally for the current generation and bucket. If the generation is another one, the successes counted
    /// meanwhile are stale.
    fn arm(&self, locked: &mut Locked) {
        let calm = locked.breaker.calm();
        if calm == locked.armed {
            return;
        }
        let (counted, before) = (self.tally.disarm(), locked.armed.take());
        if before.is_some_and(|(generation, _)| generation == locked.breaker.generation()) {
            locked.breaker.count_successes(counted);
        }
        if let Some((generation, until)) = calm {
            locked.armings = locked.armings.wrapping_add(1).max(1);
            self.tally.arm(locked.armings, generation, until);
        }
        locked.armed = calm;
    }
}

impl Due for Shared {
    fn advance(&self, now: Instant) -> Option<Deadline> {
        self.with(|breaker| {
            breaker.state(now);
            breaker.due()
        })
    }
}

//! What the lock of the slots guards: the core, and what the shell needs beside it.

use std::collections::HashMap;
use std::time::Instant;

use tokio::runtime::{Handle, Id};
use tokio::task::AbortHandle;

use super::clocks::{Alarm, Clocks};
use super::core::{Begin, Core, Limits, Refusal};
use super::queue::WaiterId;
use super::traits::Dial;
use crate::policy::Deadline;

/// `W` is the way to reach a waiter.
pub(super) struct Locked<D: Dial, W> {
    pub(super) core: Core<D::Conn, W>,
    pub(super) clocks: Clocks,
    /// The error of the latest failed dial. It is out of date once dials succeed again.
    pub(super) last_error: Option<D::Error>,
    /// Where the pool dials and spawns other background work. `None` once that runtime is known to have ended.
    pub(super) runtime: Option<Handle>,
    /// Whether `runtime` stays while it lives. Else it is that of the latest caller that wanted a dial.
    is_runtime_fixed: bool,
    pub(super) dial_tasks: HashMap<u64, AbortHandle>,
    /// How many connections each warm-up wants, though no caller waits for them.
    targets: Vec<usize>,
}

impl<D: Dial, W> Locked<D, W> {
    /// `runtime`: see [`PoolBuilder::runtime`](crate::PoolBuilder::runtime).
    pub(super) fn new(now: Instant, limits: Limits, runtime: Option<Handle>) -> Self {
        Self {
            core: Core::new(now, limits),
            clocks: Clocks::default(),
            last_error: None,
            is_runtime_fixed: runtime.is_some(),
            runtime,
            dial_tasks: HashMap::new(),
            targets: Vec::new(),
        }
    }

    /// The runtime that the owner has named, unless it is known to have ended.
    pub(super) fn fixed_runtime(&self) -> Option<Handle> {
        self.runtime.clone().filter(|_| self.is_runtime_fixed)
    }

    /// The dials to begin now, and the runtime for them. Usually there is none to begin.
    pub(super) fn begin_dials(&mut self, now: Instant) -> Option<(Begin, Handle)> {
        if self.runtime.is_none() {
            self.remember_runtime();
        }
        if self.runtime.is_none() || !self.core.has_free_slot() {
            return None;
        }
        let begin = self.core.begin_dials(now);
        if begin.dials.is_empty() && begin.ask_again.is_none() {
            return None;
        }
        self.remember_runtime();
        Some((begin, self.runtime.clone()?))
    }

    /// The error of the latest failed dial, if none has succeeded since.
    pub(super) fn known_error(&self) -> Option<D::Error> {
        self.last_error.clone().filter(|_| self.core.dials_are_failing())
    }

    /// Adds the error of the latest dial to the core's reason.
    pub(super) fn explain(&self, refusal: Refusal) -> Refusal<D::Error> {
        refusal.with_error(|| self.known_error().unwrap_or_else(D::abandoned))
    }

    /// Takes the caller's runtime for background work, unless a fixed one lives.
    pub(super) fn remember_runtime(&mut self) {
        if self.is_runtime_fixed && self.runtime.is_some() {
            return;
        }
        let Ok(current) = Handle::try_current() else { return };
        if self.runtime.as_ref().is_none_or(|known| known.id() != current.id()) {
            self.runtime = Some(current);
        }
    }

    /// Adds a waiter's deadline to the clock of its runtime.
    pub(super) fn add_deadline(&mut self, runtime: Id, deadline: Deadline, id: WaiterId) -> Alarm {
        let alarm = self.clocks.add(runtime, deadline, id);
        self.tidy_clocks();
        alarm
    }

    /// To be called when waiters have gone.
    pub(super) fn tidy_clocks(&mut self) {
        let core = &self.core;
        self.clocks.tidy(core.waiting(), |id| core.deadline_of(id));
    }

    pub(super) fn add_target(&mut self, connections: usize) {
        self.targets.push(connections);
        self.update_target();
    }

    pub(super) fn remove_target(&mut self, connections: usize) {
        if let Some(index) = self.targets.iter().position(|target| *target == connections) {
            self.targets.swap_remove(index);
        }
        self.update_target();
    }

    fn update_target(&mut self) {
        self.core.set_target(self.targets.iter().copied().max().unwrap_or(0));
    }

    pub(super) fn abort_handles(&mut self, dials: &[u64]) -> Vec<AbortHandle> {
        dials.iter().filter_map(|dial| self.dial_tasks.remove(dial)).collect()
    }
}

//! Changes to the pool as a whole: its size, its generation, its beginning and its end. The rules: `core/changes.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tokio::time;

use super::Slots;
use super::core::{Refusal, SlotCounts};
use super::tasks::LONGEST_CLOSE;
use super::traits::Dial;
use crate::clock::now;
use crate::policy::{Deadline, Lane};

impl<D: Dial> Slots<D> {
    /// Refuses all callers from now on, waiters included. Idle connections end now, leased ones when their lease ends.
    pub(crate) fn close(self: &Arc<Self>) {
        let mut state = self.lock();
        let (idle, waiters, dials) = state.core.close(now());
        let dials = state.abort_handles(&dials);
        self.refuse(state, waiters, &Refusal::Closed);
        self.dial.on_close();
        for dial in dials {
            dial.abort();
        }
        self.close_all(idle);
    }

    /// Refuses newcomers, serves the waiters, and closes the pool when all leases have ended or at the deadline.
    /// Returns how many leases were left then, when all other connections have ended: at most [`LONGEST_CLOSE`] after
    /// the deadline. A drain that is dropped closes the pool at once.
    pub(crate) async fn drain(self: &Arc<Self>, deadline: Deadline) -> usize {
        self.lock().core.drain();
        let end = EndOfDrain(self);
        let are_back = self.until(deadline, |counts| counts.in_use + counts.waiting == 0).await;
        drop(end);
        let left = if are_back { 0 } else { self.counts().in_use };
        let last = Deadline::after(deadline.instant(), LONGEST_CLOSE);
        self.until(last, |counts| counts.in_use + counts.settling + counts.closing <= left).await;
        left
    }

    /// Resolves when so many connections are idle or in use, or as many as the limit allows, or at the deadline.
    /// Returns whether they are.
    pub(crate) async fn warm_up(self: &Arc<Self>, connections: usize, deadline: Deadline) -> bool {
        let target = Target::new(self, connections);
        self.dial_what_is_wanted();
        let enough =
            |counts: SlotCounts| counts.idle + counts.in_use >= connections.min(counts.limit) || !counts.is_open;
        let is_warm = self.until(deadline, enough).await;
        drop(target);
        is_warm && self.counts().is_open
    }

    /// Begins a dial on behalf of a caller that does not wait, if there is a free slot and no dial under way. It serves
    /// a later caller.
    pub(crate) fn dial_ahead(self: &Arc<Self>, lane: Lane) {
        let wanted = {
            let core = &self.lock().core;
            (core.has_free_slot() && core.available_to(lane) > 0).then(|| core.live() + 1)
        };
        if let Some(connections) = wanted {
            let _target = Target::new(self, connections);
            self.dial_what_is_wanted();
        }
    }

    /// Ends the pause after failed dials, because their cause may be gone.
    pub(crate) fn try_at_once(self: &Arc<Self>) {
        self.dial.forget_refusals();
        self.lock().core.try_at_once();
        self.dial_what_is_wanted();
    }

    /// Notes until when at least a reader of a stream keeps this connection. `None` removes the note.
    pub(crate) fn set_slow_reader(&self, connection: u64, until: Option<Instant>) {
        self.lock().core.set_slow_reader(connection, until);
    }

    /// Changes the limit. Returns the limit before.
    pub(crate) fn resize(self: &Arc<Self>, max_size: usize) -> usize {
        let mut state = self.lock();
        let before = state.core.counts().limit;
        let surplus = state.core.resize(now(), max_size);
        drop(state);
        self.close_all(surplus);
        self.dial_what_is_wanted();
        before
    }

    /// Retires all connections made until now.
    pub(crate) fn flush(self: &Arc<Self>) {
        self.dial.on_flush();
        let idle = self.lock().core.flush(now());
        self.close_all(idle);
        self.dial_what_is_wanted();
    }

    /// Limits the dials at once while the circuit is not closed. With a limit of 0 the pool refuses all waiters. `None`
    /// lifts the limit. Changes are numbered, and an older change that comes late has no effect.
    pub(crate) fn limit_dials(self: &Arc<Self>, change: u64, at_once: Option<usize>) {
        let mut state = self.lock();
        let waiters = state.core.limit_dials(change, at_once);
        self.refuse(state, waiters, &Refusal::CircuitOpen);
        self.dial_what_is_wanted();
        self.notify_watchers();
    }

    pub(super) fn close_all(self: &Arc<Self>, connections: Vec<D::Conn>) {
        for conn in connections {
            self.spawn_close(conn);
        }
        self.notify_watchers();
    }

    /// Waits for the condition. Returns whether it came true before the deadline.
    async fn until(self: &Arc<Self>, deadline: Deadline, condition: impl Fn(SlotCounts) -> bool) -> bool {
        let _watcher = Watcher::new(self);
        let watching = async {
            loop {
                let changed = self.changed.notified();
                if condition(self.counts()) {
                    return;
                }
                changed.await;
                self.dial_what_is_wanted();
            }
        };
        time::timeout_at(deadline.instant().into(), watching).await.is_ok()
    }
}

/// How many connections a warm-up wants, though no caller waits for them.
struct Target<'a, D: Dial> {
    slots: &'a Slots<D>,
    connections: usize,
}

impl<'a, D: Dial> Target<'a, D> {
    fn new(slots: &'a Slots<D>, connections: usize) -> Self {
        let mut state = slots.lock();
        state.remember_runtime();
        state.add_target(connections);
        Self { slots, connections }
    }
}

impl<D: Dial> Drop for Target<'_, D> {
    fn drop(&mut self) {
        self.slots.lock().remove_target(self.connections);
    }
}

/// A task that waits for a change. See [`Slots::changed`].
struct Watcher<'a, D: Dial>(&'a Slots<D>);

impl<'a, D: Dial> Watcher<'a, D> {
    fn new(slots: &'a Slots<D>) -> Self {
        slots.hints.watchers.fetch_add(1, Relaxed);
        Self(slots)
    }
}

impl<D: Dial> Drop for Watcher<'_, D> {
    fn drop(&mut self) {
        self.0.hints.watchers.fetch_sub(1, Relaxed);
    }
}

/// Closes the pool when its drain ends, or is dropped.
struct EndOfDrain<'a, D: Dial>(&'a Arc<Slots<D>>);

impl<D: Dial> Drop for EndOfDrain<'_, D> {
    fn drop(&mut self) {
        self.0.close();
    }
}

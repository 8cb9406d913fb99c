//! Who holds a connection: the rules, as a synchronous state machine.
//!
//! A slot is the right to have one connection. It is in exactly one state:
//!
//! ```text
//!            begin_dials            place                 take, place
//!   (free) ─────────────▶ dialing ─────────▶ idle ◀──────────────────────▶ in use
//!      ▲                     │                 │                              │
//!      │      dial_failed    │                 │ close, flush, resize  retire │
//!      ├─────────────────────┘                 ▼                              │
//!      └────────────────────────────────── closing ◀──────────────────────────┘
//!                   closed
//! ```
//!
//! A connection whose lease has ended may have to be settled first: it stays in use, by its clean-up, and is counted apart.
//!
//! Three rules hold after every transition, and a property test checks them against a plain model: no slot is taken beyond the limit;
//! nobody waits while a connection is idle; waiters are served in order.
//!
//! A transition only moves things and returns what is to be done. The shell (`super`) sends, wakes, drops and spawns after unlock.

mod admission;
mod ages;
mod changes;
mod endings;
mod held;
mod held_up;
mod maintenance;
mod outcomes;
mod untimed;
mod view;

use std::collections::HashMap;
use std::time::{Duration, Instant};

pub(crate) use self::ages::{Ages, Check};
use self::ages::{Idle, RedialPause};
use self::held::Birth;
pub(crate) use self::held::Held;
pub(crate) use self::outcomes::{Entered, Place, Placed, Refusal};
pub(crate) use super::dials::Begin;
use super::dials::{Dials, Wanted};
use super::queue::{Queue, WaiterId};
use crate::policy::{Appointments, Forecast, LeaseDurations, ShadowQueues, ShedReason, Time, Trouble, WaitPolicy};

/// A queue without shedding is this long at most.
pub(crate) const MOST_WAITING: usize = 1_000_000;

/// A bound on memory, not on time: some 250 bytes for each waiter, so 2.5 MB for the smallest pools. Half a second of a pool of 20 whose leases take
/// 1 ms fits in; the rule of refusal keeps the queue far shorter where callers could not be served in time.
pub(crate) fn default_max_waiting(max_size: usize) -> usize {
    max_size.saturating_mul(100).clamp(10_000, MOST_WAITING)
}

/// The bounds that a core keeps, and the time that callers are expected to have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_size: usize,
    pub(crate) max_waiting: usize,
    pub(crate) max_connecting: usize,
    pub(crate) wait_budget: Duration,
    pub(crate) ages: Ages,
}

/// How many slots are in each state, and how many callers wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) limit: usize,
    pub(crate) dialing: usize,
    pub(crate) idle: usize,
    pub(crate) in_use: usize,
    pub(crate) settling: usize,
    pub(crate) closing: usize,
    pub(crate) waiting: usize,
    pub(crate) max_waiting: usize,
    pub(crate) is_open: bool,
    /// All who asked, whatever became of them.
    pub(crate) arrivals: u64,
    /// Those of them who found a connection idle.
    pub(crate) at_once: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PoolPhase {
    Open,
    /// Serves those who wait already.
    Draining,
    Closed,
}

/// `C` is the connection, `W` the way to reach a waiter.
#[derive(Debug)]
pub(crate) struct Core<C, W> {
    limits: Limits,
    /// Freshest last.
    idle: Vec<Idle<C>>,
    /// By callers, or by their clean-up.
    in_use: usize,
    /// Those of them whose lease has ended.
    settling: usize,
    /// Those of them that were idle and are being checked.
    checking: usize,
    closing: usize,
    dials: Dials,
    queue: Queue<W>,
    forecast: Forecast,
    leases: LeaseDurations,
    shadows: ShadowQueues,
    appointments: Appointments,
    /// Connections of an older one are not used again.
    generation: u32,
    /// By connection: until when a reader that is far behind holds it at least.
    held_up: HashMap<u64, Instant>,
    /// So many connections are wanted even if no caller waits for them.
    target: usize,
    /// While the circuit is not closed: so many dials at once, at most; none also means that nobody waits.
    held_back: Option<usize>,
    /// Number of the change that said so.
    last_change: u64,
    phase: PoolPhase,
    /// Who found a connection idle.
    at_once: u64,
    /// Of these, whom it did not serve.
    not_served: u64,
    /// Who would have waited for one.
    entered: u64,
    /// Counts those taken without a look at the clock, round and round.
    untimed: u8,
    kept: RedialPause,
    /// Its beginning, the moment of its life at which somebody last looked at a clock, and when the next begins.
    begun: Instant,
    moment: u32,
    next_moment: Instant,
}

impl<C, W> Core<C, W> {
    pub(crate) fn new(now: Instant, limits: Limits) -> Self {
        Self {
            limits,
            idle: Vec::new(),
            in_use: 0,
            settling: 0,
            checking: 0,
            closing: 0,
            dials: Dials::new(),
            queue: Queue::new(),
            forecast: Forecast::new(limits.wait_budget),
            leases: LeaseDurations::new(),
            shadows: ShadowQueues::new(),
            appointments: Appointments::new(),
            generation: 0,
            held_up: HashMap::new(),
            target: 0,
            held_back: None,
            last_change: 0,
            phase: PoolPhase::Open,
            at_once: 0,
            not_served: 0,
            entered: 0,
            untimed: 0,
            kept: RedialPause::default(),
            begun: now,
            moment: 0,
            next_moment: now,
        }
    }

    /// An idle connection, the freshest: it is the likeliest to be alive and to have warm caches.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Held<C>> {
        let taken = if self.phase == PoolPhase::Open { self.take_idle(now) } else { None };
        self.at_once += u64::from(taken.is_some());
        taken
    }

    /// Takes an idle connection, or joins the queue, or is refused.
    pub(crate) fn enter(
        &mut self,
        now: Instant,
        wait_policy: WaitPolicy,
        waiter: impl FnOnce() -> W,
    ) -> Result<Entered<C>, Refusal> {
        if self.phase != PoolPhase::Open {
            return Err(Refusal::Closed);
        }
        self.entered += 1;
        if let Some(held) = self.serve_at_once(now)? {
            return Ok(Entered::Took(held));
        }
        if self.is_shut() {
            return Err(Refusal::HeldBack);
        }
        // One that is idle, but has to be checked first, is as good as free.
        if self.idle.is_empty() {
            self.admit(now, &wait_policy)?;
        }
        Ok(Entered::Waits(self.queue.push(waiter(), wait_policy)))
    }

    /// As [`enter`](Self::enter), for a waiter that was served with something of no use, or told to enter again: it waits in its old place,
    /// whatever the rule of refusal says to newcomers.
    pub(crate) fn enter_again(
        &mut self,
        now: Instant,
        wait_policy: WaitPolicy,
        place: WaiterId,
        waiter: impl FnOnce() -> W,
    ) -> Result<Entered<C>, Refusal> {
        if self.phase == PoolPhase::Closed {
            return Err(Refusal::Closed);
        }
        if let Some(held) = self.serve_at_once(now)? {
            return Ok(Entered::Took(held));
        }
        if self.is_shut() {
            return Err(Refusal::HeldBack);
        }
        self.queue.put_back(place, waiter(), wait_policy);
        Ok(Entered::Waits(place))
    }

    /// A waiter gives up. `None` if it has been served, or refused, meanwhile. This is no sign of an overload: while the server is frozen, all
    /// waiters leave at their deadlines.
    pub(crate) fn leave(&mut self, id: WaiterId) -> Option<W> {
        let waiter = self.queue.remove(id)?;
        self.shadows.on_left(1);
        Some(waiter)
    }

    /// A connection being closed has ended.
    pub(crate) fn closed(&mut self) {
        self.closing -= 1;
    }

    /// How many dials are wanted, counted anew at each call so that none is made for nothing. They are under way from here on.
    pub(crate) fn begin_dials(&mut self, now: Instant) -> Begin {
        let wanted = match self.phase {
            PoolPhase::Closed => Wanted::default(),
            PoolPhase::Open | PoolPhase::Draining if self.is_shut() => Wanted::default(),
            PoolPhase::Open | PoolPhase::Draining => Wanted {
                dials: self.missing(now),
                room: self.limits.max_size.saturating_sub(self.taken()),
                at_once: self.held_back.unwrap_or(self.limits.max_connecting),
                most: self.limits.max_connecting,
            },
        };
        self.dials.begin(now, self.generation, wanted)
    }

    /// The instant named by [`Begin::ask_again`] has come.
    pub(crate) fn asking_again(&mut self) {
        self.dials.asking_again();
    }

    /// A dial has waited for the server for much longer than dials take: another may begin beside it.
    pub(crate) fn dial_is_quiet(&mut self, dial: u64) {
        self.dials.is_quiet(dial);
    }

    /// A dial has succeeded.
    pub(crate) fn dialed(&mut self, now: Instant, dial: u64, conn: C) -> Placed<C, W> {
        let generation = self.dials.succeeded(dial);
        let birth = self.birth(generation);
        let mut placed = self.place(now, self.time(now), conn, birth);
        match &mut placed.to {
            Place::Waiter(_, _, held) => held.is_unproven = true,
            Place::Idle | Place::Closing(_) => self.dials.proved_good(),
        }
        placed
    }

    /// The connection is good. If it is the first after dials that failed, they are forgotten.
    pub(crate) fn prove(&mut self, held: &mut Held<C>) {
        if held.is_unproven {
            held.is_unproven = false;
            self.dials.proved_good();
        }
    }

    /// A dial has failed. `jitter`, from 0 to 1, shortens the pause. Returns those who wait for nothing now.
    pub(crate) fn dial_failed(&mut self, now: Instant, dial: u64, trouble: Trouble, jitter: f64) -> Vec<(WaiterId, W)> {
        self.dials.failed(now, dial, trouble, jitter);
        self.give_up_hope(now)
    }

    /// A connection was retired unproven. As [`dial_failed`](Self::dial_failed).
    pub(crate) fn failed_before_first_use(&mut self, now: Instant, jitter: f64) -> Vec<(WaiterId, W)> {
        self.dials.back_off(now, Trouble::Passing, jitter);
        self.give_up_hope(now)
    }

    /// Everybody who waits, to be told to enter again.
    pub(crate) fn dismiss(&mut self) -> Vec<(WaiterId, W)> {
        self.shadows.on_left(self.queue.len());
        self.queue.drain()
    }

    /// A dial came to no end, through no fault of the server.
    pub(crate) fn dial_abandoned(&mut self, dial: u64) {
        self.dials.abandoned(dial);
    }

    /// Something is connected, or may be soon.
    fn is_alive(&self) -> bool {
        self.idle.len() + self.in_use + self.dials.len() > 0
    }

    fn is_shut(&self) -> bool {
        self.held_back == Some(0)
    }

    fn give_up_hope(&mut self, now: Instant) -> Vec<(WaiterId, W)> {
        if self.unreachable_for(now).is_none() {
            return Vec::new();
        }
        self.dismiss()
    }

    fn serve_at_once(&mut self, now: Instant) -> Result<Option<Held<C>>, Refusal> {
        if let Some(held) = self.take_idle(now) {
            return Ok(Some(held));
        }
        self.unreachable_for(now).map_or(Ok(None), |wait| Err(Refusal::Unreachable((), wait)))
    }

    /// The freshest that is not overdue; nearly always the last.
    fn freshest(&mut self) -> Option<Idle<C>> {
        if !self.is_overdue(self.idle.last()?) {
            return self.idle.pop();
        }
        let place = self.idle.iter().rposition(|idle| !self.is_overdue(idle))?;
        Some(self.idle.remove(place))
    }

    fn take_idle(&mut self, now: Instant) -> Option<Held<C>> {
        self.look_at_clock(now);
        let Idle { conn, birth, .. } = self.freshest()?;
        self.in_use += 1;
        // As long as others are idle, nothing is counted.
        if self.idle.is_empty() || !self.shadows.are_alike() {
            self.note_work(self.time(now));
        }
        Some(Held { is_expired: self.is_old(birth), ..Held::new(conn, Some(now), birth) })
    }

    /// How many dials are wanted: for those who wait, for whoever wishes for more, and so that some are idle. What is being drained keeps none: it
    /// would close each as soon as it is there, and dial the next.
    fn missing(&self, now: Instant) -> usize {
        let (idle, in_use) = (self.idle.len(), self.in_use);
        let wished = self.target.saturating_sub(idle + in_use);
        let is_kept = self.phase == PoolPhase::Open && self.kept.may_dial(now);
        let kept = if is_kept { self.limits.ages.min_idle } else { 0 };
        self.queue.len().max(wished).max(kept.saturating_sub(idle + self.settling))
    }

    /// Whether a connection that is placed now is one too many, or too old.
    fn is_surplus(&self, birth: Birth) -> bool {
        let live = self.idle.len() + self.in_use + self.dials.len();
        live >= self.limits.max_size || self.is_old(birth) || self.phase == PoolPhase::Closed
    }

    fn place(&mut self, now: Instant, time: Time, conn: C, birth: Birth) -> Placed<C, W> {
        let mut refused = Vec::new();
        if self.is_surplus(birth) {
            self.closing += 1;
            self.note_work(time);
            return Placed { to: Place::Closing(conn), refused };
        }
        while let Some((id, waiter, wait_policy)) = self.queue.pop() {
            if wait_policy.deadline.has_passed(now) {
                self.shadows.on_left(1);
                self.shadows.on_turned_away(time, self.forecast.wait_budget());
                refused.push((id, waiter, Refusal::TimedOut));
            } else if wait_policy.is_too_late(now, || self.lease_to_fit(now, time)) {
                self.shadows.on_left(1);
                self.shadows.on_turned_away(time, self.forecast.wait_budget());
                let retry_after = self.retry_after(time, self.queue.len(), 0.0);
                refused.push((id, waiter, Refusal::Shed(ShedReason::TooLate, retry_after)));
            } else {
                self.in_use += 1;
                self.shadows.on_served(self.queue.len() + 1, self.in_use);
                self.note_work(time);
                let held = Held::new(conn, Some(now), birth);
                return Placed { to: Place::Waiter(id, waiter, held), refused };
            }
        }
        if self.phase == PoolPhase::Draining {
            self.closing += 1;
            self.note_work(time);
            return Placed { to: Place::Closing(conn), refused };
        }
        // As long as others are idle, nothing is counted.
        let is_counted = self.idle.is_empty() || !self.shadows.are_alike();
        self.rest(conn, birth);
        if is_counted {
            self.shadows.on_served(0, self.in_use + 1);
            self.note_work(time);
        }
        Placed { to: Place::Idle, refused }
    }

    fn taken(&self) -> usize {
        self.dials.len() + self.idle.len() + self.in_use + self.closing
    }

    fn time(&self, now: Instant) -> Time {
        Time::of(now, self.begun)
    }

    fn note_work(&mut self, time: Time) {
        let idle = self.idle.len();
        self.forecast.on_working(time, if idle == 0 { self.in_use } else { 0 });
        self.shadows.on_idle(time, idle, || self.forecast.gap(time, 1));
    }
}

#[cfg(test)]
mod tests;

//! Who has a connection: the rules, as a synchronous state machine.
//!
//! A slot is the right to have one connection. It is in exactly one state:
//!
//! ```text
//!            begin_dials            place                 take, place
//!   (free) ─────────────▶ dialing ─────────▶ idle ◀──────────────────────▶ in use
//!      ▲                     │                 │                              │
//!      │    on_dial_failed   │                 │ close, flush, resize  retire │
//!      ├─────────────────────┘                 ▼                              │
//!      └────────────────────────────────── closing ◀──────────────────────────┘
//!                  on_closed
//! ```
//!
//! A connection that has to be settled after its lease stays in use until then, and is counted separately.
//!
//! Three rules are true after every transition: the slots never exceed the limit, no caller waits while a connection is
//! idle that it may have, and the waiters of a lane are served in order. A property test compares them with a reference
//! model. `lanes` says which lane comes first; until a caller names a lane, there is only one.
//!
//! A transition changes the state and returns what is left to do. The shell (`super`) does that after unlock: it
//! answers, wakes, drops and spawns.

mod admission;
mod ages;
mod changes;
mod endings;
mod fast_path;
mod held;
mod lanes;
mod lending;
mod line;
mod maintenance;
mod outcomes;
mod shares;
mod slow_readers;
mod view;

use std::collections::HashMap;
use std::time::{Duration, Instant};

pub(crate) use self::ages::{Ages, Check, Life};
use self::ages::{Idle, RedialPause};
use self::held::Birth;
pub(crate) use self::held::{Ended, Held};
use self::line::{Lanes, Line};
pub(crate) use self::outcomes::{Entered, Place, Placed, Refusal};
pub(crate) use super::dials::Begin;
use super::dials::{Dials, Wanted};
use super::queue::WaiterId;
use crate::policy::{Lane, LaneLimits, PerLane, ShedReason, Time, Trouble, WaitPolicy};

/// The largest pool: PostgreSQL's own upper bound of `max_connections`.
pub(crate) const MOST_CONNECTIONS: usize = 262_143;
/// The longest queue of a pool without shedding.
pub(crate) const MOST_WAITING: usize = 1_000_000;

/// A bound on memory, not on time. A waiter takes about 250 bytes, so the smallest pools need at most 2.5 MB. A pool of
/// 20 with leases of 1 ms serves that many waiters in half a second. The rule of refusal keeps the queue much shorter
/// when callers could not be served in time.
pub(crate) fn default_max_waiting(max_size: usize) -> usize {
    max_size.saturating_mul(100).clamp(10_000, MOST_WAITING)
}

/// The limits of a core, and the time that callers are expected to have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_size: usize,
    pub(crate) max_waiting: usize,
    pub(crate) max_connecting: usize,
    pub(crate) wait_budget: Duration,
    pub(crate) ages: Ages,
    pub(crate) lanes: PerLane<LaneLimits>,
}

/// The number of slots in each state, and of callers that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotCounts {
    pub(crate) limit: usize,
    pub(crate) dialing: usize,
    pub(crate) idle: usize,
    /// Leased by callers. Those that are being cleaned up or checked are in `settling`.
    pub(crate) in_use: usize,
    pub(crate) settling: usize,
    pub(crate) closing: usize,
    pub(crate) waiting: usize,
    pub(crate) max_waiting: usize,
    pub(crate) is_open: bool,
    /// All callers that have ever asked for a connection.
    pub(crate) arrivals: u64,
    /// The arrivals that found an idle connection.
    pub(crate) served_at_once: u64,
}

/// What one lane may use and uses, in connections and callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaneCounts {
    pub(crate) guaranteed: usize,
    pub(crate) at_most: usize,
    /// Also those that are being settled.
    pub(crate) in_use: usize,
    pub(crate) waiting: usize,
    pub(crate) predicted_wait: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PoolPhase {
    Open,
    /// Refuses newcomers and serves the waiters.
    Draining,
    Closed,
}

/// `C` is the connection, `W` the way to reach a waiter.
#[derive(Debug)]
pub(crate) struct Core<C, W> {
    limits: Limits,
    /// The most recently used connection is the last.
    idle: Vec<Idle<C>>,
    /// Includes `settling` and `used_by_pool`.
    in_use: usize,
    /// Connections that are being cleaned up after a lease, or checked.
    settling: usize,
    /// Connections that were idle and that the pool itself uses: borrowed, or being checked.
    used_by_pool: usize,
    closing: usize,
    dials: Dials,
    /// The callers of [`Lane::Normal`].
    normal: Line<W>,
    /// The other lanes. `None` until a caller names one.
    lanes: Option<Box<Lanes<W>>>,
    /// The number of the next waiter.
    next_waiter: u64,
    /// The pool does not use connections of an older generation again.
    generation: u32,
    /// For each connection with a slow reader: until when the reader keeps it at least.
    slow_readers: HashMap<u64, Instant>,
    /// The pool dials until it has so many connections, even if no caller waits for them.
    target: usize,
    /// The most dials at once while the circuit is not closed. At 0 no caller may wait.
    dial_limit: Option<usize>,
    /// The number of the latest change of `dial_limit`.
    last_change: u64,
    phase: PoolPhase,
    /// Callers that found an idle connection.
    served_at_once: u64,
    /// Callers that found no idle connection at first.
    entered: u64,
    /// Counts hand-outs on the fast path, modulo the sample rate of lease durations.
    fast_takes: u8,
    redial_pause: RedialPause,
    /// When the core began.
    begun: Instant,
    /// The age of the core when it last read a clock, in units of [`MOMENT`](self::ages::MOMENT).
    moment: u32,
    /// When `moment` grows.
    next_moment: Instant,
}

impl<C, W> Core<C, W> {
    pub(crate) fn new(now: Instant, limits: Limits) -> Self {
        Self {
            limits,
            idle: Vec::new(),
            in_use: 0,
            settling: 0,
            used_by_pool: 0,
            closing: 0,
            dials: Dials::new(),
            normal: Line::new(limits.wait_budget),
            lanes: None,
            next_waiter: 0,
            generation: 0,
            slow_readers: HashMap::new(),
            target: 0,
            dial_limit: None,
            last_change: 0,
            phase: PoolPhase::Open,
            served_at_once: 0,
            entered: 0,
            fast_takes: 0,
            redial_pause: RedialPause::default(),
            begun: now,
            moment: 0,
            next_moment: now,
        }
    }

    /// Takes the most recently used idle connection: it is the likeliest to be alive and to have warm caches.
    pub(crate) fn take(&mut self, now: Instant, lane: Lane) -> Option<Held<C>> {
        self.open_lane(lane);
        let taken = if self.phase == PoolPhase::Open { self.take_idle(now, lane) } else { None };
        self.served_at_once += u64::from(taken.is_some());
        taken
    }

    /// Gives a caller an idle connection, puts it into the queue, or refuses it.
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
        let lane = wait_policy.lane;
        self.open_lane(lane);
        if let Some(held) = self.serve_at_once(now, lane)? {
            return Ok(Entered::Took(held));
        }
        if self.is_circuit_open() {
            return Err(Refusal::CircuitOpen);
        }
        // A connection that is idle but overdue for a check counts as free.
        if self.idle_for(lane) == 0 {
            self.admit(now, &wait_policy)?;
        }
        let number = self.next_waiter;
        self.next_waiter += 1;
        Ok(Entered::Waits(self.line_mut(lane).queue.push(number, waiter(), wait_policy)))
    }

    /// As [`enter`](Self::enter), for a waiter that got an unusable connection or was dismissed. It waits in its old
    /// place, and the rule of refusal does not apply to it.
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
        if let Some(held) = self.serve_at_once(now, place.lane())? {
            return Ok(Entered::Took(held));
        }
        if self.is_circuit_open() {
            return Err(Refusal::CircuitOpen);
        }
        self.line_mut(place.lane()).queue.put_back(place, waiter(), wait_policy);
        Ok(Entered::Waits(place))
    }

    /// Removes a waiter that gives up. Returns `None` if it has been served or refused meanwhile.
    ///
    /// A waiter that leaves is no sign of an overload: while the server is frozen, all waiters leave at their
    /// deadlines.
    pub(crate) fn leave(&mut self, id: WaiterId) -> Option<W> {
        let line = self.line_mut(id.lane());
        let waiter = line.queue.remove(id)?;
        line.shadows.on_left(1);
        Some(waiter)
    }

    /// A closing connection has ended. Its slot is free.
    pub(crate) fn on_closed(&mut self) {
        self.closing -= 1;
    }

    /// Begins the dials that are wanted now. Each call counts anew, so that no dial is made for nothing.
    pub(crate) fn begin_dials(&mut self, now: Instant) -> Begin {
        let wanted = match self.phase {
            PoolPhase::Closed => Wanted::default(),
            PoolPhase::Open | PoolPhase::Draining if self.is_circuit_open() => Wanted::default(),
            PoolPhase::Open | PoolPhase::Draining => Wanted {
                dials: self.missing(now),
                free_slots: self.limits.max_size.saturating_sub(self.taken()),
                concurrent: self.dial_limit.unwrap_or(self.limits.max_connecting),
                most: self.limits.max_connecting,
            },
        };
        self.dials.begin(now, self.generation, wanted)
    }

    /// The instant named by [`Begin::ask_again`] has come.
    pub(crate) fn on_asked_again(&mut self) {
        self.dials.on_asked_again();
    }

    /// A dial has waited much longer for the server than dials usually take. Another may begin beside it.
    pub(crate) fn on_dial_quiet(&mut self, dial: u64) {
        self.dials.on_quiet(dial);
    }

    /// A dial has succeeded. Places its connection.
    pub(crate) fn on_dialed(&mut self, now: Instant, dial: u64, conn: C) -> Placed<C, W> {
        let generation = self.dials.on_success(dial);
        let birth = self.birth(generation);
        let mut placed = self.place(now, self.time(now), conn, birth);
        match &mut placed.to {
            Place::Waiter(_, _, held) => held.is_unproven = true,
            Place::Idle | Place::Closing(_) => self.dials.on_proved(),
        }
        placed
    }

    /// The connection works. If it is the first one after failed dials, the pause between dials ends.
    pub(crate) fn prove(&mut self, held: &mut Held<C>) {
        if held.is_unproven {
            held.is_unproven = false;
            self.dials.on_proved();
        }
    }

    /// A dial has failed. `jitter`, from 0 to 1, shortens the pause before the next. Returns the waiters to refuse.
    pub(crate) fn on_dial_failed(
        &mut self,
        now: Instant,
        dial: u64,
        trouble: Trouble,
        jitter: f64,
    ) -> Vec<(WaiterId, W)> {
        self.dials.on_failure(now, dial, trouble, jitter);
        self.dismiss_if_unreachable(now)
    }

    /// A new connection was dead before its first use. It counts like a [failed dial](Self::on_dial_failed).
    pub(crate) fn on_failed_before_first_use(&mut self, now: Instant, jitter: f64) -> Vec<(WaiterId, W)> {
        self.dials.back_off(now, Trouble::Passing, jitter);
        self.dismiss_if_unreachable(now)
    }

    /// Takes all waiters out of their queues.
    pub(crate) fn dismiss(&mut self) -> Vec<(WaiterId, W)> {
        let mut waiters = Vec::new();
        for line in self.lines_mut() {
            line.shadows.on_left(line.queue.len());
            waiters.extend(line.queue.drain());
        }
        waiters
    }

    /// A dial was cut short, through no fault of the server.
    pub(crate) fn on_dial_abandoned(&mut self, dial: u64) {
        self.dials.on_abandoned(dial);
    }

    /// Returns whether there is a connection, or a dial under way.
    fn is_alive(&self) -> bool {
        self.idle.len() + self.in_use + self.dials.len() > 0
    }

    fn is_circuit_open(&self) -> bool {
        self.dial_limit == Some(0)
    }

    fn dismiss_if_unreachable(&mut self, now: Instant) -> Vec<(WaiterId, W)> {
        if self.unreachable_for(now).is_none() {
            return Vec::new();
        }
        self.dismiss()
    }

    fn serve_at_once(&mut self, now: Instant, lane: Lane) -> Result<Option<Held<C>>, Refusal> {
        if let Some(held) = self.take_idle(now, lane) {
            return Ok(Some(held));
        }
        self.unreachable_for(now).map_or(Ok(None), |wait| Err(Refusal::Unreachable((), wait)))
    }

    /// Takes the most recently used connection that is not overdue for a check: nearly always the last.
    #[inline(always)] // every caller comes this way
    fn freshest(&mut self) -> Option<Idle<C>> {
        let is_last = self.idle.last().map(|last| !self.is_overdue(last))?;
        if is_last { self.idle.pop() } else { self.freshest_before_last() }
    }

    #[cold]
    fn freshest_before_last(&mut self) -> Option<Idle<C>> {
        let place = self.idle.iter().rposition(|idle| !self.is_overdue(idle))?;
        Some(self.idle.remove(place))
    }

    fn take_idle(&mut self, now: Instant, lane: Lane) -> Option<Held<C>> {
        self.update_moment(now);
        if !self.may_take(now, lane) {
            return None;
        }
        let Idle { conn, birth, .. } = self.freshest()?;
        let time = self.time(now);
        self.begin_lease(time, lane);
        if self.needs_estimates() {
            self.record_work(time);
        }
        let held = Held::new(conn, Some(time), self.moment, birth, Some(lane));
        Some(Held { is_expired: self.is_old(birth), ..held })
    }

    /// How many dials are wanted: for the waiters, for the target, and for `min_idle`. A draining pool keeps no
    /// connection idle: it would close each new connection at once and dial the next.
    fn missing(&mut self, now: Instant) -> usize {
        let wished = self.target.saturating_sub(self.live());
        let may_dial = self.phase == PoolPhase::Open && self.redial_pause.may_dial(now);
        let min_idle = if may_dial { self.limits.ages.min_idle } else { 0 };
        self.servable(now).max(wished).max(min_idle.saturating_sub(self.idle.len() + self.settling))
    }

    /// Returns whether the pool has to close a connection instead of placing it: it is beyond the limit, or too old.
    fn is_surplus(&self, birth: Birth) -> bool {
        self.live() + self.dials.len() >= self.limits.max_size || self.is_old(birth) || self.phase == PoolPhase::Closed
    }

    /// Gives a free connection to the first waiter of the next lane that can still finish in time. Otherwise it becomes
    /// idle, or is closed.
    fn place(&mut self, now: Instant, time: Time, conn: C, birth: Birth) -> Placed<C, W> {
        let mut refused = Vec::new();
        if self.is_surplus(birth) {
            self.closing += 1;
            self.record_work(time);
            return Placed { to: Place::Closing(conn), refused };
        }
        while let Some(lane) = self.next_lane(now) {
            let Some((id, waiter, wait_policy)) = self.line_mut(lane).queue.pop() else { break };
            if wait_policy.deadline.has_passed(now) {
                self.on_turned_away(lane, time);
                refused.push((id, waiter, Refusal::TimedOut));
            } else if wait_policy.is_too_late(now, || {
                let in_use = self.in_use_of(lane);
                self.line_mut(lane).lease_to_fit(now, time, in_use)
            }) {
                self.on_turned_away(lane, time);
                let retry_after = self.retry_after(lane, time);
                refused.push((id, waiter, Refusal::Shed(ShedReason::TooLate, retry_after)));
            } else {
                self.begin_lease(time, lane);
                let in_use = self.in_use_of(lane);
                let line = self.line_mut(lane);
                line.shadows.on_served(line.queue.len() + 1, in_use);
                self.record_work(time);
                self.update_moment(now);
                let held = Held::new(conn, Some(time), self.moment, birth, Some(lane));
                return Placed { to: Place::Waiter(id, waiter, held), refused };
            }
        }
        if self.phase == PoolPhase::Draining {
            self.closing += 1;
            self.record_work(time);
            return Placed { to: Place::Closing(conn), refused };
        }
        let needs_estimates = self.needs_estimates();
        self.push_idle(conn, birth);
        if needs_estimates {
            self.on_idle();
            self.record_work(time);
        }
        Placed { to: Place::Idle, refused }
    }

    fn taken(&self) -> usize {
        self.dials.len() + self.live() + self.closing
    }

    /// While other connections are idle, the estimates need no update.
    fn needs_estimates(&self) -> bool {
        self.idle.is_empty() || !self.normal.shadows.are_alike() || self.lanes.is_some()
    }

    fn time(&self, now: Instant) -> Time {
        Time::of(now, self.begun)
    }
}

#[cfg(test)]
mod tests;

//! How many callers may wait in an overload?
//!
//! The pool follows *shadow queues*: it counts how queues of other depths would have served the same callers with the
//! same leases. The deepest is the *plain queue*, which refuses only a caller that it cannot serve in time.
//!
//! The pool is overloaded when the plain queue has refused callers for half a wait budget. Then the pool's queue is as
//! deep as the shallowest shadow queue that has lost at most half a percent of the plain queue's work. A shadow queue
//! loses work when its connections are idle while the plain queue still has callers.
//! `docs/decisions/0001-when-to-refuse.md` has the reasons.
//!
//! Each shadow queue is stored as its difference from the pool's own queue, so following them costs nothing until the
//! pool refuses callers.

use super::Time;

const QUEUES: usize = 16;
/// The depth of each queue, as a multiple of the number of connections. Half as many waiters as connections keep the
/// connections busy until the next callers arrive.
const DEPTHS: [f32; QUEUES] =
    [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0, 128.0, 512.0, f32::INFINITY];
const PLAIN: usize = QUEUES - 1;
/// An overload begins when the plain queue has turned callers away for this many wait budgets. A single batch of
/// callers is no overload.
const BEGINS: f64 = 0.45;
/// An overload has also lasted at least this many times the longest pause between two refusals.
const PAUSES: f64 = 2.1;
/// An overload ends after a pause of this many wait budgets.
const ENDS: f64 = 0.5;
/// A pause of fewer releases than this is chance.
const FEW: f64 = 4.0;
/// A shadow queue that has lost more than this share of the plain queue's work is too shallow.
const TOLERATED: f32 = 0.005;
/// An overload of at least this many wait budgets was no burst. Then the shallower queues' losses since its end are
/// forgiven: the plain queue only served the callers that were left in it.
const LASTING: f64 = 32.0;
/// This many lost calls are chance. So is one lost call for each connection, if that is more.
const CHANCE: f32 = 3.0;
/// Losses decay over the work of this many wait budgets.
const MEMORY: f64 = 64.0;
/// The pool chooses a depth anew after this part of a wait budget.
const STEP: f64 = 1.0 / 32.0;
/// A difference of less than this part of a call is rounding.
const NOTHING: f32 = 0.01;

#[derive(Debug)]
pub(crate) struct ShadowQueues {
    /// How many more callers wait in each queue than in the pool's own. An idle connection counts as minus one caller.
    more: [f32; QUEUES],
    /// Calls that the plain queue has served and this queue has not. Decays.
    lost: [f32; QUEUES],
    /// `lost` when the plain queue last turned a caller away: the overload may have ended there.
    lost_till_then: [f32; QUEUES],
    /// How many callers may wait in each queue, with `connections` connections.
    depths: [f32; QUEUES],
    connections: usize,
    /// Whether the depths apply: they do in an overload.
    are_limited: bool,
    /// Whether any queue differs from the pool's own.
    differ: bool,
    /// Calls that the plain queue has served. Decays.
    served: f32,
    /// Calls that the plain queue has served since the last choice.
    served_lately: f32,
    turned_away: Option<TurnedAway>,
    /// The shallowest queue that loses nothing.
    best: usize,
    /// When `best` was chosen.
    chosen: Time,
    /// The mean time from one release to the next at that time, in seconds.
    gap: f64,
    /// The pool's idle connections since `counted`.
    idle: usize,
    counted: Time,
}

/// A time in which the plain queue turns callers away.
#[derive(Debug, Clone, Copy)]
struct TurnedAway {
    first: Time,
    last: Time,
    /// The longest pause between two refusals, in seconds.
    pause: f64,
    /// The start of the time in which the plain queue has never been empty.
    full_since: Time,
}

impl TurnedAway {
    fn lasted(&self) -> f64 {
        self.last.since(self.first)
    }

    fn pause(&self, now: Time) -> f64 {
        now.since(self.last)
    }
}

/// A caller that arrived while no connection was idle, and what the pool did with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// How many callers wait in the pool's own queue.
    pub(crate) waiting: usize,
    /// The largest number of callers ahead with which this caller can still be served in time.
    pub(crate) fits_behind: f64,
    pub(crate) is_admitted: bool,
    pub(crate) is_overloaded: bool,
    pub(crate) connections: usize,
    /// The wait budget of callers, on average, in seconds.
    pub(crate) wait_budget: f64,
}

impl ShadowQueues {
    pub(crate) fn new() -> Self {
        Self {
            more: [0.0; QUEUES],
            lost: [0.0; QUEUES],
            lost_till_then: [0.0; QUEUES],
            depths: [1.0; QUEUES],
            connections: 0,
            are_limited: false,
            differ: false,
            served: 0.0,
            served_lately: 0.0,
            turned_away: None,
            best: 0,
            chosen: Time::BEGIN,
            gap: 0.0,
            idle: 0,
            counted: Time::BEGIN,
        }
    }

    /// Returns whether the plain queue has turned callers away for some time, the last of them recently.
    pub(crate) fn is_overloaded(&self, now: Time, wait_budget: f64) -> bool {
        let few = FEW * self.gap;
        self.turned_away.is_some_and(|turned| {
            turned.pause(now) < (ENDS * wait_budget).max(few)
                && turned.lasted() >= BEGINS * wait_budget
                && (turned.pause <= few || turned.lasted() >= PAUSES * turned.pause)
        })
    }

    /// Returns whether every shadow queue equals the pool's own queue.
    pub(crate) fn are_alike(&self) -> bool {
        !self.differ
    }

    /// Returns how many callers may wait in an overload. `None` if depth is no reason to refuse. `gap` is the mean time
    /// from one release to the next, in seconds.
    pub(crate) fn depth(&mut self, now: Time, wait_budget: f64, gap: f64, connections: usize) -> Option<usize> {
        if now.since(self.chosen) > STEP * wait_budget {
            (self.chosen, self.gap) = (now, gap);
            self.choose(wait_budget / gap, connections as f32);
        }
        (self.best < PLAIN).then(|| ((DEPTHS[self.best] * connections as f32) as usize).max(1))
    }

    pub(crate) fn on_arrival(&mut self, now: Time, arrival: Arrival) {
        let Arrival { waiting, fits_behind, is_admitted, is_overloaded, connections, wait_budget } = arrival;
        if is_admitted && !self.differ && !is_overloaded && waiting as f64 <= fits_behind {
            self.are_limited = false;
            return;
        }
        if self.connections != connections {
            self.connections = connections;
            self.depths = DEPTHS.map(|depth| (depth * connections as f32).floor().max(1.0));
        }
        // A caller arrives here only while no connection is idle.
        (self.idle, self.counted) = (0, now);
        let (waiting, fits_behind) = (waiting as f32, fits_behind as f32);
        if waiting + self.more[PLAIN] > fits_behind {
            self.on_turned_away(now, wait_budget);
        }
        let were_limited = std::mem::replace(&mut self.are_limited, is_overloaded);
        if is_overloaded && !were_limited {
            // A queue that always had its depth would have refused the callers that wait beyond it.
            for (more, depth) in self.more.iter_mut().zip(self.depths) {
                *more = more.min(depth - waiting);
            }
        }
        let admitted = f32::from(is_admitted);
        let mut differ = 0.0;
        for (more, depth) in self.more.iter_mut().zip(self.depths) {
            let depth = if is_overloaded { depth } else { f32::INFINITY };
            let level = waiting + *more;
            let joins = (level <= fits_behind) & (level < depth);
            *more += if joins { 1.0 } else { 0.0 } - admitted;
            differ += more.abs();
        }
        self.differ = differ > 0.0;
    }

    /// The plain queue turned a caller away. A caller that leaves at its deadline, or whose turn comes too late, counts
    /// as turned away too.
    pub(crate) fn on_turned_away(&mut self, now: Time, wait_budget: f64) {
        let Some(turned) = &mut self.turned_away else {
            self.turned_away = Some(TurnedAway { first: now, last: now, pause: 0.0, full_since: now });
            return;
        };
        let pause = turned.pause(now);
        if pause < (ENDS * wait_budget).max(FEW * self.gap) {
            turned.pause = turned.pause.max(pause);
        } else {
            (turned.first, turned.pause) = (now, 0.0);
        }
        if pause > wait_budget {
            if turned.last.since(turned.full_since) > LASTING * wait_budget {
                self.lost = self.lost_till_then;
            }
            turned.full_since = now;
        }
        turned.last = now;
        self.lost_till_then = self.lost;
    }

    /// This many callers left the pool's own queue without being served. They had waited longest, so a shorter shadow
    /// queue did not hold them any more.
    pub(crate) fn on_left(&mut self, callers: usize) {
        if !self.differ {
            return;
        }
        for more in self.more.iter_mut().filter(|more| **more < 0.0) {
            *more = (*more + callers as f32).min(0.0);
        }
    }

    /// A connection was given back or made while `waiting` callers waited.
    pub(crate) fn on_served(&mut self, waiting: usize, connections: usize) {
        self.served_lately += 1.0;
        // The shallowest queue has the fewest callers. As long as it has one, all queues use the connection.
        if !self.differ || waiting as f32 + self.more[0] >= 0.0 {
            return;
        }
        // In a shadow queue with idle connections, the connection that was given back may be one of them.
        let unused = |more: f32| (-(waiting as f32 + more) / connections as f32).clamp(0.0, 1.0);
        let plain = unused(self.more[PLAIN]);
        for (more, lost) in self.more.iter_mut().zip(&mut self.lost) {
            let unused = unused(*more);
            *more += unused;
            *lost += unused - plain;
        }
    }

    /// From now on `idle` connections are idle. `lease` returns how long a lease lasts, in seconds.
    pub(crate) fn on_idle(&mut self, now: Time, idle: usize, lease: impl FnOnce() -> Option<f64>) {
        if !self.differ {
            return;
        }
        let since = std::mem::replace(&mut self.counted, now);
        let idle = std::mem::replace(&mut self.idle, idle) as f32;
        if idle == 0.0 {
            return;
        }
        let leases = lease().map_or(1.0, |lease| now.since(since) / lease) as f32;
        // A deeper queue still has callers for the idle connections. A shallower queue had them idle earlier, and
        // equals the pool's own queue from now on.
        let served = |more: f32| if more < 0.0 { more } else { (more.min(idle) * leases).min(more) };
        let plain = served(self.more[PLAIN]);
        self.served_lately += plain.max(0.0);
        self.differ = false;
        for (more, lost) in self.more.iter_mut().zip(&mut self.lost) {
            let served = served(*more);
            *lost += plain - served;
            *more -= served;
            if *more < NOTHING {
                *more = 0.0;
            }
            self.differ |= *more != 0.0;
        }
    }

    /// Lets the counts decay and chooses the best queue. `budget` is how many calls are served within a wait budget.
    fn choose(&mut self, budget: f64, connections: f32) {
        let kept = (-f64::from(self.served_lately) / (budget * MEMORY)).exp() as f32;
        self.served = self.served * kept + self.served_lately;
        self.served_lately = 0.0;
        self.lost.iter_mut().for_each(|lost| *lost *= kept);
        let tolerated = (self.served * TOLERATED).max(CHANCE).max(connections);
        self.best = self.lost.iter().position(|lost| *lost <= tolerated).unwrap_or(PLAIN);
    }
}

#[cfg(test)]
mod tests;

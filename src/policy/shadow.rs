//! How many callers may wait in an overload?
//!
//! The pool follows *shadow queues*: it counts how queues of other depths would have fared with the same callers and
//! the same leases.
//!
//! 1. The deepest of them is the *plain queue*, where everybody waits who can be served in time. As long as it turns
//!    nobody away, the pool refuses nobody because of the depth of its own queue. When it has turned callers away for
//!    half a wait budget, the pool is overloaded.
//! 2. In an overload, the pool's queue is as deep as the shallowest shadow queue that has lost no more than half a
//!    percent of the plain queue's work.
//! 3. A shadow queue loses work when it leaves connections idle while the plain queue has somebody to serve: a burst
//!    was too large for it. So a pool whose callers come in bursts keeps the depth that the bursts need, and a pool
//!    whose callers come evenly answers fast.
//! 4. A shadow queue has its depth from the first moment of an overload. The pool's own queue is deep then and takes
//!    most of a wait budget to become shallow: until then the depth that the bursts need is known, and nothing has been
//!    lost to find it.
//!
//! When a long overload ends, the plain queue has callers for a while longer, and what the others lose by it is
//! forgiven; after a short one it counts, for that was a burst.
//!
//! What a shadow queue does follows from who arrives, how fast connections are given back, and how long they are idle.
//! It does not follow from who was refused. So refusals cannot lead to more refusals.
//!
//! Each shadow queue is kept as its difference from the pool's own queue. As long as nobody is refused there is none,
//! and following them costs nothing.

use super::Time;

const QUEUES: usize = 16;
/// How many may wait in each, in connections. Half as many keep the connections busy until the next callers come.
const DEPTHS: [f32; QUEUES] =
    [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0, 128.0, 512.0, f32::INFINITY];
const PLAIN: usize = QUEUES - 1;
/// An overload begins when callers have been turned away for so many wait budgets. A single batch is no overload.
const BEGINS: f64 = 0.45;
/// And for so many times the longest pause between.
const PAUSES: f64 = 2.1;
/// It ends after a pause of so many wait budgets.
const ENDS: f64 = 0.5;
/// A pause of fewer releases than this is chance.
const FEW: f64 = 4.0;
/// A shadow queue that has lost more than this share of the plain queue's work is too shallow.
const TOLERATED: f32 = 0.005;
/// When the plain queue turns nobody away for a wait budget, it has worked off what was left of an overload. That
/// shallower ones had less left is forgiven if the overload had lasted for so many wait budgets: it was no burst.
const LASTING: f64 = 32.0;
/// So many lost calls are chance, and one for each connection.
const CHANCE: f32 = 3.0;
/// Losses are forgotten over the work of so many wait budgets.
const MEMORY: f64 = 64.0;
/// A choice holds for this part of a wait budget.
const STEP: f64 = 1.0 / 32.0;
/// Less than this part of a call is no difference.
const NOTHING: f32 = 0.01;

#[derive(Debug)]
pub(crate) struct ShadowQueues {
    /// How many more wait there than in the pool's own queue. An idle connection counts as a caller less.
    more: [f32; QUEUES],
    /// Calls that the plain queue has served and this one has not, leaking.
    lost: [f32; QUEUES],
    /// The same when the plain queue last turned a caller away: the overload may have ended there.
    lost_till_then: [f32; QUEUES],
    /// How many may wait in each, with so many connections.
    depths: [f32; QUEUES],
    connections: usize,
    /// Whether each has its depth: in an overload.
    are_limited: bool,
    /// Whether any of them differs from the pool's own queue.
    differ: bool,
    /// Calls that the plain queue has served, leaking; and those since the last choice.
    served: f32,
    served_lately: f32,
    /// When callers were first and last turned away, without a pause between.
    turned_away: Option<TurnedAway>,
    /// The shallowest queue that loses nothing, since when, and the gap between two releases at that time, in seconds.
    best: usize,
    chosen: Time,
    gap: f64,
    /// So many of the pool's connections are idle. Counted up to here.
    idle: usize,
    counted: Time,
}

/// A time in which the plain queue turns callers away.
#[derive(Debug, Clone, Copy)]
struct TurnedAway {
    first: Time,
    last: Time,
    /// The longest pause, in seconds.
    pause: f64,
    /// Since when the plain queue has always had callers left.
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

/// A caller that asks while nothing is idle, and what became of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// How many wait in the pool's own queue.
    pub(crate) waiting: usize,
    /// Behind how many others the caller could be served in time.
    pub(crate) fits_behind: f64,
    pub(crate) is_admitted: bool,
    /// Whether the pool is overloaded.
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

    /// Whether a plain queue would have turned callers away for a while, and lately.
    pub(crate) fn is_overloaded(&self, now: Time, wait_budget: f64) -> bool {
        let few = FEW * self.gap;
        self.turned_away.is_some_and(|turned| {
            turned.pause(now) < (ENDS * wait_budget).max(few)
                && turned.lasted() >= BEGINS * wait_budget
                && (turned.pause <= few || turned.lasted() >= PAUSES * turned.pause)
        })
    }

    /// Whether none differs from the pool's own queue.
    pub(crate) fn are_alike(&self) -> bool {
        !self.differ
    }

    /// How many may wait in an overload. `gap`: the mean time from one release to the next, in seconds. `None` if depth
    /// is no reason to refuse.
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
        // Nothing is idle.
        (self.idle, self.counted) = (0, now);
        let (waiting, fits_behind) = (waiting as f32, fits_behind as f32);
        if waiting + self.more[PLAIN] > fits_behind {
            self.on_turned_away(now, wait_budget);
        }
        let were_limited = std::mem::replace(&mut self.are_limited, is_overloaded);
        if is_overloaded && !were_limited {
            // Whoever waits beyond its depth since before the overload would have been refused by a queue that always
            // had it.
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

    /// A caller was turned away by a plain queue, or would have been: it left at its deadline, or its turn came too
    /// late.
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

    /// So many callers have left the pool's own queue without being served. They had waited longest: a shadow queue in
    /// which fewer wait has them no more.
    pub(crate) fn on_left(&mut self, callers: usize) {
        if !self.differ {
            return;
        }
        for more in self.more.iter_mut().filter(|more| **more < 0.0) {
            *more = (*more + callers as f32).min(0.0);
        }
    }

    /// A connection was given back, or made, while so many waited.
    pub(crate) fn on_served(&mut self, waiting: usize, connections: usize) {
        self.served_lately += 1.0;
        // The shallowest has the fewest callers. As long as it has one, all use the connection.
        if !self.differ || waiting as f32 + self.more[0] >= 0.0 {
            return;
        }
        // The connection that was given back may be one of those that are idle there.
        let unused = |more: f32| (-(waiting as f32 + more) / connections as f32).clamp(0.0, 1.0);
        let plain = unused(self.more[PLAIN]);
        for (more, lost) in self.more.iter_mut().zip(&mut self.lost) {
            let unused = unused(*more);
            *more += unused;
            *lost += unused - plain;
        }
    }

    /// From now on so many connections are idle. `lease`: how long a lease lasts, in seconds.
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
        // A deeper queue still has callers for the idle connections. A shallower one has had them idle before, and is
        // alike from now on.
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

    /// Forgets what is long ago, and chooses. `budget`: how many calls are served within a wait budget.
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

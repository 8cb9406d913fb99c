//! How long would a caller wait, and is that too long?
//!
//! Three questions, each answered from what the pool itself sees, and each with its own memory:
//!
//! - **How long would the next one wait?** By Little's law, `(waiters + 1) x hold / connections`. The hold is measured where it
//!   matters, while nothing is idle: connection-seconds of work by releases. Two such averages are kept, leaking over the room that
//!   callers have and over four times that, and the smaller counts: a stall is forgiven, a lasting slowdown is not. A pool that releases nothing
//!   is bounded by the time since it last did.
//! - **Is this an overload?** A queue that stands for longer than callers have room, and is deep, while clearly more arrive than are released, over the
//!   longer time: below capacity, what arrives in one moment is released in another.
//! - **Could this one still finish?** The median of the last few holds, or more if the last ones were longer.
//!
//! All of it ages when the pool rests, and says nothing before it has seen a few releases.

use std::time::{Duration, Instant};

/// Fewer releases than this are no estimate.
const ENOUGH: f64 = 3.0;
/// Clearly more arrive than are released. Below capacity, a few percent more is chance.
const SURPLUS: f64 = 1.15;
/// A lasting change is one that lasts for so many rooms.
const LASTS: f64 = 4.0;
/// Nothing is released for so many times as long as usual: something is wrong, and it will last as long again.
const STALLED: f64 = 3.0;
/// A queue stands when it has not been empty for so many rooms.
const STANDS: f64 = 2.0;
/// A queue is deep when it costs this much of the room that callers have.
const DEEP: f64 = 0.7;
/// An overload is over when nobody has waited for so long, or when no longer clearly more arrive than are released.
const CALM: Duration = Duration::from_millis(100);
/// Holds remembered: few, so that a pool of one connection notices a slowdown within two of them.
const HOLDS: usize = 7;
/// Of what is only known to take at least so long: by nobody knows how much it is longer, and who has just as much time left would be late.
const LONGER: f64 = 1.25;
/// One caller's room moves the average by this much.
const WEIGHT: f64 = 1.0 / 16.0;
/// Averages are aged so often within the time over which they leak: seldom enough to cost nothing.
const FINENESS: f64 = 1.0 / 32.0;
const SHORTEST_ROOM: f64 = 0.001;

#[derive(Debug)]
pub(crate) struct Forecast {
    /// The time that callers have, on average, in seconds.
    room: f64,
    short: Flow,
    long: Flow,
    /// Up to here the averages have been aged, and up to here work has been counted.
    aged: Instant,
    counted: Instant,
    /// When the averages are to be aged next.
    ages_at: Instant,
    /// Connections at work while nothing is idle; 0 while something is.
    working: usize,
    /// The later of the last release and the moment since which nothing is idle.
    progress: Instant,
    /// The moment since which nothing is idle.
    busy_since: Instant,
    holds: Holds,
    queue: Queue,
}

/// Work and releases while nothing was idle, leaking.
#[derive(Debug, Default)]
struct Flow {
    connection_seconds: f64,
    releases: f64,
}

impl Flow {
    fn age(&mut self, factor: f64) {
        self.connection_seconds *= factor;
        self.releases *= factor;
    }

    fn hold(&self) -> Option<f64> {
        (self.releases >= ENOUGH).then(|| self.connection_seconds / self.releases)
    }
}

/// The last holds, in microseconds.
#[derive(Debug)]
struct Holds {
    ring: [u32; HOLDS],
    seen: usize,
}

/// Whether callers wait, and how many come.
#[derive(Debug)]
struct Queue {
    standing_since: Option<Instant>,
    empty_since: Instant,
    /// While nothing was idle, leaking as the longer flow does.
    arrivals: f64,
    overloaded: bool,
}

impl Forecast {
    /// `room`: the time that callers are expected to have, until they show it.
    pub(crate) fn new(now: Instant, room: Duration) -> Self {
        Self {
            room: room.as_secs_f64().max(SHORTEST_ROOM),
            short: Flow::default(),
            long: Flow::default(),
            aged: now,
            counted: now,
            ages_at: now,
            working: 0,
            progress: now,
            busy_since: now,
            holds: Holds { ring: [0; HOLDS], seen: 0 },
            queue: Queue { standing_since: None, empty_since: now, arrivals: 0.0, overloaded: false },
        }
    }

    /// From now on, nothing is idle and `working` connections are at work; or something is idle (0).
    pub(crate) fn on_working(&mut self, now: Instant, working: usize) {
        self.count(now);
        if self.working == 0 && working > 0 {
            (self.progress, self.busy_since) = (now, now);
        }
        self.working = working;
    }

    /// A connection that was held for `hold` has been given back. Told before [`on_working`](Self::on_working).
    pub(crate) fn on_release(&mut self, now: Instant, hold: Duration) {
        self.holds.push(hold);
        self.on_end(now);
    }

    /// A connection has been given back whose work was given up after `hold`: it would have taken longer. Told before [`on_working`](Self::on_working).
    pub(crate) fn on_given_up(&mut self, now: Instant, hold: Duration) {
        let known = self.typical_hold().unwrap_or_default();
        self.on_release(now, hold.mul_f64(LONGER).max(known));
    }

    /// A connection has been given back that was taken while others were idle, nobody knows when. Told before [`on_working`](Self::on_working).
    pub(crate) fn on_untimed(&mut self, now: Instant) {
        let at_least = now.saturating_duration_since(self.busy_since);
        if self.working > 0 && self.typical_hold().is_some_and(|typical| at_least > typical) {
            self.on_release(now, at_least.mul_f64(LONGER));
        } else {
            self.on_end(now);
        }
    }

    /// A lease has ended, in whatever way; [`on_release`](Self::on_release) tells so itself. Told before [`on_working`](Self::on_working).
    pub(crate) fn on_end(&mut self, now: Instant) {
        if self.working > 0 {
            self.count(now);
            self.progress = now;
            self.short.releases += 1.0;
            self.long.releases += 1.0;
        }
    }

    /// Somebody with this much room asks while nothing is idle.
    pub(crate) fn on_arrival(&mut self, now: Instant, room: Duration) {
        self.room += (room.as_secs_f64() - self.room) * WEIGHT;
        self.room = self.room.max(SHORTEST_ROOM);
        self.age(now);
        self.queue.arrivals += 1.0;
    }

    /// The first waiter has come into an empty queue.
    pub(crate) fn on_queue_begins(&mut self, now: Instant) {
        if now.saturating_duration_since(self.queue.empty_since) >= CALM {
            self.queue.overloaded = false;
        }
        self.queue.standing_since = Some(now);
    }

    /// The last waiter has gone.
    pub(crate) fn on_queue_ends(&mut self, now: Instant) {
        if self.queue.standing_since.take().is_some() {
            self.queue.empty_since = now;
        }
    }

    /// How long a caller behind `ahead` others would wait, with so many connections at work. `None` as long as nobody knows.
    /// In seconds: who asks while all fight for the lock is not kept by conversions.
    pub(crate) fn wait(&mut self, now: Instant, ahead: usize, connections: usize) -> Option<f64> {
        let gap = self.gap(now, connections)?;
        let since = now.saturating_duration_since(self.progress).as_secs_f64();
        let wait = gap * (ahead + 1) as f64 - since.min(gap);
        Some(if since > gap * STALLED { wait.max(since) } else { wait })
    }

    /// The mean time from one release to the next, in seconds. `None` as long as nobody knows.
    pub(crate) fn gap(&mut self, now: Instant, connections: usize) -> Option<f64> {
        self.count(now);
        self.age(now);
        let hold = match (self.short.hold(), self.long.hold()) {
            (Some(short), Some(long)) => short.min(long),
            (short, long) => short.or(long)?,
        };
        Some(hold / connections.max(1) as f64)
    }

    /// Whether more is asked of the pool than it can do, for longer than callers can wait. The next one would wait for `wait`, in seconds; `filled`
    /// is the share of the queue that is taken.
    pub(crate) fn is_overloaded(&mut self, now: Instant, wait: f64, filled: f64) -> bool {
        self.queue.overloaded = self.will_be_overloaded(now, wait, filled);
        self.queue.overloaded
    }

    /// [`is_overloaded`](Self::is_overloaded), for one who comes later, as far as one can tell now.
    pub(crate) fn will_be_overloaded(&self, then: Instant, wait: f64, filled: f64) -> bool {
        if self.queue.arrivals <= SURPLUS * self.long.releases {
            return false;
        }
        let stands = self
            .queue
            .standing_since
            .is_some_and(|since| then.saturating_duration_since(since).as_secs_f64() >= self.room * STANDS);
        let is_deep = wait.max(filled * self.room) >= self.room * DEEP;
        self.queue.overloaded || (stands && is_deep)
    }

    /// The room that callers have, on average.
    pub(crate) fn room(&self) -> Duration {
        Duration::from_secs_f64(self.room)
    }

    /// How long one holds a connection: the median of the last few, or more if the last ones were longer.
    pub(crate) fn typical_hold(&self) -> Option<Duration> {
        self.holds.typical()
    }

    fn count(&mut self, now: Instant) {
        let since = std::mem::replace(&mut self.counted, now);
        if self.working == 0 || now <= since {
            return;
        }
        let seconds = (now - since).as_secs_f64();
        let work = seconds * self.working as f64;
        self.short.connection_seconds += work;
        self.long.connection_seconds += work;
        self.age(now);
    }

    fn age(&mut self, now: Instant) {
        if now < self.ages_at {
            return;
        }
        let rooms = now.saturating_duration_since(self.aged).as_secs_f64() / self.room;
        self.aged = now;
        self.ages_at = now + Duration::from_secs_f64(self.room * FINENESS);
        let long = (-rooms / LASTS).exp();
        self.short.age((-rooms).exp());
        self.long.age(long);
        self.queue.arrivals *= long;
    }
}

impl Holds {
    fn push(&mut self, hold: Duration) {
        self.ring[self.seen % HOLDS] = u32::try_from(hold.as_micros()).unwrap_or(u32::MAX);
        self.seen += 1;
    }

    /// The median; or the shorter of the last two, if that is longer: a slowdown shows there first.
    fn typical(&self) -> Option<Duration> {
        let mut seen = self.ring;
        let seen = &mut seen[..self.seen.min(HOLDS)];
        let last = self.ring[self.seen.checked_sub(1)? % HOLDS];
        let before = self.ring[self.seen.saturating_sub(2) % HOLDS];
        let middle = seen.len() / 2;
        let median = *seen.select_nth_unstable(middle).1;
        Some(Duration::from_micros(u64::from(median.max(last.min(before)))))
    }
}

#[cfg(test)]
mod tests;

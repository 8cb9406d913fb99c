//! How old connections become, how many are kept idle, and which are to be checked.
//!
//! Ages are counted in moments. A connection is judged by the moment at which it is handed out, not by upkeep's last round: the process may have been
//! stopped since. Whoever gives one back looks at no clock, so that its rest counts from upkeep's last moment, or from the last hand-out.
//!
//! Upkeep checks idle connections early, so that one is overdue at hand-out only after a stop. It is checked then, while its caller waits.

use std::mem;
use std::time::{Duration, Instant};

use super::{Core, Held, Place, Placed, PoolPhase};
use crate::policy::Lifetimes;

/// So many connections are checked at once, at most.
const MOST_CHECKS: usize = 4;
/// A moment, in milliseconds. There are enough of them for 13 years.
const MOMENT: u64 = 100;
const NEVER: u32 = u32::MAX;
/// A connection that ends within this time was hardly there.
const YOUNG: Duration = Duration::from_secs(1);
/// Before the next are dialed that nobody waits for. It doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The rules for old connections. By default there are none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ages {
    pub(crate) lifetimes: Lifetimes,
    /// So many connections are kept idle.
    pub(crate) min_idle: usize,
    /// Beyond those, one that has been idle for so long is closed.
    pub(crate) idle_timeout: Option<Duration>,
    /// One that has been idle for three quarters of this is checked, and again after as long. None is handed out after all of it.
    pub(crate) check_after: Option<Duration>,
}

/// What a connection was born with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Birth {
    pub(super) generation: u32,
    expires: u32,
}

/// A connection that nobody has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Idle<C> {
    pub(super) conn: C,
    pub(super) birth: Birth,
    since: u32,
    /// Given back, dialed or checked then.
    checked: u32,
}

/// An idle connection on its way to be checked: in use by upkeep, like one that is being settled.
#[derive(Debug)]
pub(crate) struct Check<C> {
    pub(crate) held: Held<C>,
    idle_since: u32,
}

impl<C> Check<C> {
    fn of(Idle { conn, birth, since, .. }: Idle<C>) -> Self {
        Self { held: Held::new(conn, None, birth), idle_since: since }
    }
}

/// When connections that nobody waits for may be dialed: not at once, if those of before ended as soon as they were there.
#[derive(Debug, Default)]
pub(super) struct RedialPause {
    paused_until: Option<Instant>,
    pause: Duration,
}

impl RedialPause {
    pub(super) fn may_dial(&self, now: Instant) -> bool {
        self.paused_until.is_none_or(|until| until <= now)
    }

    /// One has ended that was hardly there.
    fn died_young(&mut self, now: Instant) {
        if !self.may_dial(now) {
            return;
        }
        let is_again = self.paused_until.is_some_and(|until| now.saturating_duration_since(until) < YOUNG);
        self.pause = if is_again { (2 * self.pause).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
        self.paused_until = Some(now + self.pause);
    }
}

/// What upkeep tells and asks.
impl<C, W> Core<C, W> {
    /// The connections that are too old, or have been idle for too long while enough others are. To be closed.
    pub(crate) fn reap(&mut self, now: Instant) -> Vec<C> {
        self.look_at_clock(now);
        let mut spare = self.idle.len().saturating_sub(self.limits.ages.min_idle);
        let (moment, timeout) = (self.moment, self.limits.ages.idle_timeout.map_or(NEVER, moments));
        self.end(now, |idle| {
            let is_bored = moment.saturating_sub(idle.since) >= timeout;
            let is_over = idle.birth.expires <= moment || (is_bored && spare > 0);
            spare -= usize::from(is_over && spare > 0);
            is_over
        })
    }

    pub(super) fn look_at_clock(&mut self, now: Instant) {
        if now >= self.next_moment {
            self.has_lived(now.saturating_duration_since(self.begun));
            self.next_moment = self.begun + Duration::from_millis((u64::from(self.moment) + 1) * MOMENT);
        }
    }

    /// The pool has lived for so long.
    pub(super) fn has_lived(&mut self, time: Duration) {
        self.moment = self.moment.max(moments(time));
    }

    /// Nobody knows whether it is alive: it has been idle for longer than any connection may be that was not checked.
    pub(super) fn is_overdue(&self, idle: &Idle<C>) -> bool {
        if idle.checked == self.moment {
            return false;
        }
        let ages = &self.limits.ages;
        let longest = ages.check_after.into_iter().chain(ages.idle_timeout).min().map_or(NEVER, moments);
        self.moment.saturating_sub(idle.checked) >= longest
    }

    /// An idle connection that is overdue, to be checked for somebody who waits; if all that are idle are.
    pub(crate) fn begin_due_check(&mut self, now: Instant) -> Option<Check<C>> {
        let idle = self.idle.pop()?;
        self.checking += 1;
        self.settling += 1;
        self.in_use += 1;
        self.note_work(self.time(now));
        Some(Check::of(idle))
    }

    /// A connection begins its life.
    pub(super) fn birth(&mut self, generation: u32) -> Birth {
        // A moment at least: one that is too old when it is made would only be dialed anew.
        let expiry = |life| self.moment.saturating_add(moments(life).max(1));
        let expires = self.limits.ages.lifetimes.next().map_or(NEVER, expiry);
        Birth { generation, expires }
    }

    /// Whether it is too old, by its age or by its generation.
    pub(super) fn is_old(&self, birth: Birth) -> bool {
        birth.generation != self.generation || birth.expires <= self.moment
    }

    pub(super) fn rest(&mut self, conn: C, birth: Birth) {
        let (since, checked) = (self.moment, self.moment);
        self.idle.push(Idle { conn, birth, since, checked });
    }

    /// The idle connections that are of no use. To be closed.
    pub(crate) fn sweep(&mut self, now: Instant, is_usable: impl Fn(&C) -> bool) -> Vec<C> {
        let (young, mut died_young) = (self.moment.saturating_sub(moments(YOUNG)), false);
        let ended = self.end(now, |idle| {
            let has_ended = !is_usable(&idle.conn);
            died_young |= has_ended && idle.since >= young;
            has_ended
        });
        if died_young {
            self.kept.died_young(now);
        }
        ended
    }

    /// All that are idle are to be checked as soon as possible.
    pub(crate) fn mistrust(&mut self) {
        for idle in &mut self.idle {
            idle.checked = NEVER;
        }
    }

    /// The connection that was checked is silent. So are those that have been idle for as long, as far as anybody knows: they are to be closed; and the
    /// others are to be checked. After [`end_check`](Self::end_check), and before it is retired.
    pub(crate) fn found_silent(&mut self, now: Instant, check: &Check<C>) -> Vec<C> {
        let since = check.idle_since;
        let out = self.end(now, |idle| idle.since <= since);
        self.mistrust();
        out
    }

    /// The idle connections that are to be checked now: a few at once, and no more than half of those idle, for callers may come.
    pub(crate) fn begin_checks(&mut self, now: Instant) -> Vec<Check<C>> {
        let Some(after) = self.limits.ages.check_after.filter(|_| self.phase == PoolPhase::Open) else {
            return Vec::new();
        };
        let (moment, after) = (self.moment, moments(after - after / 4));
        let mut room = MOST_CHECKS.saturating_sub(self.checking).min(self.idle.len().div_ceil(2));
        let due = self.take_out(|idle| {
            let is_due = idle.checked == NEVER || moment.saturating_sub(idle.checked) >= after;
            let is_due = is_due && room > 0;
            room -= usize::from(is_due);
            is_due
        });
        self.in_use += due.len();
        self.settling += due.len();
        self.checking += due.len();
        self.note_work(self.time(now));
        due.into_iter().map(Check::of).collect()
    }

    /// A check has ended; this, or the connection is retired next.
    pub(crate) fn end_check(&mut self) {
        self.settled();
        self.checking -= 1;
    }

    /// The connection that was checked is alive: it serves the first waiter, or is idle as it was. After [`end_check`](Self::end_check).
    pub(crate) fn checked(&mut self, now: Instant, Check { held, idle_since }: Check<C>) -> Placed<C, W> {
        self.in_use -= 1;
        if self.queue.len() > 0 || self.phase != PoolPhase::Open || self.is_surplus(held.birth) {
            return self.place(now, self.time(now), held.conn, held.birth);
        }
        let Held { conn, birth, .. } = held;
        let place = self.idle.partition_point(|idle| idle.since <= idle_since);
        self.idle.insert(place, Idle { conn, birth, since: idle_since, checked: self.moment });
        self.note_work(self.time(now));
        Placed { to: Place::Idle, refused: Vec::new() }
    }

    fn end(&mut self, now: Instant, is_out: impl FnMut(&Idle<C>) -> bool) -> Vec<C> {
        let out = self.take_out(is_out);
        self.closing += out.len();
        self.note_work(self.time(now));
        out.into_iter().map(|idle| idle.conn).collect()
    }

    fn take_out(&mut self, is_out: impl FnMut(&Idle<C>) -> bool) -> Vec<Idle<C>> {
        let (out, kept) = mem::take(&mut self.idle).into_iter().partition(is_out);
        self.idle = kept;
        out
    }
}

/// Whole ones.
fn moments(time: Duration) -> u32 {
    let moments = time.as_secs() * (1_000 / MOMENT) + u64::from(time.subsec_millis()) / MOMENT;
    u32::try_from(moments).unwrap_or(NEVER)
}

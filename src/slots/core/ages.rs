//! How old connections become, how many are kept idle, and which are to be checked.
//!
//! Time is told to the core by most transitions, and by upkeep a few times a second: what depends on ages is no more exact than that.

use std::mem;
use std::time::{Duration, Instant};

use super::{Core, Held, Phase, Place, Placed};
use crate::policy::Lifetimes;

/// So many connections are checked at once, at most.
const MOST_CHECKS: usize = 4;

/// The rules for old connections. By default there are none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ages {
    pub(crate) lifetimes: Lifetimes,
    /// So many connections are kept idle.
    pub(crate) min_idle: usize,
    /// Beyond those, one that has been idle for so long is closed.
    pub(crate) idle_timeout: Option<Duration>,
    /// One that has been idle for so long is checked, and again after as long.
    pub(crate) check_after: Option<Duration>,
}

/// What a connection was born with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Birth {
    pub(super) generation: u64,
    pub(super) expires: Option<Instant>,
}

impl Birth {
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// A connection that nobody has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Idle<C> {
    pub(super) conn: C,
    pub(super) birth: Birth,
    pub(super) since: Instant,
    /// Given back, dialed or checked then.
    pub(super) checked: Instant,
}

/// An idle connection on its way to be checked: in use by upkeep, like one that is being settled.
#[derive(Debug)]
pub(crate) struct Check<C> {
    pub(crate) held: Held<C>,
    idle_since: Instant,
}

impl<C, W> Core<C, W> {
    /// The connections that are too old, or have been idle for too long while enough others are. To be closed.
    pub(crate) fn reap(&mut self, now: Instant) -> Vec<C> {
        let mut spare = self.idle.len().saturating_sub(self.limits.ages.min_idle);
        let timeout = self.limits.ages.idle_timeout;
        self.end(now, |idle| {
            let is_bored = timeout.is_some_and(|timeout| now.saturating_duration_since(idle.since) >= timeout);
            let is_over = idle.birth.is_expired(now) || (is_bored && spare > 0);
            spare -= usize::from(is_over && spare > 0);
            is_over
        })
    }

    /// The idle connections that are of no use. To be closed.
    pub(crate) fn sweep(&mut self, now: Instant, is_usable: impl Fn(&C) -> bool) -> Vec<C> {
        self.end(now, |idle| !is_usable(&idle.conn))
    }

    /// All that are idle are to be checked as soon as possible.
    pub(crate) fn mistrust(&mut self, now: Instant) {
        let Some(after) = self.limits.ages.check_after else { return };
        let long_ago = now.checked_sub(after).unwrap_or(now);
        for idle in &mut self.idle {
            idle.checked = long_ago;
        }
    }

    /// The connection that was checked is silent. So are those that have been idle for as long, as far as anybody knows: they are to be closed; and the
    /// others are to be checked. After [`end_check`](Self::end_check), and before it is retired.
    pub(crate) fn found_silent(&mut self, now: Instant, check: &Check<C>) -> Vec<C> {
        let since = check.idle_since;
        let out = self.end(now, |idle| idle.since <= since);
        self.mistrust(now);
        out
    }

    /// The idle connections that are to be checked now: a few at once, and no more than half of those idle, for callers may come.
    pub(crate) fn begin_checks(&mut self, now: Instant) -> Vec<Check<C>> {
        let Some(after) = self.limits.ages.check_after.filter(|_| self.phase == Phase::Open) else { return Vec::new() };
        let mut room = MOST_CHECKS.saturating_sub(self.checking).min(self.idle.len().div_ceil(2));
        let due = self.take_out(|idle| {
            let is_due = room > 0 && now.saturating_duration_since(idle.checked) >= after;
            room -= usize::from(is_due);
            is_due
        });
        self.in_use += due.len();
        self.settling += due.len();
        self.checking += due.len();
        self.note_work(now);
        let check = |Idle { conn, birth, since, .. }| {
            let held = Held { conn, since: None, birth, is_unproven: false, is_expired: false };
            Check { held, idle_since: since }
        };
        due.into_iter().map(check).collect()
    }

    /// A check has ended; this, or the connection is retired next.
    pub(crate) fn end_check(&mut self) {
        self.settled();
        self.checking -= 1;
    }

    /// The connection that was checked is alive: it serves the first waiter, or is idle as it was. After [`end_check`](Self::end_check).
    pub(crate) fn checked(&mut self, now: Instant, Check { held, idle_since }: Check<C>) -> Placed<C, W> {
        self.in_use -= 1;
        if self.queue.len() > 0 || self.phase != Phase::Open || self.is_surplus(now, held.birth) {
            return self.place(now, held.conn, held.birth);
        }
        let Held { conn, birth, .. } = held;
        let place = self.idle.partition_point(|idle| idle.since <= idle_since);
        self.idle.insert(place, Idle { conn, birth, since: idle_since, checked: now });
        self.note_work(now);
        Placed { to: Place::Idle, refused: Vec::new() }
    }

    fn end(&mut self, now: Instant, is_out: impl FnMut(&Idle<C>) -> bool) -> Vec<C> {
        let out = self.take_out(is_out);
        self.closing += out.len();
        self.note_work(now);
        out.into_iter().map(|idle| idle.conn).collect()
    }

    fn take_out(&mut self, is_out: impl FnMut(&Idle<C>) -> bool) -> Vec<Idle<C>> {
        let (out, kept) = mem::take(&mut self.idle).into_iter().partition(is_out);
        self.idle = kept;
        out
    }
}

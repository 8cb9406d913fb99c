//! How connections age: what the core remembers of an idle one, and when the pool may dial another in its place.
//!
//! Ages are counted in moments. The core judges the age of a connection when it hands it out, because the process may
//! have been stopped since the last round of maintenance. Giving a connection back reads no clock. So its idle time
//! begins at the last moment that maintenance or a hand-out has read.

use std::time::{Duration, Instant};

use super::held::{Birth, Held};
use crate::policy::Lifetimes;

/// The length of a moment in milliseconds. A `u32` of moments lasts for 13 years.
pub(super) const MOMENT: u64 = 100;
pub(super) const NEVER: u32 = u32::MAX;
/// A connection that ends within this time counts as an early end.
pub(super) const YOUNG: Duration = Duration::from_secs(1);
/// The first pause before the pool again dials connections for which no caller waits. Each further pause is twice as
/// long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The rules for old connections. By default there are none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ages {
    pub(crate) lifetimes: Lifetimes,
    /// How many connections the pool keeps idle.
    pub(crate) min_idle: usize,
    /// The pool closes a connection beyond `min_idle` that was idle for this long.
    pub(crate) idle_timeout: Option<Duration>,
    /// Maintenance checks a connection that was idle for three quarters of this time, and again after as long. The pool
    /// hands out no connection that was idle and unchecked for all of it.
    pub(crate) check_after: Option<Duration>,
}

/// The age of the core, from which the ages of leases follow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life(pub(super) Duration);

impl Life {
    /// Returns how long ago a moment ended. A lease that began in that moment has lasted for at least that, and at most
    /// one moment longer.
    pub(crate) fn since(self, moment: u32) -> Duration {
        self.0.saturating_sub(Duration::from_millis((u64::from(moment) + 1) * MOMENT))
    }
}

#[cfg(test)]
impl Life {
    pub(crate) fn of_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

/// An idle connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Idle<C> {
    pub(super) conn: C,
    pub(super) birth: Birth,
    pub(super) since: u32,
    /// The moment at which the connection was last dialed, given back or checked.
    pub(super) checked: u32,
}

/// An idle connection that is being checked. It counts like one that is being settled.
#[derive(Debug)]
pub(crate) struct Check<C> {
    pub(crate) held: Held<C>,
    pub(super) idle_since: u32,
}

impl<C> Check<C> {
    pub(super) fn of(Idle { conn, birth, since, .. }: Idle<C>) -> Self {
        Self { held: Held::new(conn, None, since, birth, None), idle_since: since }
    }
}

/// The pause before the pool dials connections for which no caller waits. It begins when new connections end early.
#[derive(Debug, Default)]
pub(super) struct RedialPause {
    paused_until: Option<Instant>,
    pause: Duration,
}

impl RedialPause {
    pub(super) fn may_dial(&self, now: Instant) -> bool {
        self.paused_until.is_none_or(|until| until <= now)
    }

    /// A connection has ended soon after it became idle.
    pub(super) fn on_early_end(&mut self, now: Instant) {
        if !self.may_dial(now) {
            return;
        }
        let is_again = self.paused_until.is_some_and(|until| now.saturating_duration_since(until) < YOUNG);
        self.pause = if is_again { (2 * self.pause).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
        self.paused_until = Some(now + self.pause);
    }
}

/// Returns the whole moments in this time.
pub(super) fn moments(time: Duration) -> u32 {
    moments_of(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Returns the whole moments in so many milliseconds.
#[inline]
pub(super) fn moments_of(milliseconds: u64) -> u32 {
    u32::try_from(milliseconds / MOMENT).unwrap_or(NEVER)
}

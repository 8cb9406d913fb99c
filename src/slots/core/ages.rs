//! How connections age: what is remembered of an idle one, and when another may be dialed in its place.
//!
//! Ages are counted in moments. A connection is judged by the moment at which it is handed out, not by upkeep's last round:
//! the process may have been stopped since. A caller that gives one back looks at no clock, so its idle time counts from
//! upkeep's last moment, or from the last hand-out.

use std::time::{Duration, Instant};

use super::held::{Birth, Held};
use crate::policy::Lifetimes;

/// A moment, in milliseconds. There are enough of them for 13 years.
pub(super) const MOMENT: u64 = 100;
pub(super) const NEVER: u32 = u32::MAX;
/// A connection that ends within this time was hardly there.
pub(super) const YOUNG: Duration = Duration::from_secs(1);
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

/// A connection that nobody has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Idle<C> {
    pub(super) conn: C,
    pub(super) birth: Birth,
    pub(super) since: u32,
    /// Given back, dialed or checked then.
    pub(super) checked: u32,
}

/// An idle connection on its way to be checked: in use by upkeep, like one that is being settled.
#[derive(Debug)]
pub(crate) struct Check<C> {
    pub(crate) held: Held<C>,
    pub(super) idle_since: u32,
}

impl<C> Check<C> {
    pub(super) fn of(Idle { conn, birth, since, .. }: Idle<C>) -> Self {
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
    pub(super) fn died_young(&mut self, now: Instant) {
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

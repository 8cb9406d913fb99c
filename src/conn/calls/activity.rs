//! Which calls may begin on a connection: a state machine without clock and locks.
//!
//! A call that ends without its answer is abandoned: its statement may still be running on the server. No other call
//! begins then until the connection is known to be quiet. When no call is under way any more, the pool stops the
//! abandoned statements in the background.
//!
//! ```text
//!              begin                exclude_others
//!   Idle ───────────────▶ Running ────────────────▶ Exclusive
//!    ▲ ▲  end, answered    │   ▲  ◀────────────────     │
//!    │ └───────────────────┤   │     admit_others        │ end: Idle or Abandoned
//!    │                     │   │                         ▼
//!    │      end, abandoned │   │ clear_abandoned
//!    │                     ▼   │
//!    │                    Draining
//!    │                     │
//!    │   clear_abandoned   │ end of the last call
//!    │                     ▼
//!    ├───────────────── Abandoned
//!    │                   │     ▲
//!    │        begin_stop │     │ end_stop, not quiet
//!    │                   ▼     │
//!    └───────────────── Stopping
//!      end_stop, quiet
//! ```
//!
//! If the last call is abandoned, `end` leads from `Running` to `Abandoned` at once. The last call of `Draining` may
//! exclude others, too: `Exclusive` remembers that, and `admit_others` leads back.

use std::mem;
use std::num::NonZeroUsize;
use std::time::Instant;

/// The activity of the calls of one connection. Since `since`, at least one call has been under way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    /// No call is under way, and no abandoned call is left.
    #[default]
    Idle,
    /// Calls are under way, and others may begin.
    Running { count: NonZeroUsize, since: Instant },
    /// One call is under way, and no other may begin before it admits them or ends.
    Exclusive { since: Instant, is_draining: bool },
    /// Calls are under way, and another was abandoned.
    Draining { count: NonZeroUsize, since: Instant },
    /// No call is under way, and at least one was abandoned.
    Abandoned,
    /// No call is under way, and the pool is stopping the abandoned calls in the background.
    Stopping,
}

/// Whether a call has the connection to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exclusion {
    /// Since now. Whoever asked for it may [admit others](Activity::admit_others) again.
    New,
    /// Since an earlier step of the same call, which still needs it. So others stay excluded.
    Earlier,
    /// No: other calls are under way.
    NotAlone,
}

impl Activity {
    /// Begins a call. Returns `false`, and changes nothing, if no call may begin now.
    #[must_use]
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let (count, since) = match *self {
            Self::Idle => (NonZeroUsize::MIN, now),
            Self::Running { count, since } => (count.saturating_add(1), since),
            Self::Exclusive { .. } | Self::Draining { .. } | Self::Abandoned | Self::Stopping => return false,
        };
        *self = Self::Running { count, since };
        true
    }

    /// Ends a call. If it has no answer, it is abandoned.
    pub(super) fn end(&mut self, is_answered: bool) {
        let Some(since) = self.since() else { return };
        let is_left = self.has_abandoned() || !is_answered;
        *self = match (NonZeroUsize::new(self.under_way() - 1), is_left) {
            (Some(count), false) => Self::Running { count, since },
            (Some(count), true) => Self::Draining { count, since },
            (None, false) => Self::Idle,
            (None, true) => Self::Abandoned,
        };
    }

    /// Gives the connection to the only call under way. Changes nothing if the call is not alone, or has the connection
    /// to itself already.
    #[must_use]
    pub(super) fn exclude_others(&mut self) -> Exclusion {
        match *self {
            Self::Exclusive { .. } => Exclusion::Earlier,
            Self::Running { count, since } | Self::Draining { count, since } if count == NonZeroUsize::MIN => {
                *self = Self::Exclusive { since, is_draining: self.has_abandoned() };
                Exclusion::New
            }
            _ => Exclusion::NotAlone,
        }
    }

    /// The call that excluded others admits them again.
    pub(super) fn admit_others(&mut self) {
        if let Self::Exclusive { since, is_draining } = *self {
            let count = NonZeroUsize::MIN;
            *self = if is_draining { Self::Draining { count, since } } else { Self::Running { count, since } };
        }
    }

    /// The connection is quiet: no abandoned statement runs any more. While they are being stopped, only
    /// [`end_stop`](Self::end_stop) knows.
    pub(super) fn clear_abandoned(&mut self) {
        match *self {
            Self::Draining { count, since } => *self = Self::Running { count, since },
            Self::Exclusive { since, .. } => *self = Self::Exclusive { since, is_draining: false },
            Self::Abandoned => *self = Self::Idle,
            Self::Idle | Self::Running { .. } | Self::Stopping => {}
        }
    }

    /// The pool begins to stop the abandoned calls in the background. Changes only [`Abandoned`](Self::Abandoned).
    pub(super) fn begin_stop(&mut self) {
        if *self == Self::Abandoned {
            *self = Self::Stopping;
        }
    }

    /// The background stop has ended.
    pub(super) fn end_stop(&mut self, is_quiet: bool) {
        if *self == Self::Stopping {
            *self = if is_quiet { Self::Idle } else { Self::Abandoned };
        }
    }

    /// Returns whether one call, or the background stop, has the connection to itself.
    pub(super) fn is_reserved(&self) -> bool {
        matches!(self, Self::Exclusive { .. } | Self::Stopping)
    }

    /// Returns whether a call was abandoned, and the connection is not known to be quiet.
    pub(super) fn has_abandoned(&self) -> bool {
        match self {
            Self::Draining { .. } | Self::Abandoned | Self::Stopping => true,
            Self::Exclusive { is_draining, .. } => *is_draining,
            Self::Idle | Self::Running { .. } => false,
        }
    }

    /// Returns how many calls are under way.
    pub(super) fn under_way(&self) -> usize {
        match self {
            Self::Running { count, .. } | Self::Draining { count, .. } => count.get(),
            Self::Exclusive { .. } => 1,
            Self::Idle | Self::Abandoned | Self::Stopping => 0,
        }
    }

    /// Returns since when calls have been under way without a pause.
    pub(super) fn since(&self) -> Option<Instant> {
        match self {
            Self::Running { since, .. } | Self::Exclusive { since, .. } | Self::Draining { since, .. } => Some(*since),
            Self::Idle | Self::Abandoned | Self::Stopping => None,
        }
    }
}

/// What abandoned calls may have left on the connection, even after it is quiet. The two are independent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leftovers {
    /// A cancel was sent, and no statement has passed since: it could still hit the next one.
    pub(super) cancel: bool,
    /// An abandoned call may have begun a transaction.
    pub(super) transaction: bool,
}

impl Leftovers {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn clear(&mut self) {
        _ = mem::take(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does one thing to the state.
    type Step = fn(&mut Activity, Instant);

    const BEGIN: Step = |state, now| assert!(state.begin(now));
    const REFUSED: Step = |state, now| assert!(!state.begin(now));
    const ANSWERED: Step = |state, _| state.end(true);
    const ABANDONED: Step = |state, _| state.end(false);
    const EXCLUDE: Step = |state, _| assert_eq!(state.exclude_others(), Exclusion::New);
    const EXCLUDE_AGAIN: Step = |state, _| assert_eq!(state.exclude_others(), Exclusion::Earlier);
    const NOT_ALONE: Step = |state, _| assert_eq!(state.exclude_others(), Exclusion::NotAlone);
    const ADMIT: Step = |state, _| state.admit_others();
    const CLEAR: Step = |state, _| state.clear_abandoned();
    const STOP: Step = |state, _| state.begin_stop();
    const STOPPED: Step = |state, _| state.end_stop(true);
    const STILL_BUSY: Step = |state, _| state.end_stop(false);

    #[test]
    fn transitions() {
        let since = Instant::now();
        let count = |count| NonZeroUsize::new(count).unwrap();
        let running = |calls| Activity::Running { count: count(calls), since };
        let draining = |calls| Activity::Draining { count: count(calls), since };
        let exclusive = |is_draining| Activity::Exclusive { since, is_draining };
        let (idle, abandoned, stopping) = (Activity::Idle, Activity::Abandoned, Activity::Stopping);
        let table = [
            (idle, BEGIN, running(1)),
            (running(1), BEGIN, running(2)),
            (exclusive(false), REFUSED, exclusive(false)),
            (exclusive(true), REFUSED, exclusive(true)),
            (draining(1), REFUSED, draining(1)),
            (abandoned, REFUSED, abandoned),
            (stopping, REFUSED, stopping),
            (running(2), ANSWERED, running(1)),
            (running(1), ANSWERED, idle),
            (running(2), ABANDONED, draining(1)),
            (running(1), ABANDONED, abandoned),
            (draining(2), ANSWERED, draining(1)),
            (draining(2), ABANDONED, draining(1)),
            (draining(1), ANSWERED, abandoned),
            (draining(1), ABANDONED, abandoned),
            (exclusive(false), ANSWERED, idle),
            (exclusive(false), ABANDONED, abandoned),
            (exclusive(true), ANSWERED, abandoned),
            (exclusive(true), ABANDONED, abandoned),
            (running(1), EXCLUDE, exclusive(false)),
            (draining(1), EXCLUDE, exclusive(true)),
            (exclusive(false), EXCLUDE_AGAIN, exclusive(false)),
            (exclusive(true), EXCLUDE_AGAIN, exclusive(true)),
            (running(2), NOT_ALONE, running(2)),
            (draining(2), NOT_ALONE, draining(2)),
            (idle, NOT_ALONE, idle),
            (exclusive(false), ADMIT, running(1)),
            (exclusive(true), ADMIT, draining(1)),
            (running(2), ADMIT, running(2)),
            (draining(2), CLEAR, running(2)),
            (exclusive(true), CLEAR, exclusive(false)),
            (abandoned, CLEAR, idle),
            (stopping, CLEAR, stopping),
            (abandoned, STOP, stopping),
            (draining(1), STOP, draining(1)),
            (stopping, STOPPED, idle),
            (stopping, STILL_BUSY, abandoned),
            (idle, STILL_BUSY, idle),
        ];
        for (row, (before, step, after)) in table.into_iter().enumerate() {
            let mut state = before;
            step(&mut state, since);
            assert_eq!(state, after, "row {row}, from {before:?}");
        }
    }

    #[test]
    fn questions() {
        let (since, count) = (Instant::now(), NonZeroUsize::MIN);
        // Calls under way, whether any was abandoned, whether one has the connection to itself.
        let table = [
            (Activity::Idle, (0, false, false)),
            (Activity::Running { count, since }, (1, false, false)),
            (Activity::Exclusive { since, is_draining: false }, (1, false, true)),
            (Activity::Exclusive { since, is_draining: true }, (1, true, true)),
            (Activity::Draining { count, since }, (1, true, false)),
            (Activity::Abandoned, (0, true, false)),
            (Activity::Stopping, (0, true, true)),
        ];
        for (state, answers) in table {
            assert_eq!((state.under_way(), state.has_abandoned(), state.is_reserved()), answers, "{state:?}");
            assert_eq!(state.since().is_some(), state.under_way() > 0, "{state:?}");
        }
    }
}

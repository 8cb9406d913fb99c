//! The owner's callbacks, for calls and for changes of state. They are foreign code: they run without a lock, and may
//! panic.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::policy::Transition;

/// How one call through a circuit breaker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallOutcome {
    /// The call counts as a success.
    Success,
    /// The call counts as a failure.
    Failure,
    /// The call took longer than [`with_timeout`](super::CircuitBreaker::with_timeout) allows, whatever it counts as.
    Timeout,
    /// The call does not count: it was dropped before its end, or its verdict was
    /// [`Verdict::Ignore`](super::Verdict::Ignore).
    Ignored,
    /// The call was not begun, because the circuit is open.
    Rejected,
    /// The call was not begun, because as many calls were under way as
    /// [`with_capacity`](super::CircuitBreaker::with_capacity) allows.
    Busy,
}

impl CallOutcome {
    /// All outcomes.
    pub const ALL: [Self; 6] = [Self::Success, Self::Failure, Self::Timeout, Self::Ignored, Self::Rejected, Self::Busy];

    /// Returns a word in snake case that never changes, as a label for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Timeout => "timeout",
            Self::Ignored => "ignored",
            Self::Rejected => "rejected",
            Self::Busy => "busy",
        }
    }
}

/// One call through a circuit breaker that ended or was refused. See
/// [`BreakerConfig::on_call`](super::BreakerConfig::on_call).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallEvent<'a> {
    /// The breaker's [name](super::BreakerConfig::name), if it has one.
    pub name: Option<&'a str>,
    /// How the call ended.
    pub outcome: CallOutcome,
    /// How long the call took. 0 if it was not begun.
    pub took: Duration,
}

type TransitionHook = Arc<dyn Fn(&Transition) + Send + Sync>;
type CallHook = Arc<dyn Fn(&CallEvent<'_>) + Send + Sync>;

#[derive(Clone, Default)]
pub(super) struct Hooks {
    transitions: Vec<TransitionHook>,
    calls: Vec<CallHook>,
}

impl Hooks {
    pub(super) fn on_transition(&mut self, hook: impl Fn(&Transition) + Send + Sync + 'static) {
        self.transitions.push(Arc::new(hook));
    }

    pub(super) fn on_transition_first(&mut self, hook: impl Fn(&Transition) + Send + Sync + 'static) {
        self.transitions.insert(0, Arc::new(hook));
    }

    pub(super) fn on_call(&mut self, hook: impl Fn(&CallEvent<'_>) + Send + Sync + 'static) {
        self.calls.push(Arc::new(hook));
    }

    #[inline]
    pub(super) fn want_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    pub(super) fn run_for_changes(&self, changes: &[Transition]) {
        for hook in &self.transitions {
            changes.iter().for_each(|transition| run(|| hook(transition)));
        }
    }

    pub(super) fn run_for_call(&self, event: &CallEvent<'_>) {
        self.calls.iter().for_each(|hook| run(|| hook(event)));
    }
}

/// If the hook panics, the message is on stderr. The panic affects neither the call that ran the hook nor other hooks.
fn run(hook: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(hook));
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hooks", self.transitions.len() + self.calls.len())
    }
}

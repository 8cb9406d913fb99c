//! What a call says of the dependency.

use super::hooks::CallOutcome;
use crate::policy::Outcome;

/// What a call says of the dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is well, whatever became of the call.
    Success,
    /// It failed, whatever the call returned.
    Failure,
    /// Nothing. The call is not counted, and a probe that says nothing lets another one out.
    Ignore,
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Success => Self::Success,
            Verdict::Failure => Self::Failure,
            Verdict::Ignore => Self::Ignored,
        }
    }
}

impl From<Verdict> for CallOutcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Success => Self::Success,
            Verdict::Failure => Self::Failure,
            Verdict::Ignore => Self::Ignored,
        }
    }
}

//! An error as metrics and spans show it: a word or an SQLSTATE, never the server's message.

use std::str;

use crate::error::{Error, ErrorKind};
use crate::policy::ShedReason;

/// The default stands for an error of the caller's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Fault {
    kind: Option<ErrorKind>,
    state: Option<[u8; 5]>,
    /// A limit that the owner set refused the call. Unlike other refusals, this shows no overload.
    is_rate_limited: bool,
}

impl Fault {
    #[cfg(all(test, any(feature = "metrics", feature = "tracing")))]
    pub(crate) fn of(kind: ErrorKind, state: [u8; 5]) -> Self {
        Self { kind: Some(kind), state: Some(state), is_rate_limited: false }
    }

    /// OpenTelemetry's word for an error that has none.
    const OTHER: &'static str = "_OTHER";

    /// Returns this fault without the SQLSTATE, because a server can send any number of different ones.
    #[cfg(feature = "metrics")]
    pub(super) fn without_state(self) -> Self {
        Self { state: None, ..self }
    }

    pub(crate) fn state(&self) -> Option<&str> {
        self.state.as_ref().and_then(|state| str::from_utf8(state).ok())
    }

    /// OpenTelemetry's `error.type`: the SQLSTATE, or our word for the error. For a COMMIT without an answer it is our
    /// word, because an operator has to know that the COMMIT may have been applied.
    pub(crate) fn error_type(&self) -> &str {
        if self.is_rate_limited {
            return ShedReason::RateLimited.as_str();
        }
        let state = if self.kind == Some(ErrorKind::CommitUnknown) { None } else { self.state() };
        state.unwrap_or(self.kind.map_or(Self::OTHER, ErrorKind::as_str))
    }
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        let kind = error.kind();
        // The SQLSTATE that a refusal quotes was another call's.
        let sqlstate = if kind == ErrorKind::CircuitOpen { None } else { error.sqlstate() };
        let state: Option<[u8; 5]> = sqlstate.and_then(|state| state.code().as_bytes().try_into().ok());
        // A server can send any bytes as its SQLSTATE, and labels end up in logs.
        let state = state.filter(|state| state.iter().all(u8::is_ascii_alphanumeric));
        let is_rate_limited = matches!(error, Error::Shed { reason: ShedReason::RateLimited, .. });
        Self { kind: Some(kind), state, is_rate_limited }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::holder::LongestHeld;

    /// So that no alert takes a limit that the owner set for an overload.
    #[test]
    fn a_refusal_by_a_rate_has_a_word_of_its_own() {
        let word = |reason| {
            let error = Error::Shed { reason, retry_after: None, longest_held: LongestHeld::NONE };
            Fault::from(&error).error_type().to_owned()
        };
        assert_eq!(word(ShedReason::RateLimited), "rate_limited");
        assert_eq!((word(ShedReason::Hopeless), word(ShedReason::NoneIdle)), ("shed".to_owned(), "shed".to_owned()));
    }
}

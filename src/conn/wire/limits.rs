//! How much a server may send without a request. The pool closes the connection to a server that sends more.
//!
//! The driver keeps each message until it is complete, and each parameter of the session until the connection ends.
//! PostgreSQL stays far below these limits. Rows and the data of a COPY have only the protocol's limits: a caller asked
//! for them, and the time of its call bounds them.

use std::fmt;

/// The longest start-up as a whole, in bytes. PostgreSQL sends about 500.
const START_UP: usize = 1 << 20;
/// The longest message that names something and quotes nothing, in bytes. libpq has the same limit.
const SHORT: usize = 30_000;
/// The longest error, notice or description of a statement, in bytes.
const LONG: usize = 32 << 20;
/// How many times the server may report parameters that are not among the first 64. PostgreSQL has about 15 parameters.
const STRANGERS: u64 = 256;

#[derive(Debug, Default)]
pub(super) struct Limits {
    /// The bytes of start-up that were announced.
    start_up: usize,
    excess: Option<Excess>,
}

/// The limit that the server has exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    StartUp,
    /// The type of the message, and its length in bytes.
    Message(u8, usize),
    /// The type of a message that answers no request.
    Unasked(u8),
    Parameters,
}

impl Limits {
    /// Returns whether the server may send this message. `in_flight`: how many requests may be due an answer; `None`
    /// during start-up.
    pub(super) fn accepts(&mut self, kind: u8, length: usize, in_flight: Option<usize>) -> bool {
        let excess = match in_flight {
            None => {
                self.start_up = self.start_up.saturating_add(length);
                (self.start_up > START_UP).then_some(Excess::StartUp)
            }
            Some(0) if !comes_unasked(kind) => Some(Excess::Unasked(kind)),
            Some(_) => longest(kind).filter(|longest| length > *longest).map(|_| Excess::Message(kind, length)),
        };
        self.excess = self.excess.or(excess);
        self.excess.is_none()
    }

    /// Returns whether the server may go on. `reports`: how many times it has reported parameters that are not among
    /// the first 64.
    pub(super) fn accepts_strangers(&mut self, reports: u64) -> bool {
        if reports > STRANGERS {
            self.excess = self.excess.or(Some(Excess::Parameters));
        }
        self.excess.is_none()
    }

    pub(super) fn excess(&self) -> Option<Excess> {
        self.excess
    }
}

/// Returns whether the server may send such a message at any time: an error that ends the session, a notice, a
/// parameter, a notification.
fn comes_unasked(kind: u8) -> bool {
    matches!(kind, b'E' | b'N' | b'S' | b'A')
}

/// Returns the longest message of this type, in bytes. `None`: no limit, because a caller asked for it.
fn longest(kind: u8) -> Option<usize> {
    match kind {
        b'D' | b'd' | b'V' => None,
        b'E' | b'N' | b'T' | b't' => Some(LONG),
        _ => Some(SHORT),
    }
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::StartUp => write!(f, "the server sent more than {START_UP} bytes before it was ready"),
            Self::Message(kind, length) => {
                let longest = longest(kind).unwrap_or_default();
                write!(
                    f,
                    "the server announced a message {} of {length} bytes, and the limit is {longest} bytes",
                    kind.escape_ascii()
                )
            }
            Self::Unasked(kind) => {
                write!(f, "the server sent a message {} that answers no request", kind.escape_ascii())
            }
            Self::Parameters => {
                write!(f, "the server reported parameters beyond the first 64 more than {STRANGERS} times")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_copy_data_have_no_limit() {
        let mut limits = Limits::default();
        for kind in [b'D', b'd', b'V'] {
            assert!(limits.accepts(kind, 1 << 30, Some(1)));
        }
        assert!(!limits.accepts(b'D', 1, Some(0)));
        assert_eq!(limits.excess(), Some(Excess::Unasked(b'D')));
        assert!(!limits.accepts(b'Z', 1, Some(1)), "the first excess counts for ever");
    }

    #[test]
    fn a_session_may_end_or_warn_at_any_time() {
        for kind in [b'E', b'N', b'S', b'A'] {
            assert!(Limits::default().accepts(kind, SHORT, Some(0)));
        }
        assert!(Limits::default().accepts(b'E', LONG, Some(0)));
        assert!(!Limits::default().accepts(b'E', LONG + 1, Some(1)));
        assert!(!Limits::default().accepts(b'A', SHORT + 1, Some(1)));
    }

    #[test]
    fn start_up_is_bounded_as_a_whole() {
        let mut limits = Limits::default();
        assert!((0..100).all(|_| limits.accepts(b'S', 10_000, None)));
        assert!(!(0..100).all(|_| limits.accepts(b'N', 10_000, None)));
        assert!(limits.excess().unwrap().to_string().contains("1048576 bytes"));
        assert!(!Limits::default().accepts(b'R', usize::MAX, None));
    }

    #[test]
    fn parameters_may_be_reported_as_often_as_they_change() {
        let mut limits = Limits::default();
        assert!(limits.accepts_strangers(STRANGERS) && !limits.accepts_strangers(STRANGERS + 1));
    }
}

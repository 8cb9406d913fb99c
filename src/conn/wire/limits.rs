//! How much a server may send that nobody has asked for. A server that sends more is not understood, and the connection ends.
//!
//! The driver keeps each message until it is complete, and each parameter of the session for as long as the connection lasts. PostgreSQL stays far below
//! these limits. Rows and the data of a COPY have none but the protocol's: they are asked for, and the call's time bounds them.

use std::fmt;

/// Of start-up as a whole, in bytes. PostgreSQL sends about 500.
const START_UP: usize = 1 << 20;
/// Of a message that names something and quotes nothing, in bytes. libpq takes no longer ones either.
const SHORT: usize = 30_000;
/// Of an error, a notice or the description of a statement, in bytes.
const LONG: usize = 32 << 20;
/// How often parameters may be reported that are not among the first 64. PostgreSQL has about fifteen.
const STRANGERS: u64 = 256;

#[derive(Debug, Default)]
pub(super) struct Limits {
    /// Bytes of start-up.
    start_up: usize,
    excess: Option<Excess>,
}

/// Which limit was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    StartUp,
    /// The type of the message, and how long it is.
    Message(u8, usize),
    /// The type of a message that answers nothing.
    Unasked(u8),
    Parameters,
}

impl Limits {
    /// A message begins. `in_flight`: how many requests may be due an answer, once start-up is over. Returns whether it may go on.
    pub(super) fn bear(&mut self, kind: u8, length: usize, in_flight: Option<usize>) -> bool {
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

    /// So many times, a parameter was reported that is not among the first. Returns whether the server may go on.
    pub(super) fn bear_strangers(&mut self, reports: u64) -> bool {
        if reports > STRANGERS {
            self.excess = self.excess.or(Some(Excess::Parameters));
        }
        self.excess.is_none()
    }

    pub(super) fn excess(&self) -> Option<Excess> {
        self.excess
    }
}

/// Whether the server may send it at any time: an error that ends the session, a notice, a parameter, a notification.
fn comes_unasked(kind: u8) -> bool {
    matches!(kind, b'E' | b'N' | b'S' | b'A')
}

/// In bytes; `None` of what was asked for.
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
            Self::StartUp => write!(f, "it sent more than {START_UP} bytes before it was ready"),
            Self::Message(kind, length) => {
                let longest = longest(kind).unwrap_or_default();
                write!(
                    f,
                    "it announced a message {} of {length} bytes; at most {longest} are taken",
                    kind.escape_ascii()
                )
            }
            Self::Unasked(kind) => write!(f, "it sent a message {} that answers nothing", kind.escape_ascii()),
            Self::Parameters => f.write_str("it reported parameters without end"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_has_no_limit() {
        let mut limits = Limits::default();
        for kind in [b'D', b'd', b'V'] {
            assert!(limits.bear(kind, 1 << 30, Some(1)));
        }
        assert!(!limits.bear(b'D', 1, Some(0)));
        assert_eq!(limits.excess(), Some(Excess::Unasked(b'D')));
        assert!(!limits.bear(b'Z', 1, Some(1)), "for ever");
    }

    #[test]
    fn a_session_may_end_or_warn_at_any_time() {
        for kind in [b'E', b'N', b'S', b'A'] {
            assert!(Limits::default().bear(kind, SHORT, Some(0)));
        }
        assert!(Limits::default().bear(b'E', LONG, Some(0)));
        assert!(!Limits::default().bear(b'E', LONG + 1, Some(1)));
        assert!(!Limits::default().bear(b'A', SHORT + 1, Some(1)));
    }

    #[test]
    fn start_up_is_bounded_as_a_whole() {
        let mut limits = Limits::default();
        assert!((0..100).all(|_| limits.bear(b'S', 10_000, None)));
        assert!(!(0..100).all(|_| limits.bear(b'N', 10_000, None)));
        assert!(limits.excess().unwrap().to_string().contains("1048576 bytes"));
        assert!(!Limits::default().bear(b'R', usize::MAX, None));
    }

    #[test]
    fn parameters_may_be_reported_as_often_as_they_change() {
        let mut limits = Limits::default();
        assert!(limits.bear_strangers(STRANGERS) && !limits.bear_strangers(STRANGERS + 1));
    }
}

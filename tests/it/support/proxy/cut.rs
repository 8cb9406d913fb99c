//! Cuts at an exact moment: after a number of bytes, or when the client sends a certain message.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::{
    Close, Way,
    framing::{Frame, Kind},
};

/// Which connection to cut, when, and how. The default is one cut by a reset that withholds the message.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    trigger: Trigger,
    times: u64,
    pub(super) close: Close,
    pub(super) answer_lost: bool,
}

#[derive(Clone, Debug)]
enum Trigger {
    Bytes(Way, u64),
    Frame(Kind),
    Text(String),
}

impl Cut {
    /// Cuts when a connection has delivered this many bytes since now or since its start. With 0, the proxy withholds
    /// the first bytes that arrive and cuts.
    pub(crate) fn after_bytes(way: Way, count: u64) -> Cut {
        Cut::at(Trigger::Bytes(way, count))
    }

    /// Cuts at a message with this type byte from the client: `b'Q'` Query, `b'P'` Parse, `b'B'` Bind, `b'S'` Sync.
    pub(crate) fn at_message(kind: u8) -> Cut {
        Cut::at(Trigger::Frame(Kind::Message(kind)))
    }

    /// Cuts at a Query or Parse whose text contains `text`. A statement prepared before is not sent again and never
    /// matches.
    pub(crate) fn at_text(text: &str) -> Cut {
        Cut::at(Trigger::Text(text.to_owned()))
    }

    /// Cuts at a request to cancel a query, which has a connection of its own.
    pub(crate) fn at_cancel() -> Cut {
        Cut::at(Trigger::Frame(Kind::Cancel))
    }

    /// Delivers the message and what follows it, and loses the answer. The cut comes when the server has answered
    /// (ReadyForQuery), so the server has done its work by then. It comes after 5 s at the latest.
    pub(crate) fn answer_lost(self) -> Cut {
        Cut { answer_lost: true, ..self }
    }

    /// Closes the connection in this way instead of by a reset.
    pub(crate) fn by(self, close: Close) -> Cut {
        Cut { close, ..self }
    }

    /// Fires up to this many times.
    pub(crate) fn times(self, times: u64) -> Cut {
        Cut { times, ..self }
    }

    fn at(trigger: Trigger) -> Cut {
        Cut { trigger, times: 1, close: Close::Reset, answer_lost: false }
    }
}

/// A [`Cut`] that is armed.
#[derive(Debug)]
pub(super) struct Armed {
    pub(super) cut: Cut,
    left: AtomicU64,
}

impl From<Cut> for Armed {
    fn from(cut: Cut) -> Armed {
        Armed { left: AtomicU64::new(cut.times), cut }
    }
}

impl Armed {
    /// Returns whether the cut fires at this message, and counts it.
    pub(super) fn at(&self, frame: &Frame) -> bool {
        let due = match &self.cut.trigger {
            Trigger::Bytes(..) => false,
            Trigger::Frame(kind) => frame.kind == *kind,
            Trigger::Text(text) => {
                let statement = matches!(frame.kind, Kind::Message(b'Q' | b'P'));
                statement && frame.bytes.windows(text.len()).any(|part| part == text.as_bytes())
            }
        };
        due && self.fire()
    }

    /// Returns how many bytes may still pass in this direction, if there is a limit.
    pub(super) fn limit(&self, way: Way) -> Option<u64> {
        match self.cut.trigger {
            Trigger::Bytes(limited, count) if limited == way && self.left.load(SeqCst) > 0 => Some(count),
            _ => None,
        }
    }

    /// Uses up one of the times. Returns `false` if none is left.
    pub(super) fn fire(&self) -> bool {
        self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

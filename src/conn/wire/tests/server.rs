//! A driver and a server take random turns. The ledger never overlooks an answer that is due, and in the end no answer
//! is due.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::message;
use crate::conn::wire::ProtocolTracker;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Query {
        fails: bool,
    },
    Extended {
        fails: bool,
    },
    Closes,
    Barrier,
    /// A copy with this many pieces of data.
    CopyIn(Fate, u8),
    CopyByQuery,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    GivenUp,
    /// A copy whose data the server refuses.
    Bad,
    /// A copy that the server refuses without a CopyInResponse.
    Refused,
    /// A copy that the server refuses after a CopyInResponse, before it ignores a Sync.
    RefusedLate,
}

impl Request {
    /// What the driver writes, in pieces. Between two pieces the server may send anything, and the driver writes
    /// nothing else.
    fn pieces(self) -> Vec<&'static [u8]> {
        match self {
            Self::Query { .. } => vec![b"Q"],
            Self::Extended { .. } => vec![b"BES"],
            Self::Closes => vec![b"CS"],
            Self::Barrier => vec![b"S"],
            Self::CopyByQuery => vec![b"Q", b"d", b"c"],
            Self::CopyIn(fate, data) => {
                let mut pieces = vec![&b"BES"[..]];
                pieces.extend(std::iter::repeat_n(&b"d"[..], data.into()));
                pieces.push(if fate == Fate::GivenUp { b"fS" } else { b"cS" });
                pieces
            }
        }
    }
}

/// A model of PostgreSQL, as far as these tests need it. See "COPY Operations" and "Extended Query" in its manual.
#[derive(Debug, Default, Clone)]
struct ModelServer {
    mode: Mode,
    input: VecDeque<(u8, Request)>,
    output: VecDeque<(u8, &'static [u8])>,
}

#[derive(Debug, Default, Clone, Copy)]
enum Mode {
    #[default]
    Normal,
    Copying,
    /// Whether the server ignores messages until the next Sync.
    Skipping,
}

impl ModelServer {
    fn takes_one(&mut self) {
        let Some((kind, request)) = self.input.pop_front() else { return };
        let answers: &[(u8, &[u8])] = match (self.mode, kind, request) {
            (Mode::Skipping, b'S', _) => {
                self.mode = Mode::Normal;
                &[(b'Z', b"I")]
            }
            (Mode::Skipping, ..) | (Mode::Copying, b'S', _) => &[],
            (Mode::Copying, b'd' | b'c', Request::CopyIn(Fate::Bad, _)) | (Mode::Copying, b'f', _) => {
                self.mode = Mode::Skipping;
                &[(b'E', b"VERROR\0C22P02\0")]
            }
            (Mode::Copying, b'c', Request::CopyByQuery) => {
                self.mode = Mode::Normal;
                &[(b'C', b"COPY 1\0"), (b'Z', b"I")]
            }
            (Mode::Copying, b'c', _) => {
                self.mode = Mode::Normal;
                &[(b'C', b"COPY 1\0")]
            }
            (Mode::Copying, ..) => &[],
            (Mode::Normal, b'Q', Request::CopyByQuery) => {
                self.mode = Mode::Copying;
                &[(b'G', b"\0\0\0")]
            }
            (Mode::Normal, b'Q', Request::Query { fails: true }) => &[(b'E', b"VERROR\0C22012\0"), (b'Z', b"I")],
            (Mode::Normal, b'Q', _) => &[(b'T', b""), (b'D', b"row"), (b'C', b"SELECT 1\0"), (b'Z', b"I")],
            (Mode::Normal, b'B', Request::Extended { fails: true })
            | (Mode::Normal, b'E', Request::CopyIn(Fate::Refused, _)) => {
                self.mode = Mode::Skipping;
                &[(b'E', b"VERROR\0C42P01\0")]
            }
            (Mode::Normal, b'B', _) => &[(b'2', b"")],
            (Mode::Normal, b'E', Request::CopyIn(Fate::RefusedLate, _)) => {
                self.mode = Mode::Skipping;
                &[(b'G', b"\0\0\0"), (b'E', b"VERROR\0C42809\0")]
            }
            (Mode::Normal, b'E', Request::CopyIn(..)) => {
                self.mode = Mode::Copying;
                &[(b'G', b"\0\0\0")]
            }
            (Mode::Normal, b'E', _) => &[(b'N', b"VNOTICE\0"), (b'D', b"row"), (b'C', b"SELECT 1\0")],
            (Mode::Normal, b'C', _) => &[(b'3', b"")],
            (Mode::Normal, b'S', _) => &[(b'Z', b"I")],
            (Mode::Normal, ..) => &[],
        };
        self.output.extend(answers);
    }

    /// Returns how many ReadyForQuery the server has sent or will send, even if the driver writes nothing more.
    fn due(&self) -> usize {
        let mut later = self.clone();
        while !later.input.is_empty() {
            later.takes_one();
        }
        later.output.iter().filter(|(kind, _)| *kind == b'Z').count()
    }
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let fate = prop::sample::select(vec![Fate::Done, Fate::GivenUp, Fate::Bad, Fate::Refused, Fate::RefusedLate]);
    let request = prop_oneof![
        2 => any::<bool>().prop_map(|fails| Request::Query { fails }),
        3 => any::<bool>().prop_map(|fails| Request::Extended { fails }),
        2 => Just(Request::Closes),
        1 => Just(Request::Barrier),
        4 => (fate, 0..3_u8).prop_map(|(fate, data)| Request::CopyIn(fate, data)),
        1 => Just(Request::CopyByQuery),
    ];
    prop::collection::vec(request, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_answer_that_is_due_is_overlooked(requests in requests(), turns in prop::collection::vec(0..6_usize, 1..200)) {
        let mut tracker = ProtocolTracker::default();
        tracker.on_read(&message(b'Z', b"I"));
        let mut server = ModelServer::default();
        let pieces = |request: &Request| request.pieces().into_iter().map(|piece| (piece, *request)).collect::<Vec<_>>();
        let mut pieces: VecDeque<_> = requests.iter().flat_map(pieces).collect();
        let mut turns = turns.into_iter().cycle();
        loop {
            let possible = [!pieces.is_empty(), !server.input.is_empty(), !server.output.is_empty()];
            let possible: Vec<_> = (0..3).filter(|action| possible[*action]).collect();
            if possible.is_empty() {
                break;
            }
            match possible[turns.next().unwrap_or_default() % possible.len()] {
                0 => {
                    let (piece, request) = pieces.pop_front().unwrap();
                    for kind in piece {
                        tracker.on_written(&message(*kind, b""));
                        server.input.push_back((*kind, request));
                    }
                }
                1 => server.takes_one(),
                _ => {
                    let (kind, body) = server.output.pop_front().unwrap();
                    tracker.on_read(&message(kind, body));
                }
            }
            let is_quiet = tracker.ledger.in_flight() == 0;
            prop_assert!(!is_quiet || server.due() == 0, "{:?} {:?}", tracker.ledger, server);
        }
        prop_assert!(tracker.before_read().is_ok(), "{:?}", tracker.ledger);
        // The next answer resolves every doubt.
        tracker.on_written(&message(b'Q', b""));
        tracker.on_read(&[message(b'C', b"SELECT 1"), message(b'Z', b"I")].concat());
        prop_assert_eq!(tracker.ledger.in_flight(), 0);
    }
}

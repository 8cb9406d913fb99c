//! The check that the fuzzer and the tests share: the tracker must understand a stream in the same way, wherever the
//! stream is cut into pieces.

use super::ProtocolTracker;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Written,
    Read,
}

/// Feeds the pieces one by one to one tracker, and to another with neighbours of the same way joined. Panics if the
/// two listeners then differ.
pub(super) fn check(pieces: &[(Way, &[u8])]) {
    let mut in_pieces = ProtocolTracker::default();
    for (way, piece) in pieces {
        feed(&mut in_pieces, *way, piece);
    }
    let mut joined = ProtocolTracker::default();
    for run in pieces.chunk_by(|one, next| one.0 == next.0) {
        let bytes: Vec<u8> = run.iter().flat_map(|(_, piece)| *piece).copied().collect();
        feed(&mut joined, run[0].0, &bytes);
    }
    assert_eq!(format!("{in_pieces:?}"), format!("{joined:?}"));
}

pub(super) fn feed(tracker: &mut ProtocolTracker, way: Way, bytes: &[u8]) {
    match way {
        Way::Written => tracker.on_written(bytes),
        Way::Read => tracker.on_read(bytes),
    }
}

/// Checks what a fuzzer makes up. One byte precedes each piece: its highest bit is the way, the others are the length.
#[cfg(fuzzing)]
pub fn fuzz(mut bytes: &[u8]) {
    let mut pieces = Vec::new();
    while let Some((first, rest)) = bytes.split_first() {
        let way = if first & 0x80 == 0 { Way::Read } else { Way::Written };
        let (piece, rest) = rest.split_at(rest.len().min(usize::from(first & 0x7f)));
        pieces.push((way, piece));
        bytes = rest;
    }
    check(&pieces);
}

//! Bytes come in pieces of any size. However they are torn, the same must be heard.

use super::Listener;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Written,
    Read,
}

/// Panics if the pieces, in this order, are understood otherwise than with all those joined that follow each other the same way.
pub(super) fn check(pieces: &[(Way, &[u8])]) {
    let mut torn = Listener::default();
    for (way, piece) in pieces {
        hear(&mut torn, *way, piece);
    }
    let mut whole = Listener::default();
    for run in pieces.chunk_by(|one, next| one.0 == next.0) {
        let joined: Vec<u8> = run.iter().flat_map(|(_, piece)| *piece).copied().collect();
        hear(&mut whole, run[0].0, &joined);
    }
    assert_eq!(format!("{torn:?}"), format!("{whole:?}"));
}

pub(super) fn hear(listener: &mut Listener, way: Way, bytes: &[u8]) {
    match way {
        Way::Written => listener.has_written(bytes),
        Way::Read => listener.has_read(bytes),
    }
}

/// What a fuzzer makes up: before each piece one byte, with the way in its highest bit and the length in the others.
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

//! Which named statements were prepared and not used since.

use super::{message, read, started};
use crate::conn::wire::ProtocolTracker;

const BIND: &[u8] = b"\0s1\0\0\0\0\0\0\0";

fn write(tracker: &mut ProtocolTracker, messages: &[(u8, &[u8])]) {
    let bytes: Vec<u8> = messages.iter().flat_map(|(kind, body)| message(*kind, body)).collect();
    tracker.on_written(&bytes);
}

/// Prepares the statement `s1`.
fn prepare(tracker: &mut ProtocolTracker) {
    write(tracker, &[(b'P', b"s1\0SELECT 1\0\0\0"), (b'D', b"Ss1\0"), (b'S', b"")]);
}

fn parsed(tracker: &mut ProtocolTracker) {
    read(tracker, &[(b'1', b""), (b't', b"\0\0"), (b'n', b""), (b'Z', b"I")]);
}

#[test]
fn a_statement_is_unused_from_its_answer_to_its_first_use() {
    let mut tracker = started();
    prepare(&mut tracker);
    assert!(!tracker.wire.has_unused());
    parsed(&mut tracker);
    assert!(tracker.wire.has_unused());
    write(&mut tracker, &[(b'B', BIND), (b'E', b"\0\0\0\0\0"), (b'S', b"")]);
    assert!(!tracker.wire.has_unused());
}

#[test]
fn a_statement_can_be_used_before_the_end_of_its_answer() {
    let mut tracker = started();
    prepare(&mut tracker);
    read(&mut tracker, &[(b'1', b""), (b't', b"\0\0"), (b'n', b"")]);
    write(&mut tracker, &[(b'B', BIND), (b'E', b"\0\0\0\0\0"), (b'S', b"")]);
    read(&mut tracker, &[(b'Z', b"I"), (b'2', b""), (b'C', b"SELECT 1\0"), (b'Z', b"I")]);
    assert!(!tracker.wire.has_unused());
}

#[test]
fn a_refused_statement_does_not_exist() {
    let mut tracker = started();
    prepare(&mut tracker);
    write(&mut tracker, &[(b'P', b"s2\0SELECT 2\0\0\0"), (b'D', b"Ss2\0"), (b'S', b"")]);
    read(&mut tracker, &[(b'E', b"SERROR\0VERROR\0C42601\0\0"), (b'Z', b"I")]);
    assert!(!tracker.wire.has_unused());
    parsed(&mut tracker);
    assert_eq!(tracker.wire.take_unused(), ["s2"]);
    assert!(!tracker.wire.has_unused());
    write(&mut tracker, &[(b'Q', b"DEALLOCATE s2\0")]);
    read(&mut tracker, &[(b'C', b"DEALLOCATE\0"), (b'Z', b"I")]);
    assert!(tracker.wire.take_unused().is_empty());
}

#[test]
fn a_closed_or_dropped_statement_does_not_exist() {
    for gone in [(b'C', &b"Ss1\0"[..]), (b'Q', b"DISCARD ALL\0"), (b'Q', b"DEALLOCATE ALL\0")] {
        let mut tracker = started();
        prepare(&mut tracker);
        parsed(&mut tracker);
        write(&mut tracker, &[gone]);
        if gone.0 == b'Q' {
            read(&mut tracker, &[(b'C', gone.1), (b'Z', b"I")]);
            assert_eq!(tracker.wire.deallocations(), 1);
        }
        assert!(!tracker.wire.has_unused(), "{gone:?}");
        assert!(!tracker.wire.has_lost_look_up());
    }
}

#[test]
fn the_number_of_names_is_bounded() {
    let mut tracker = started();
    for number in 0..1_000 {
        let parse = format!("s{number}\0SELECT 1\0\0\0");
        write(&mut tracker, &[(b'P', parse.as_bytes()), (b'S', b"")]);
        read(&mut tracker, &[(b'1', b""), (b'Z', b"I")]);
    }
    let names = tracker.wire.take_unused();
    assert_eq!((names.len(), names[255].as_str()), (256, "s999"));
}

#[test]
fn unnamed_statements_are_no_concern() {
    let mut tracker = started();
    write(&mut tracker, &[(b'P', b"\0SELECT 1\0\0\0"), (b'D', b"S\0"), (b'S', b"")]);
    parsed(&mut tracker);
    assert!(!tracker.wire.has_unused());
}

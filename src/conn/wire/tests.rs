//! Examples, message by message, and properties of all streams. `server` has the model of a server for them.

mod server;
mod unused;

use std::thread;

use proptest::prelude::*;

use super::pieces::{self, Way};
use super::*;

pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn started() -> ProtocolTracker {
    let mut tracker = ProtocolTracker::default();
    read(
        &mut tracker,
        &[(b'R', &[0; 4]), (b'S', b"server_version\x0017\0"), (b'K', b"\0\0\x01\x02secret"), (b'Z', b"I")],
    );
    tracker
}

fn read(tracker: &mut ProtocolTracker, messages: &[(u8, &[u8])]) {
    let bytes: Vec<u8> = messages.iter().flat_map(|(kind, body)| message(*kind, body)).collect();
    tracker.on_read(&bytes);
}

/// Writes messages without a body.
fn write(tracker: &mut ProtocolTracker, kinds: &[u8]) {
    let bytes: Vec<u8> = kinds.iter().flat_map(|kind| message(*kind, b"")).collect();
    tracker.on_written(&bytes);
}

/// The numbers of unanswered requests: without housekeeping, and with it.
fn due(tracker: &ProtocolTracker) -> (usize, usize) {
    let quiet = tracker.wire.is_quiet();
    let in_flight = tracker.ledger.in_flight();
    assert_eq!(quiet, in_flight == 0);
    (tracker.wire.unanswered(), in_flight)
}

#[test]
fn start_up_is_no_request() {
    let mut tracker = ProtocolTracker::default();
    tracker.on_written(b"\0\0\0\x08\0\x03\0\0");
    write(&mut tracker, b"p");
    read(&mut tracker, &[(b'R', &[0; 4]), (b'E', b"SFATAL\0VFATAL\0C28P01\0Mno\0\0")]);
    assert_eq!((due(&tracker), tracker.wire.errors()), ((0, 0), 0));
    let wire = Arc::clone(started().wire());
    assert_eq!((wire.process_id(), wire.status(), wire.has_touched_session()), (0x102, TransactionStatus::Idle, false));
    assert!(!format!("{wire:?}").contains("secret"));
}

#[test]
fn a_query_and_a_sync_are_answered_in_order() {
    let mut tracker = started();
    write(&mut tracker, b"Q");
    write(&mut tracker, b"PDSBES");
    assert_eq!(due(&tracker), (3, 3));
    read(&mut tracker, &[(b'C', b"BEGIN\0"), (b'Z', b"T")]);
    assert_eq!((due(&tracker), tracker.wire.last_tag()), ((2, 2), Tag::Begin));
    assert_eq!(tracker.wire.status(), TransactionStatus::Open);
    read(&mut tracker, &[(b'E', b"SERROR\0VERROR\0C23505\0Mtwice\0\0"), (b'Z', b"E")]);
    assert_eq!((due(&tracker), tracker.wire.errors()), ((1, 1), 1));
    assert_eq!(tracker.wire.status(), TransactionStatus::Failed);
    assert_eq!(tracker.wire.last_words(), None);
    read(&mut tracker, &[(b'2', b""), (b'C', b"ROLLBACK\0"), (b'Z', b"I")]);
    assert_eq!((due(&tracker), tracker.wire.last_tag()), ((0, 0), Tag::Rollback));
}

#[test]
fn no_caller_waits_for_housekeeping() {
    let mut tracker = started();
    write(&mut tracker, b"CS");
    assert_eq!(due(&tracker), (0, 1));
    write(&mut tracker, b"CCSSCBES");
    assert_eq!(due(&tracker), (2, 4), "an empty Sync is a request, and so is a Close among others");
    read(&mut tracker, &[(b'3', b""), (b'Z', b"I"), (b'3', b""), (b'3', b""), (b'Z', b"I")]);
    assert_eq!(due(&tracker), (2, 2));
    read(&mut tracker, &[(b'Z', b"I"), (b'3', b""), (b'Z', b"I")]);
    assert_eq!(due(&tracker), (0, 0));
}

#[test]
fn a_commit_is_recognized_in_every_form() {
    let mut tracker = started();
    let mut committing = |messages: &[(u8, &[u8])]| {
        let bytes: Vec<u8> = messages.iter().flat_map(|(kind, body)| message(*kind, body)).collect();
        tracker.on_written(&bytes);
        let is_committing = tracker.wire.is_committing();
        while tracker.wire.unanswered() > 0 {
            read(&mut tracker, &[(b'Z', b"I")]);
        }
        assert!(!tracker.wire.is_committing());
        is_committing
    };
    assert!(committing(&[(b'Q', b" commit and chain\0")]));
    assert!(!committing(&[(b'P', b"s1\0COMMIT\0\0\0"), (b'D', b"Ss1\0"), (b'S', b"")]), "only prepared");
    assert!(committing(&[(b'B', b"\0s1\0\0\0\0\0\0\0"), (b'E', b"\0\0\0\0\0"), (b'S', b"")]));
    assert!(!committing(&[(b'B', b"\0s12\0\0\0\0\0\0\0"), (b'E', b"\0\0\0\0\0"), (b'S', b"")]), "another");
    let at_once: [(u8, &[u8]); 5] =
        [(b'P', b"\0end\0\0\0"), (b'D', b"S\0"), (b'B', b"\0\0\0\0\0\0\0\0"), (b'E', b"\0\0\0\0\0"), (b'S', b"")];
    assert!(committing(&at_once));
    assert!(!committing(&[(b'P', b"\0SELECT 1\0\0\0"), (b'B', b"\0\0\0\0\0\0\0\0"), (b'S', b"")]), "replaced");
}

#[test]
fn one_answer_is_due_for_a_copy_and_its_end() {
    let mut tracker = started();
    write(&mut tracker, b"BES");
    read(&mut tracker, &[(b'2', b""), (b'G', b"\0\0\0")]);
    write(&mut tracker, b"dd");
    assert_eq!(due(&tracker), (1, 1));
    write(&mut tracker, b"cS");
    assert_eq!(due(&tracker), (1, 1));
    write(&mut tracker, b"BES");
    assert_eq!(due(&tracker), (2, 2));
    read(&mut tracker, &[(b'C', b"COPY 2\0"), (b'Z', b"I")]);
    assert_eq!(due(&tracker), (1, 1));
}

#[test]
fn a_copy_that_ends_before_the_server_agreed_counts_once() {
    let mut tracker = started();
    write(&mut tracker, b"BESfS");
    assert_eq!(due(&tracker), (2, 2));
    read(&mut tracker, &[(b'2', b""), (b'G', b"\0\0\0")]);
    assert_eq!(due(&tracker), (1, 1));
}

#[test]
fn a_refused_copy_has_two_answers() {
    let mut tracker = started();
    write(&mut tracker, b"BES");
    read(&mut tracker, &[(b'2', b""), (b'E', b"SERROR\0C42P01\0\0")]);
    write(&mut tracker, b"fS");
    assert_eq!(due(&tracker), (2, 2));
    read(&mut tracker, &[(b'Z', b"I")]);
    assert_eq!(due(&tracker), (1, 1));
    read(&mut tracker, &[(b'Z', b"I")]);
    assert_eq!(due(&tracker), (0, 0));
}

/// A copy to a view: the server agrees, and then fails before it ignores the first Sync.
#[test]
fn a_copy_refused_late_owes_an_answer_to_its_end() {
    let mut tracker = started();
    write(&mut tracker, b"BES");
    read(&mut tracker, &[(b'2', b""), (b'G', b"\0\0\0"), (b'E', b"SERROR\0C42809\0\0"), (b'Z', b"I")]);
    assert_eq!(due(&tracker), (1, 1), "the driver will still write the end");
    write(&mut tracker, b"dfS");
    assert_eq!(due(&tracker), (1, 1));
    read(&mut tracker, &[(b'Z', b"I")]);
    assert_eq!(due(&tracker), (0, 0));
}

#[test]
fn a_failed_copy_is_in_doubt_until_the_next_answer() {
    let failed = || {
        let mut tracker = started();
        write(&mut tracker, b"BES");
        read(&mut tracker, &[(b'2', b""), (b'G', b"\0\0\0")]);
        write(&mut tracker, b"dcS");
        read(&mut tracker, &[(b'E', b"SERROR\0C22P02\0\0"), (b'Z', b"I")]);
        assert_eq!(due(&tracker), (1, 1));
        tracker
    };
    let mut one_answer = failed();
    write(&mut one_answer, b"Q");
    read(&mut one_answer, &[(b'N', b""), (b'C', b"SELECT 1\0"), (b'Z', b"I")]);
    assert_eq!(due(&one_answer), (0, 0));

    let mut two_answers = failed();
    write(&mut two_answers, b"Q");
    read(&mut two_answers, &[(b'N', b""), (b'S', b"a\0b\0"), (b'Z', b"I")]);
    assert_eq!(due(&two_answers), (1, 1));
    read(&mut two_answers, &[(b'C', b"SELECT 1\0"), (b'Z', b"I")]);
    assert_eq!(due(&two_answers), (0, 0));
}

#[test]
fn a_copy_by_simple_query_has_one_answer() {
    let mut tracker = started();
    write(&mut tracker, b"Q");
    read(&mut tracker, &[(b'G', b"\0\0\0")]);
    write(&mut tracker, b"dc");
    assert_eq!(due(&tracker), (1, 1));
    read(&mut tracker, &[(b'C', b"COPY 1\0"), (b'Z', b"I")]);
    assert_eq!(due(&tracker), (0, 0));
}

fn touched(tracker: &ProtocolTracker) -> bool {
    tracker.wire.has_touched_session()
}

#[test]
fn leftovers_in_the_session_are_found_in_answers() {
    for tag in ["SET", "LISTEN", "DECLARE CURSOR", "RESET", "DISCARD ALL", "UNLISTEN", "LOAD", "DO", "CALL", "PREPARE"]
    {
        let mut tracker = started();
        write(&mut tracker, b"Q");
        read(&mut tracker, &[(b'C', tag.as_bytes())]);
        assert!(touched(&tracker), "{tag}");
        tracker.wire.begin_session();
        read(&mut tracker, &[(b'C', b"SELECT 1\0"), (b'C', b"INSERT 0 1\0"), (b'C', b"PREPARE TRANSACTION\0")]);
        assert!(!touched(&tracker));
    }
}

#[test]
fn leftovers_in_the_session_are_found_in_requests() {
    let mut tracker = started();
    tracker.on_written(&message(b'Q', b"SELECT set_config('a.b', 'c', false)\0"));
    assert!(touched(&tracker) && !tracker.wire.may_have_prepared());
    tracker.wire.begin_session();
    tracker.on_written(&message(b'Q', b"PREPARE p AS SELECT 1\0"));
    assert!(touched(&tracker) && tracker.wire.may_have_prepared());
    tracker.wire.begin_session();
    tracker.on_written(&message(b'F', b""));
    assert!(touched(&tracker), "a function call by number");
    tracker.wire.begin_session();
    tracker.on_written(&message(b'Q', format!("SELECT '{}'\0", "x".repeat(1 << 17)).as_bytes()));
    assert!(touched(&tracker), "too long to be searched");
}

#[test]
fn each_execution_of_a_prepared_statement_counts() {
    let mut tracker = started();
    tracker.on_written(&message(b'P', b"s1\0SELECT pg_advisory_lock($1)\0\0\0"));
    tracker.on_written(&message(b'P', b"s2\0SELECT 1\0\0\0"));
    assert!(!touched(&tracker), "it was not run");
    tracker.on_written(&message(b'B', b"\0s2\0"));
    assert!(!touched(&tracker));
    for _ in 0..2 {
        tracker.on_written(&message(b'B', b"\0s1\0"));
        assert!(touched(&tracker));
        tracker.wire.begin_session();
    }
    tracker.on_written(&message(b'C', b"Ss1\0"));
    tracker.on_written(&message(b'P', b"s1\0SELECT 1\0\0\0"));
    tracker.on_written(&message(b'B', b"\0s1\0"));
    assert!(!touched(&tracker), "another by the same name");
    for number in 0..1_000 {
        tracker.on_written(&message(b'P', format!("t{number}\0SELECT setseed(0)\0\0\0").as_bytes()));
    }
    tracker.on_written(&message(b'B', b"\0t999\0"));
    assert!(touched(&tracker), "more than are remembered");
}

#[test]
fn settings_of_a_transaction_are_no_change() {
    let mut tracker = started();
    for (sql, tag) in [
        ("SET LOCAL TimeZone = 'UTC'", &b"SET\0"[..]),
        ("SET TRANSACTION READ ONLY", b"SET\0"),
        ("SET CONSTRAINTS ALL DEFERRED", b"SET CONSTRAINTS\0"),
        ("DECLARE c CURSOR FOR SELECT 1", b"DECLARE CURSOR\0"),
    ] {
        tracker.on_written(&message(b'Q', format!("{sql}\0").as_bytes()));
        read(&mut tracker, &[(b'C', tag), (b'Z', b"T")]);
        assert!(!touched(&tracker), "{sql}");
    }
    // A harmless command excuses only its own answer.
    tracker.on_written(&message(b'Q', b"SET LOCAL a.b = 1\0"));
    read(&mut tracker, &[(b'E', b"SERROR\0C42704\0\0"), (b'Z', b"E")]);
    write(&mut tracker, b"Q");
    read(&mut tracker, &[(b'C', b"SET\0"), (b'Z', b"I")]);
    assert!(touched(&tracker));
}

#[test]
fn a_parameter_with_another_value_is_a_change() {
    let mut tracker = started();
    read(&mut tracker, &[(b'S', b"TimeZone\0UTC\0")]);
    assert!(touched(&tracker));
    tracker.wire.begin_session();
    assert!(!touched(&tracker));
    read(&mut tracker, &[(b'S', b"TimeZone\0Asia/Tokyo\0")]);
    assert!(touched(&tracker));
    read(&mut tracker, &[(b'S', b"TimeZone\0UTC\0")]);
    assert!(!touched(&tracker));
}

#[test]
fn tags_are_recognized() {
    for (tag, expected) in [
        (&b"COMMIT\0"[..], Tag::Commit),
        (b"SAVEPOINT\0", Tag::Savepoint),
        (b"RELEASE\0", Tag::Release),
        (b"START TRANSACTION\0", Tag::Begin),
        (b"COMMIT PREPARED\0", Tag::Other),
        (b"INSERT 0 1\0", Tag::Other),
        (b"", Tag::Other),
    ] {
        let mut tracker = started();
        write(&mut tracker, b"Q");
        read(&mut tracker, &[(b'C', b"COMMIT\0"), (b'C', tag)]);
        assert_eq!(tracker.wire.last_tag(), expected);
    }
}

#[test]
fn the_servers_last_words_are_kept() {
    let said = |kind, body| {
        let mut tracker = started();
        read(&mut tracker, &[(kind, body)]);
        tracker.wire.last_words().map(|(state, message)| format!("{} {message}", state.code()))
    };
    assert_eq!(said(b'E', b"SFATAL\0VFATAL\0C57P01\0Mgone\0\0").as_deref(), Some("57P01 gone"));
    assert_eq!(said(b'E', b"SFATAL\0C08P01\0Mpooler\0\0").as_deref(), Some("08P01 pooler"), "without V");
    assert_eq!(said(b'E', b"SFATAL\0VERROR\0C57014\0Mcancel\0\0"), None, "S is for people");
    assert_eq!(said(b'N', b"SWARNING\0VWARNING\0C57P02\0Mcrash\0\0").as_deref(), Some("57P02 crash"));
    assert_eq!(said(b'N', b"SNOTICE\0VNOTICE\0C42P07\0Mexists\0\0"), None);
    assert_eq!(said(b'N', b""), None);
    let long = [b"VFATAL\0CXX000\0M", &[b'x'; 1_000][..]].concat();
    assert!(said(b'E', &long).unwrap().starts_with("XX000 xxx"));
}

#[test]
fn last_words_are_dropped_when_the_session_goes_on() {
    let mut tracker = started();
    write(&mut tracker, b"Q");
    read(&mut tracker, &[(b'N', b"SWARNING\0VWARNING\0C57P02\0Mcrash\0\0")]);
    assert!(tracker.wire.last_words().is_some());
    read(&mut tracker, &[(b'C', b"DO\0"), (b'Z', b"I")]);
    assert_eq!(tracker.wire.last_words(), None);
}

#[test]
fn an_answer_without_a_request_ends_the_connection() {
    for kind in [b'G', b'C', b'Z', b'D', b'x'] {
        let mut tracker = started();
        assert!(tracker.before_read().is_ok());
        // The header of the message is enough.
        tracker.on_read(&message(kind, b"I")[..5]);
        assert!(tracker.before_read().unwrap_err().to_string().contains("answers no request"));
        write(&mut tracker, b"Q");
        assert_eq!(due(&tracker), (1, 1), "the connection is never quiet again");
    }
}

/// The server answers each message of a group, and sends the answers at an error, or when there are many. At that time
/// the end of the group may not be written yet.
#[test]
fn a_request_that_is_written_in_part_may_have_answers() {
    let mut tracker = started();
    write(&mut tracker, b"PB");
    read(&mut tracker, &[(b'1', b""), (b'E', b"SERROR\0VERROR\0C22P02\0Mno\0\0")]);
    write(&mut tracker, b"ES");
    read(&mut tracker, &[(b'Z', b"I")]);
    assert!(tracker.before_read().is_ok());
}

#[test]
fn an_unknown_status_is_not_idle() {
    for status in [&b""[..], b"?", b"X"] {
        let mut tracker = started();
        write(&mut tracker, b"Q");
        read(&mut tracker, &[(b'Z', status)]);
        assert_eq!(tracker.wire.status(), TransactionStatus::Failed);
    }
}

#[test]
fn parameters_without_end_end_the_connection() {
    let mut tracker = started();
    for number in 0..2_000 {
        read(&mut tracker, &[(b'S', format!("p{number}\0x\0").as_bytes())]);
    }
    assert!(tracker.before_read().unwrap_err().to_string().contains("beyond the first 64"));
}

#[test]
fn a_stream_that_cannot_be_parsed_is_never_quiet() {
    let mut tracker = started();
    tracker.on_read(b"Z\0\0\0\x03I");
    assert_eq!(due(&tracker), (1, 1));
    write(&mut tracker, b"Q");
    read(&mut tracker, &[(b'Z', b"I")]);
    assert_eq!(due(&tracker), (1, 1));
}

#[test]
fn a_write_is_quiet_once_flushed() {
    let tracker = started();
    tracker.before_write().unwrap();
    assert!(!tracker.wire.is_quiet());
    tracker.on_write_pending();
    assert!(!tracker.wire.is_quiet(), "the driver still wants to write");
    tracker.on_flushed();
    assert!(tracker.wire.is_quiet());
}

#[test]
fn a_sealed_wire_allows_no_write() {
    let tracker = started();
    tracker.before_write().unwrap();
    tracker.before_write().unwrap();
    tracker.on_write_pending();
    assert_eq!((tracker.wire.attempts(), tracker.wire.is_sealed()), (1, false));
    assert_eq!((tracker.wire.seal(), tracker.wire.seal()), (1, 1));
    assert_eq!(tracker.before_write().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert!(tracker.before_flush().is_err());
    assert_eq!((tracker.wire.attempts(), tracker.wire.is_sealed()), (1, true));
}

#[test]
fn sealing_counts_every_write_that_was_allowed() {
    for _ in 0..200 {
        let tracker = started();
        let wire = Arc::clone(tracker.wire());
        let writer = thread::spawn(move || (0..2_000).take_while(|_| tracker.before_write().is_ok()).count() as u64);
        while wire.attempts() == 0 {
            thread::yield_now();
        }
        let sealed_at = wire.seal();
        assert_eq!(writer.join().unwrap(), sealed_at);
    }
}

fn messages() -> impl Strategy<Value = Vec<(Way, Vec<u8>)>> {
    let read = (proptest::sample::select(b"ZZZCEGNSAKD23TdI".to_vec()), body());
    let written = (proptest::sample::select(b"QSSSCcfdPBEDHXF".to_vec()), body());
    let one = prop_oneof![
        read.prop_map(|(kind, body)| (Way::Read, message(kind, &body))),
        written.prop_map(|(kind, body)| (Way::Written, message(kind, &body))),
    ];
    prop::collection::vec(one, 0..60)
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let said = prop::sample::select(vec![
        &b""[..],
        b"I",
        b"T",
        b"COMMIT\0",
        b"SET\0",
        b"SFATAL\0VFATAL\0C57P01\0Mgone\0\0",
        b"SWARNING\0C57P02\0Mcrash\0\0",
    ]);
    prop_oneof![
        4 => said.prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..1_200),
    ]
}

/// Cuts the stream into pieces of these sizes, over and over.
fn cut<'a>(stream: &'a [(Way, Vec<u8>)], sizes: &[usize]) -> Vec<(Way, &'a [u8])> {
    let mut sizes = sizes.iter().cycle();
    let mut pieces = Vec::new();
    for (way, bytes) in stream {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            pieces.push((*way, piece));
            rest = after;
        }
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_are_understood_however_they_are_cut_into_pieces(
        mut stream in messages(),
        sizes in prop::collection::vec(1..9_usize, 1..20),
        starts in any::<bool>(),
    ) {
        if starts {
            stream.insert(0, (Way::Read, message(b'Z', b"I")));
        }
        pieces::check(&cut(&stream, &sizes));
    }

    #[test]
    fn garbage_does_no_harm(
        garbage in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..300)), 0..20),
        sizes in prop::collection::vec(1..40_usize, 1..20),
    ) {
        let way = |is_read| if is_read { Way::Read } else { Way::Written };
        let mut stream = vec![(Way::Read, message(b'Z', b"I"))];
        stream.extend(garbage.into_iter().map(|(is_read, bytes)| (way(is_read), bytes)));
        pieces::check(&cut(&stream, &sizes));
        let mut tracker = ProtocolTracker::default();
        let mut written = 0;
        for (way, bytes) in &stream {
            pieces::feed(&mut tracker, *way, bytes);
            written += if *way == Way::Written { bytes.len() } else { 0 };
            prop_assert!(tracker.wire.unanswered() <= written / 5 + 1);
        }
    }
}

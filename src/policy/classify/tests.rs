use super::questions::{Condition, Fate, Reprepare, Retry};
use super::*;

use Condition::{IfIdempotent, Limited, OnceReprepared, Scheduled};
use Retry::{Never, NewConnection, OtherHost, SameConnection};

/// The row of one failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    /// Whether certainly nothing was applied: outside a transaction, inside one, and at its COMMIT.
    nothing: [bool; 3],
    retry: [Retry; 3],
    counts_as: CountsAs,
    fate: Fate,
}

const ALWAYS: [bool; 3] = [true; 3];
/// Nothing was applied only if a rollback undid it.
const IN_TRANSACTION: [bool; 3] = [false, true, false];
const NEW: [Retry; 3] = [NewConnection(Scheduled); 3];
const NEW_IF_SAFE: [Retry; 3] = [NewConnection(IfIdempotent), NewConnection(Scheduled), Never];

fn row(event: Occurrence<'static>) -> Row {
    let phases = [StatementPhase::Autocommit, StatementPhase::Transaction, StatementPhase::Commit];
    let failures = phases.map(|phase| Failure { phase, event });
    let first = failures[0];
    for failure in &failures[1..] {
        assert_eq!(failure.counts_as(), first.counts_as());
        assert_eq!((failure.fate(), failure.reprepare()), (first.fate(), first.reprepare()));
    }
    Row {
        nothing: failures.map(|failure| failure.effect() == Effect::NotApplied),
        retry: failures.map(|failure| failure.retry()),
        counts_as: first.counts_as(),
        fate: first.fate(),
    }
}

fn answer(severity: ServerSeverity, state: &'static str, message: &'static str) -> Answer<'static> {
    Answer { severity: Some(severity), state, message, routine: None, is_from_within: false }
}

fn said(severity: ServerSeverity, state: &'static str, message: &'static str) -> Occurrence<'static> {
    Occurrence::Answer(answer(severity, state, message))
}

fn error(state: &'static str) -> Row {
    row(said(ServerSeverity::Error, state, ""))
}

fn fatal(state: &'static str) -> Row {
    let fatal = row(said(ServerSeverity::Fatal, state, ""));
    assert_eq!(row(said(ServerSeverity::Panic, state, "")), fatal, "PANIC counts like FATAL");
    fatal
}

fn in_phase(phase: StatementPhase, severity: ServerSeverity, state: &'static str) -> Failure<'static> {
    Failure { phase, event: said(severity, state, "") }
}

fn lost(written: bool, last_words: Option<&'static str>) -> Row {
    row(Occurrence::Lost { written, last_words })
}

/// An error of the request. The server and the session are well.
const REQUEST: Row = Row { nothing: ALWAYS, retry: [Never; 3], counts_as: CountsAs::Success, fate: Fate::Keep };

/// A connection that ended during a request.
const LOST: Row =
    Row { nothing: IN_TRANSACTION, retry: NEW_IF_SAFE, counts_as: CountsAs::Failure, fate: Fate::Discard };

#[test]
fn the_server_was_not_reached() {
    let unreachable = row(Occurrence::Unreachable);
    let expected = Row { nothing: ALWAYS, retry: NEW, ..LOST };
    assert_eq!(unreachable, expected);
}

#[test]
fn lost_in_flight() {
    assert_eq!(lost(true, None), LOST);
    assert_eq!(lost(false, None), Row { nothing: ALWAYS, retry: NEW, ..LOST });
    assert_eq!(lost(true, Some("01000")), LOST, "a notice that explains nothing");
}

#[test]
fn lost_after_last_words() {
    assert_eq!(lost(true, Some("57P02")), fatal("57P02"));
    assert_eq!(lost(true, Some("57P01")), fatal("57P01"));
    assert_eq!(lost(true, Some("57P03")), Row { nothing: IN_TRANSACTION, retry: NEW_IF_SAFE, ..fatal("57P03") });
    let idle = Row { nothing: IN_TRANSACTION, retry: NEW_IF_SAFE, ..fatal("57P05") };
    assert_eq!(lost(true, Some("57P05")), idle, "the notice may be older than the request");
    assert_eq!(lost(true, Some("25P03")), idle);
    assert_eq!(lost(true, Some("57P04")).counts_as, CountsAs::Config);
    let is = |state| (Failure::after_last_words(state).is_crash(), Failure::after_last_words(state).is_shutdown());
    assert_eq!((is("57P02"), is("57P01"), is("57P05")), ((true, false), (false, true), (false, false)));
}

#[test]
fn class_08_fatal_and_08p01() {
    let expected = LOST;
    for state in ["08000", "08003", "08006", "08P01"] {
        assert_eq!(fatal(state), expected, "{state}");
    }
    let survived = Row { counts_as: CountsAs::Nothing, fate: Fate::Settle, ..expected };
    assert_eq!(error("08P01"), survived, "the end of the connection shows that a pooler hung up");
}

#[test]
fn class_08_error_is_a_foreign_server() {
    for state in ["08000", "08001", "08006"] {
        assert_eq!(error(state), REQUEST, "{state}");
    }
}

#[test]
fn a_pooler_had_no_server() {
    let expected = Row { nothing: ALWAYS, retry: NEW, ..LOST };
    for message in ["query_wait_timeout", "server login has been failing, cached error: no (server_login_retry)"] {
        assert_eq!(row(said(ServerSeverity::Fatal, "08P01", message)), expected, "{message}");
    }
    assert_eq!(row(said(ServerSeverity::Fatal, "08P01", "query timeout")), fatal("08P01"));
}

#[test]
fn read_only_25006() {
    let expected = Row { retry: [OtherHost(Scheduled); 3], counts_as: CountsAs::WrongHost, ..REQUEST };
    assert_eq!(error("25006"), expected);
    assert!(in_phase(StatementPhase::Transaction, ServerSeverity::Error, "25006").is_read_only());
}

#[test]
fn read_only_25006_in_a_read_only_transaction() {
    assert_eq!(
        row_in(StatementPhase::ReadOnlyTransaction, "25006"),
        row_in(StatementPhase::ReadOnlyTransaction, "42601")
    );
    assert!(!in_phase(StatementPhase::ReadOnlyTransaction, ServerSeverity::Error, "25006").is_read_only());
}

fn row_in(phase: StatementPhase, state: &'static str) -> (Effect, Retry, CountsAs, Fate) {
    let failure = in_phase(phase, ServerSeverity::Error, state);
    (failure.effect(), failure.retry(), failure.counts_as(), failure.fate())
}

#[test]
fn transaction_already_failed_25p02() {
    assert_eq!(error("25P02"), Row { fate: Fate::Settle, ..REQUEST });
}

#[test]
fn killed_while_idle_25p03_57p05() {
    let expected = Row { retry: NEW, counts_as: CountsAs::Nothing, fate: Fate::Discard, ..REQUEST };
    assert_eq!(fatal("25P03"), expected);
    assert_eq!(fatal("57P05"), expected);
}

#[test]
fn transaction_timeout_25p04() {
    let expected = Row { nothing: IN_TRANSACTION, counts_as: CountsAs::Slow, fate: Fate::Discard, ..REQUEST };
    assert_eq!(fatal("25P04"), expected);
}

#[test]
fn prepared_statement_lost_26000_42p05() {
    let expected = Row { retry: [SameConnection(OnceReprepared); 3], ..REQUEST };
    for state in ["26000", "42P05"] {
        assert_eq!(error(state), expected, "{state}");
        assert_eq!(
            in_phase(StatementPhase::Autocommit, ServerSeverity::Error, state).reprepare(),
            Some(Reprepare::Statement)
        );
    }
}

#[test]
fn stale_plan_0a000() {
    let english = "cached plan must not change result type";
    let german = "gecachter Plan darf den Ergebnistyp nicht ändern";
    let routine = |routine| Answer { routine, ..answer(ServerSeverity::Error, "0A000", german) };
    let by_routine = Occurrence::Answer(routine(Some("RevalidateCachedQuery")));
    for event in [said(ServerSeverity::Error, "0A000", english), by_routine] {
        assert_eq!(row(event), Row { retry: [SameConnection(OnceReprepared); 3], ..REQUEST });
        let failure = Failure { phase: StatementPhase::Autocommit, event };
        assert_eq!(failure.reprepare(), Some(Reprepare::StatementEverywhere));
    }
    assert_eq!(row(Occurrence::Answer(routine(None))), REQUEST);
}

#[test]
fn not_supported_0a000_is_no_stale_plan() {
    assert_eq!(error("0A000"), REQUEST);
    assert_eq!(in_phase(StatementPhase::Autocommit, ServerSeverity::Error, "0A000").reprepare(), None);
}

#[test]
fn conflict_40001_40p01() {
    for state in ["40001", "40P01"] {
        assert_eq!(
            error(state),
            Row {
                retry: [SameConnection(IfIdempotent), SameConnection(Scheduled), SameConnection(Scheduled)],
                ..REQUEST
            },
            "{state}"
        );
        assert!(in_phase(StatementPhase::Transaction, ServerSeverity::Error, state).is_conflict());
    }
    let recovery = Row { retry: NEW, fate: Fate::Discard, ..REQUEST };
    assert_eq!(fatal("40001"), recovery, "a conflict with recovery on a standby");
}

#[test]
fn ambiguous_40003_08007() {
    let retry = [SameConnection(IfIdempotent), SameConnection(IfIdempotent), Never];
    let expected = Row { nothing: IN_TRANSACTION, retry, counts_as: CountsAs::Nothing, ..REQUEST };
    assert_eq!(error("40003"), expected);
    assert_eq!(error("08007"), expected);
}

#[test]
fn disk_and_memory_53100_53200() {
    let expected = Row {
        retry: [SameConnection(IfIdempotent), SameConnection(Limited), SameConnection(Limited)],
        counts_as: CountsAs::Failure,
        ..REQUEST
    };
    for state in ["53000", "53100", "53200", "53300"] {
        assert_eq!(error(state), expected, "{state}");
    }
    let retry = [NewConnection(IfIdempotent), NewConnection(Limited), Never];
    let ended = Row { nothing: IN_TRANSACTION, retry, fate: Fate::Discard, ..expected };
    assert_eq!(fatal("53200"), ended);
}

#[test]
fn too_many_clients_53300() {
    assert_eq!(fatal("53300"), Row { retry: NEW, counts_as: CountsAs::Failure, fate: Fate::Discard, ..REQUEST });
}

#[test]
fn limits_53400_54xxx() {
    for state in ["53400", "54000", "54001"] {
        assert_eq!(error(state), REQUEST, "{state}");
    }
}

#[test]
fn in_use_55006_55p03() {
    for state in ["55006", "55P03"] {
        assert_eq!(
            error(state),
            Row { retry: [SameConnection(IfIdempotent), SameConnection(Limited), SameConnection(Limited)], ..REQUEST },
            "{state}"
        );
    }
}

#[test]
fn cancelled_57014() {
    assert_eq!(error("57014"), Row { counts_as: CountsAs::Nothing, fate: Fate::Settle, ..REQUEST });
    let by = |routine| {
        let event = Occurrence::Answer(Answer { routine, ..answer(ServerSeverity::Error, "57014", "") });
        Failure { phase: StatementPhase::Autocommit, event }.is_cancel()
    };
    assert!(by(Some("ProcessInterrupts")) && by(None), "the server stopped it");
    assert!(!by(Some("exec_stmt_raise")), "a function raised the same code");
}

#[test]
fn shutdown_57p01() {
    assert_eq!(fatal("57P01"), Row { counts_as: CountsAs::FailureIfShutdown, ..LOST });
}

#[test]
fn crash_57p02() {
    assert_eq!(fatal("57P02"), LOST);
}

#[test]
fn starting_or_stopping_57p03() {
    let expected = Row { nothing: ALWAYS, retry: NEW, ..LOST };
    assert_eq!(fatal("57P03"), expected);
}

#[test]
fn database_gone_57p04_3d000() {
    let expected = Row { counts_as: CountsAs::Config, fate: Fate::Discard, ..REQUEST };
    assert_eq!(fatal("57P04"), expected);
    assert_eq!(fatal("3D000"), expected);
    assert_eq!(error("3D000"), REQUEST, "DROP DATABASE of another database");
}

#[test]
fn system_and_config_file_58xxx_f0xxx() {
    for state in ["58000", "58030", "58P01", "F0000", "F0001"] {
        assert_eq!(error(state), Row { retry: [SameConnection(IfIdempotent); 3], ..REQUEST }, "{state}");
    }
    let retry = [NewConnection(IfIdempotent), NewConnection(IfIdempotent), Never];
    assert_eq!(fatal("58030"), Row { retry, ..LOST });
}

#[test]
fn internal_xx000_xx001_xx002() {
    for state in ["XX000", "XX001", "XX002"] {
        assert_eq!(error(state), REQUEST, "{state}: the server is alive");
        let ended = Row { counts_as: CountsAs::Failure, fate: Fate::Discard, nothing: IN_TRANSACTION, ..REQUEST };
        assert_eq!(fatal(state), ended, "{state}");
    }
}

/// A function may raise any SQLSTATE, so one that ends sessions means nothing while the session goes on.
#[test]
fn a_state_that_ends_sessions_is_the_requests_if_the_session_goes_on() {
    for state in ["25P03", "25P04", "57P01", "57P02", "57P03", "57P04", "57P05", "28P01", "3D000", "08006"] {
        assert_eq!(error(state), REQUEST, "{state}");
    }
}

#[test]
fn authentication_28xxx() {
    let expected = Row { counts_as: CountsAs::Config, fate: Fate::Discard, ..REQUEST };
    assert_eq!(fatal("28000"), expected);
    assert_eq!(fatal("28P01"), expected);
}

#[test]
fn any_other_refusal_of_a_dial_is_a_setting() {
    for state in ["28P01", "3D000", "42501", "42704", "22023"] {
        let failure = Failure::at_connect(state);
        assert_eq!((failure.counts_as(), failure.retry()), (CountsAs::Config, Never), "{state}");
        assert_eq!(failure.effect(), Effect::NotApplied, "{state}");
    }
    for state in ["53300", "57P03", "08006", "XX000"] {
        assert_eq!(Failure::at_connect(state).counts_as(), CountsAs::Failure, "{state}");
    }
}

#[test]
fn every_other_error_is_the_requests() {
    for state in ["22012", "23505", "42601", "42501", "P0001", "44000", "", "é", "2"] {
        assert_eq!(error(state), REQUEST, "{state}");
    }
}

#[test]
fn the_pool_discards_a_connection_whose_session_ended() {
    for state in ["22012", "23505", "42P01", "ZZZZZ", ""] {
        assert_eq!(fatal(state), LOST, "{state}");
        let foreign = Occurrence::Answer(Answer { severity: None, ..answer(ServerSeverity::Fatal, state, "") });
        assert_eq!(row(foreign), LOST, "{state}, with an unknown severity");
    }
}

#[test]
fn an_error_in_a_procedure_does_not_show_what_it_has_committed() {
    for state in ["26000", "42P05", "25006", "53300", "58030", "55P03"] {
        let event = Occurrence::Answer(Answer { is_from_within: true, ..answer(ServerSeverity::Error, state, "") });
        let [autocommit, transaction, _] = row(event).retry;
        assert!(matches!(
            autocommit,
            SameConnection(IfIdempotent) | NewConnection(IfIdempotent) | OtherHost(IfIdempotent)
        ));
        assert_eq!(transaction, error(state).retry[1], "{state}: the whole transaction is undone");
        assert_eq!(Failure { phase: StatementPhase::Autocommit, event }.reprepare(), None, "{state}");
    }
}

#[test]
fn errors_of_the_driver() {
    let expected = Row { nothing: [false; 3], counts_as: CountsAs::Nothing, ..REQUEST };
    assert_eq!(row(Occurrence::Driver { written: true }), expected);
    assert_eq!(row(Occurrence::Driver { written: false }), Row { nothing: ALWAYS, ..expected });
}

#[test]
fn only_class_22_quotes_values() {
    assert!(in_phase(StatementPhase::Autocommit, ServerSeverity::Error, "22P02").may_quote_values());
    assert!(!in_phase(StatementPhase::Autocommit, ServerSeverity::Error, "23505").may_quote_values());
}

#[test]
fn services_tell_some_objections_apart() {
    for (states, objection) in [
        (&["23505"][..], Objection::Unique),
        (&["23503", "23001"], Objection::ForeignKey),
        (&["23514"], Objection::Check),
        (&["23502"], Objection::NotNull),
        (&["23P01"], Objection::Exclusion),
        (&["22001"], Objection::TooLong),
        (&["22003", "22008"], Objection::OutOfRange),
        (&["22P02", "22007", "22021", "22P05"], Objection::InvalidText),
        (&["42501"], Objection::Privilege),
        (&["55P03"], Objection::LockTaken),
        (&["40001"], Objection::Serialization),
        (&["40P01"], Objection::Deadlock),
    ] {
        for state in states {
            assert_eq!(Objection::of(state), Some(objection), "{state}");
        }
    }
    for state in ["23000", "22012", "42601", "P0001", "57014", "44000", "", "2350", "235050", "é"] {
        assert_eq!(Objection::of(state), None, "{state}");
    }
}

#[test]
fn class_22_is_a_data_exception() {
    assert!(["22001", "22003", "22P02", "22P04", "22012", "22000"].into_iter().all(is_data_exception));
    assert!(!["23505", "23502", "42804", "21000", "P0022", "", "2"].into_iter().any(is_data_exception));
}

mod documented;
mod http;

use std::error::Error as StdError;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Config, Connection, NoTls};

use super::*;

type DriverError = tokio_postgres::Error;

/// Lets the driver make an error, which it can only do from bytes.
async fn read_by_the_driver(bytes: Vec<u8>) -> DriverError {
    let (near, mut far) = duplex(4_096);
    let send = async {
        let mut request = [0; 256];
        let _ = far.read(&mut request).await.unwrap();
        far.write_all(&bytes).await.unwrap();
        drop(far);
    };
    let mut config = Config::new();
    config.user("u");
    let (answer, ()) = tokio::join!(config.connect_raw(near, NoTls), send);
    let answer: Result<(_, Connection<_, NoTlsStream>), _> = answer;
    answer.err().unwrap()
}

async fn closed() -> DriverError {
    read_by_the_driver(Vec::new()).await
}

async fn answer(fields: &[(u8, &str)]) -> DriverError {
    let mut body = Vec::new();
    for (kind, value) in fields {
        body.push(*kind);
        body.extend(value.bytes());
        body.push(0);
    }
    body.push(0);
    let mut bytes = vec![b'E'];
    bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    bytes.extend(body);
    read_by_the_driver(bytes).await
}

async fn plain(severity: &str, state: &str, message: &str) -> DriverError {
    answer(&[(b'S', severity), (b'V', severity), (b'C', state), (b'M', message)]).await
}

async fn duplicate() -> DriverError {
    answer(&[
        (b'S', "ERROR"),
        (b'V', "ERROR"),
        (b'C', "23505"),
        (b'M', "duplicate key value violates unique constraint \"users_pkey\""),
        (b'D', "Key (email)=(secret@example.com) already exists."),
        (b'W', "SQL statement with secret"),
    ])
    .await
}

async fn lost() -> Arc<Lost> {
    let last_words = (SqlState::from_code("57P02"), "terminating because of a crash".to_owned());
    Arc::new(Lost::new(Some(last_words), closed().await))
}

fn status() -> Status {
    Status { in_use: 20, idle: 0, waiting: 3, ..Status::of_19_in_20() }
}

fn check(error: &Error, kind: &str, effect: Effect, line: &str) {
    assert_eq!(error.to_string(), line);
    assert_eq!((error.kind().as_str(), error.effect()), (kind, effect), "{line}");
    let debug = format!("{error:?}");
    assert!(debug.contains(&format!("{:?}", error.kind())) && debug.contains("effect"), "{debug}");
}

#[test]
fn refusals_have_changed_nothing() {
    let after = Duration::from_millis(20);
    let longest_held = LongestHeld::NONE;
    let shed = Error::Shed { reason: ShedReason::QueueFull, retry_after: Some(after), longest_held };
    check(&shed, "shed", Effect::NotApplied, "refused at once: the queue for connections is full");
    assert!(shed.is_overload() && shed.retry_after() == Some(after));
    let longest_held = LongestHeld::NONE;
    let limited = Error::Shed { reason: ShedReason::RateLimited, retry_after: Some(after), longest_held };
    let line = "refused at once: its lane or operation has used up its rate";
    check(&limited, "shed", Effect::NotApplied, line);
    assert!(!limited.is_overload() && limited.is_unavailable() && limited.retry_after() == Some(after));

    let timeout = Error::AcquireTimeout {
        timeout: after,
        status: Box::new(status()),
        last_connect_error: None,
        longest_held: LongestHeld::NONE,
    };
    let line = "no connection within 20 ms: pool orders: 100% in use (20/20), 3 waiting";
    check(&timeout, "acquire_timeout", Effect::NotApplied, line);
    assert!(timeout.is_overload());

    check(&Error::Closed, "closed", Effect::NotApplied, "the pool is closed");
}

#[test]
fn a_failed_dial_names_the_server_and_the_time_of_the_next_dial() {
    let source = ConnectError::io("db:5432", io::ErrorKind::ConnectionRefused.into());
    let error = Error::Connect { source, retry_after: Duration::from_secs(1) };
    check(&error, "connect", Effect::NotApplied, "not connected: db:5432: connection refused");
    assert_eq!((error.retry_after(), error.sqlstate()), (Some(Duration::from_secs(1)), None));
    let source = ConnectError::new(ConnectErrorKind::Server(SqlState::INVALID_PASSWORD), "db:5432");
    let error = Error::Connect { source, retry_after: Duration::ZERO };
    assert_eq!(error.sqlstate(), Some(&SqlState::INVALID_PASSWORD));
}

#[test]
fn timeouts_name_the_servers_process() {
    let after = Duration::from_secs(5);
    let error = Error::QueryTimeout { operation: None, after, process_id: Some(4711), effect: Effect::Unknown };
    let line = "the statement had not finished when the deadline passed, 5 s after it began (server process 4711); it may or \
                may not have been applied";
    check(&error, "query_timeout", Effect::Unknown, line);
    assert!(!error.is_overload());

    let error = Error::QueryTimeout { operation: Some("load"), after, process_id: None, effect: Effect::NotApplied };
    let line = "load: the statement had not finished when the deadline passed, 5 s after it began; nothing was applied";
    check(&error, "query_timeout", Effect::NotApplied, line);

    let (reason, waited) = (BusyReason::Stopping, Duration::from_millis(50));
    let error = Error::Busy { reason, waited, process_id: Some(4711) };
    let line =
        "not begun within 50 ms: an earlier statement on the connection is still being stopped (server process 4711)";
    check(&error, "busy", Effect::NotApplied, line);
}

#[test]
fn a_step_after_the_end_of_a_copy_says_so_and_what_to_do() {
    let error = Error::Busy { reason: BusyReason::CopyEnded, waited: Duration::ZERO, process_id: None };
    let line = "not sent: the COPY has ended, because it was finished, or a step of it failed or was dropped; begin \
                another COPY with copy_in";
    check(&error, "busy", Effect::NotApplied, line);
}

#[test]
fn an_aborted_transaction_says_why() {
    for (reason, line) in [
        (
            AbortReason::Failed { sqlstate: Some(SqlState::UNIQUE_VIOLATION) },
            "a statement in it had failed (23505), and the error was not passed on",
        ),
        (
            AbortReason::Failed { sqlstate: None },
            "a statement in it had timed out or was done in part, and the error was not passed on",
        ),
        (AbortReason::InUse, "a clone of its handle or a stream of its rows still existed"),
        (AbortReason::RolledBack, "the server answered COMMIT with ROLLBACK"),
    ] {
        let error = Error::TransactionAborted { reason };
        let line = format!("rolled back instead of committed: {line}");
        check(&error, "transaction_aborted", Effect::NotApplied, &line);
    }
    let reason = AbortReason::Failed { sqlstate: Some(SqlState::UNIQUE_VIOLATION) };
    assert_eq!(Error::TransactionAborted { reason }.sqlstate(), Some(&SqlState::UNIQUE_VIOLATION));
}

#[tokio::test]
async fn a_commit_without_an_answer_has_an_unknown_effect() {
    let unknown = |what: &str| format!("the transaction may or may not have committed: {what}");
    let error = Error::CommitUnknown { source: None, lost: None };
    check(&error, "commit_unknown", Effect::Unknown, &unknown("no answer to COMMIT came in time"));

    let lost = lost().await;
    let error = Error::of_statement(closed().await, true, StatementPhase::Commit, Some(Arc::clone(&lost)));
    check(&error, "commit_unknown", Effect::Unknown, &unknown(&format!("connection lost: {lost}")));
    assert_eq!(error.sqlstate(), Some(&SqlState::from_code("57P02")));

    let terminated = plain("FATAL", "57P01", "terminating connection due to administrator command").await;
    let error = Error::of_statement(terminated, true, StatementPhase::Commit, Some(lost));
    let line = unknown("FATAL: terminating connection due to administrator command (57P01)");
    check(&error, "commit_unknown", Effect::Unknown, &line);
    assert_eq!(error.sqlstate(), Some(&SqlState::ADMIN_SHUTDOWN));
}

#[tokio::test]
async fn a_commit_that_was_refused_or_never_sent_has_no_effect() {
    let error = Error::of_statement(duplicate().await, true, StatementPhase::Commit, None);
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Postgres, Effect::NotApplied));
    let error = Error::of_statement(closed().await, false, StatementPhase::Commit, Some(lost().await));
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Postgres, Effect::NotApplied));
}

#[tokio::test]
async fn an_answer_shows_message_and_code_but_no_values() {
    let error = Error::from(duplicate().await);
    let line = "ERROR: duplicate key value violates unique constraint \"users_pkey\" (23505)";
    check(&error, "postgres", Effect::NotApplied, line);
    assert_eq!(error.sqlstate(), Some(&SqlState::UNIQUE_VIOLATION));
    let shown = format!("{error} {error:?} {error:#?}");
    assert!(!shown.contains("secret"), "{shown}");

    let source = error.source().and_then(|source| source.downcast_ref::<DriverError>()).unwrap();
    let detail = source.as_db_error().and_then(|db| db.detail());
    assert_eq!(detail, Some("Key (email)=(secret@example.com) already exists."));
}

#[tokio::test]
async fn a_message_that_quotes_a_value_is_cut_off_before_it() {
    for (message, line) in [
        (
            "invalid input syntax for type integer: \"secret\"",
            "ERROR: invalid input syntax for type integer: … (22P02)",
        ),
        ("syntaxe en entrée invalide : « secret »", "ERROR: syntaxe en entrée invalide : … (22P02)"),
        ("ungültige Eingabe: „secret“", "ERROR: ungültige Eingabe: … (22P02)"),
        ("division by zero", "ERROR: division by zero (22P02)"),
    ] {
        let error = Error::from(plain("ERROR", "22P02", message).await);
        check(&error, "postgres", Effect::NotApplied, line);
        assert!(!format!("{error:?}").contains("secret"));
    }
}

#[tokio::test]
async fn a_message_is_one_line_and_not_endless() {
    let error = Error::from(plain("ERROR", "P0001", "first\nsecond").await);
    assert_eq!(error.to_string(), "ERROR: first… (P0001)");
    let error = Error::from(plain("ERROR", "P0001", &"ä".repeat(1_000)).await);
    assert_eq!(error.to_string(), format!("ERROR: {}… (P0001)", "ä".repeat(300)));
    let error = Error::from(plain("ERROR", "22P02", "").await);
    assert_eq!(error.to_string(), "ERROR:  (22P02)");
}

#[tokio::test]
async fn a_lost_connection_says_whether_anything_was_applied() {
    let lost = lost().await;
    let fails = async |written, phase| Error::of_statement(closed().await, written, phase, Some(Arc::clone(&lost)));
    let line = format!("connection lost: {lost}");

    let error = fails(true, StatementPhase::Autocommit).await;
    check(&error, "postgres", Effect::Unknown, &format!("{line}; it may or may not have been applied"));
    assert_eq!(error.sqlstate(), Some(&SqlState::from_code("57P02")));
    check(&fails(false, StatementPhase::Autocommit).await, "postgres", Effect::NotApplied, &line);
    check(&fails(true, StatementPhase::Transaction).await, "postgres", Effect::NotApplied, &line);

    let error = Error::from(closed().await);
    check(&error, "postgres", Effect::Unknown, "connection closed; it may or may not have been applied");
}

#[tokio::test]
async fn a_pooler_may_send_only_the_severity_for_people() {
    for (severity, effect) in [("ERROR", Effect::NotApplied), ("FATAL", Effect::Unknown), ("ВАЖНО", Effect::Unknown)]
    {
        let error = answer(&[(b'S', severity), (b'C', "22012"), (b'M', "division by zero")]).await;
        assert_eq!(Error::from(error).effect(), effect, "{severity}");
    }
}

#[tokio::test]
async fn an_error_of_the_driver_may_come_after_the_statement_was_applied() {
    let broken = || read_by_the_driver(b"E\0\0\0\x05\0".to_vec());
    let error = Error::from(broken().await);
    check(&error, "postgres", Effect::Unknown, "error parsing response from server");
    assert_eq!(error.sqlstate(), None);
    let error = Error::of_statement(broken().await, false, StatementPhase::Autocommit, None);
    assert_eq!(error.effect(), Effect::NotApplied);
}

#[tokio::test]
async fn an_error_names_the_row_that_caused_it() {
    let error = answer(&[(b'S', "ERROR"), (b'C', "23505"), (b'M', "duplicate key")]).await;
    let error = Error::from(error).at_row(17);
    check(&error, "postgres", Effect::NotApplied, "row 17, counted from 0: ERROR: duplicate key (23505)");
    assert_eq!(error.row(), Some(17));
    // A lost connection is not the fault of a row.
    let lost = Some(lost().await);
    let error = Error::of_statement(closed().await, true, StatementPhase::Preparing, lost).at_row(17);
    assert_eq!(error.row(), None);
    assert_eq!(Error::Closed.at_row(1).row(), None);
}

#[test]
fn an_error_is_small_and_shareable() {
    assert!(size_of::<Error>() <= 48, "{}", size_of::<Error>());
    fn is_shareable<T: Send + Sync + 'static>() {}
    is_shareable::<Error>();
}

#[tokio::test]
async fn names_of_the_database_are_readable_and_only_an_answer_is_an_objection() {
    let error = Error::from(
        answer(&[
            (b'S', "FEHLER"),
            (b'V', "ERROR"),
            (b'C', "23502"),
            (b'M', "NULL-Wert in Spalte verletzt Not-Null-Constraint"),
            (b's', "public"),
            (b't', "users"),
            (b'c', "email"),
        ])
        .await,
    );
    assert!(error.is_not_null_violation() && !error.is_unique_violation() && error.is_worth_logging());
    assert_eq!((error.table(), error.column(), error.constraint()), (Some("users"), Some("email"), None));

    // A role without CONNECT on the database is a setting of the service, and no fault of a request.
    let source = ConnectError::new(ConnectErrorKind::Server(SqlState::INSUFFICIENT_PRIVILEGE), "db:5432");
    let error = Error::Connect { source, retry_after: Duration::ZERO };
    assert_eq!(error.sqlstate(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    assert!(!error.is_insufficient_privilege() && !error.is_worth_logging());

    // The closure of the transaction ignored the error: a bug of the service.
    let reason = AbortReason::Failed { sqlstate: Some(SqlState::UNIQUE_VIOLATION) };
    let error = Error::TransactionAborted { reason };
    assert!(!error.is_unique_violation() && error.is_worth_logging());

    let error = Error::from(closed().await);
    assert!(!error.is_unique_violation() && error.constraint().is_none() && error.is_worth_logging());
}

#[test]
fn refusals_are_not_worth_logging() {
    let after = Duration::from_millis(20);
    for error in [
        Error::Shed { reason: ShedReason::QueueFull, retry_after: Some(after), longest_held: LongestHeld::NONE },
        Error::CircuitOpen { retry_after: after, last_connect_error: None },
        Error::AcquireTimeout {
            timeout: after,
            status: Box::new(status()),
            last_connect_error: None,
            longest_held: LongestHeld::NONE,
        },
        Error::Connect {
            source: ConnectError::io("db:5432", io::ErrorKind::ConnectionRefused.into()),
            retry_after: after,
        },
        Error::Closed,
    ] {
        assert!(!error.is_worth_logging(), "{error}");
    }
    let effect = Effect::Unknown;
    for error in [
        Error::QueryTimeout { operation: None, after, process_id: None, effect },
        Error::StreamIdle { operation: None, idle: after, process_id: None, effect },
        Error::Busy { reason: BusyReason::Stopping, waited: after, process_id: None },
        Error::CommitUnknown { source: None, lost: None },
    ] {
        assert!(error.is_worth_logging(), "{error}");
    }
}

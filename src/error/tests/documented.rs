//! The library does what `docs/failure-semantics.md` promises: these tests read each row of its tables and try it.

use super::*;
use crate::policy::{Condition, CountsAs, Failure, Fate, Retry};

const DOCUMENT: &str = include_str!("../../../docs/failure-semantics.md");
const SECOND: Duration = Duration::from_secs(1);

/// The rows of the table under a heading, each as a list of cells.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = DOCUMENT.split_once(&format!("\n## {heading}\n")).expect("no such heading");
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = rows.skip(1).map(|row| row.split(" | ").collect());
    rows.collect()
}

/// The codes of a cell, and the message that distinguishes two rows with the same code.
fn states(cell: &str) -> (Vec<&str>, &str) {
    let codes: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
    assert!(!codes.is_empty() && codes.iter().all(|code| code.len() == 5), "{cell}");
    (codes, cell.split('"').nth(1).unwrap_or("a message"))
}

fn yes(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

fn applied(error: &Error) -> &'static str {
    match error.effect() {
        Effect::NotApplied => "no",
        Effect::Unknown => "unknown",
    }
}

fn again(retry: Retry) -> &'static str {
    let Some(condition) = retry.condition() else { return "no" };
    match condition {
        Condition::Scheduled => "yes",
        Condition::Limited | Condition::OnceReprepared => "once",
        Condition::IfIdempotent => "if idempotent",
    }
}

fn counted(counts_as: CountsAs) -> &'static str {
    match counts_as {
        CountsAs::Failure => "failure",
        CountsAs::Success => "success",
        CountsAs::Slow => "slow call",
        CountsAs::FailureIfShutdown => "failure, if two within 1 s",
        CountsAs::WrongHost | CountsAs::Config | CountsAs::Nothing => "nothing",
    }
}

fn connection(fate: Fate) -> &'static str {
    match fate {
        Fate::Keep => "kept",
        Fate::Settle => "cleaned up",
        Fate::Discard => "closed",
    }
}

/// The columns of one code: applied, again, transaction, breaker, connection, HTTP, fallback.
async fn columns(severity: &str, state: &str, message: &str) -> [String; 7] {
    let in_phase = async |phase| Error::of_statement(plain(severity, state, message).await, true, phase, None);
    let (alone, inside) = (in_phase(StatementPhase::Autocommit).await, in_phase(StatementPhase::Transaction).await);
    let committing = in_phase(StatementPhase::Commit).await;
    assert_eq!(applied(&committing), applied(&alone), "{severity} {state}: as alone");
    let kind = if applied(&alone) == "no" { ErrorKind::Postgres } else { ErrorKind::CommitUnknown };
    assert_eq!((alone.kind(), inside.kind(), committing.kind()), (ErrorKind::Postgres, ErrorKind::Postgres, kind));
    let both = match (applied(&alone), applied(&inside)) {
        (alone, inside) if alone == inside => alone.to_owned(),
        (alone, inside) => format!("{alone}, {inside}"),
    };

    let source = plain(severity, state, message).await;
    let failure = driver::failure(&source, true, StatementPhase::Autocommit, None);
    let by_code = Failure::answered(state);
    let runs_again = by_code.is_conflict() || by_code.reprepare().is_some() || failure.reprepare().is_some();
    [
        both,
        again(alone.retry()).to_owned(),
        yes(runs_again).to_owned(),
        counted(failure.counts_as()).to_owned(),
        connection(failure.fate()).to_owned(),
        alone.http_status().to_string(),
        yes(alone.is_unavailable()).to_owned(),
    ]
}

#[tokio::test]
async fn what_the_server_says_to_a_statement() {
    let mut seen = 0;
    for row in rows("What the server says to a statement") {
        let [codes, severity, _, documented @ .., _] = &row[..] else { panic!("{row:?}") };
        let (codes, message) = states(codes);
        for state in codes {
            assert_eq!(columns(severity, state, message).await, documented, "{severity} {state} {message}");
            seen += 1;
        }
    }
    assert!(seen > 50, "the table was not found");
}

#[test]
fn what_the_server_says_to_a_dial() {
    let mut seen = 0;
    for row in rows("What the server says to a dial") {
        let [codes, _, documented @ .., _] = &row[..] else { panic!("{row:?}") };
        for state in states(codes).0 {
            let source = ConnectError::new(ConnectErrorKind::Server(SqlState::from_code(state)), "db:5432");
            let counts_as = counted(source.counts_as());
            let error = Error::Connect { source, retry_after: SECOND };
            assert_eq!([again(error.retry()), counts_as], documented, "{state}");
            assert_eq!((applied(&error), error.sqlstate().unwrap().code()), ("no", state));
            seen += 1;
        }
    }
    assert!(seen > 5, "the table was not found");
}

/// An error for a row of the table of the pool's own errors. `None`: the row has no error.
async fn example(what: &str) -> Option<Error> {
    let shed = |reason| Error::Shed { reason, retry_after: None, longest_held: LongestHeld::NONE };
    let connect = |kind| Error::Connect { source: ConnectError::new(kind, "db:5432"), retry_after: SECOND };
    let late = |effect| Error::QueryTimeout { operation: None, after: SECOND, process_id: None, effect };
    let idle = |effect| Error::StreamIdle { operation: None, idle: SECOND, process_id: None, effect };
    let lost = async |written, phase| Error::of_statement(closed().await, written, phase, Some(lost().await));
    let unknown = |source, lost| Error::CommitUnknown { source, lost };
    let aborted = |reason| Error::TransactionAborted { reason };
    Some(match what.split([':', ',']).next().unwrap() {
        "refused at once" if what.contains("circuit") => {
            Error::CircuitOpen { retry_after: SECOND, last_connect_error: None }
        }
        "refused at once" => shed(ShedReason::Hopeless),
        "refused after a wait" => shed(ShedReason::TooLate),
        "no connection within `acquire_timeout`" => Error::AcquireTimeout {
            timeout: SECOND,
            status: Box::new(status()),
            last_connect_error: None,
            longest_held: LongestHeld::NONE,
        },
        "dials fail" => connect(ConnectErrorKind::Io),
        "dials fail on this side" => connect(ConnectErrorKind::Tls),
        "a statement is late" => late(Effect::Unknown),
        "a statement in a transaction of the pool is late" => late(Effect::NotApplied),
        "the deadline passed before anything was sent" => late(Effect::NotApplied),
        "nobody reads a stream for `stream_idle_timeout`" => idle(Effect::Unknown),
        "nobody reads a stream in a transaction of the pool for as long" => idle(Effect::NotApplied),
        "an earlier statement on the guard is still being stopped" => {
            Error::Busy { reason: BusyReason::Stopping, waited: SECOND, process_id: None }
        }
        "a step of a `COPY` that has ended" => {
            Error::Busy { reason: BusyReason::CopyEnded, waited: Duration::ZERO, process_id: None }
        }
        "other statements are under way on the guard when `execute_many` would begin a transaction" => {
            Error::Busy { reason: BusyReason::InUse, waited: Duration::ZERO, process_id: None }
        }
        "`execute_many` is late before its COMMIT" => late(Effect::NotApplied),
        "a row of `copy_in_rows` or `execute_many` does not fit its types" => {
            let garbled = read_by_the_driver(b"Z\0\0\0\x04".to_vec()).await;
            Error::of_statement(garbled, true, StatementPhase::Preparing, None).at_row(7)
        }
        "the connection was lost before anything was written" => lost(false, StatementPhase::Autocommit).await,
        "the connection was lost while the statement was only being prepared" => {
            lost(true, StatementPhase::Preparing).await
        }
        "the connection was lost after that" => lost(true, StatementPhase::Autocommit).await,
        "the connection was lost in a transaction" => lost(true, StatementPhase::Transaction).await,
        "the connection was lost in COMMIT" => lost(true, StatementPhase::Commit).await,
        "no command tag of COMMIT came in time" => unknown(None, None),
        "a transaction was to be committed after an error in it" => aborted(AbortReason::Failed { sqlstate: None }),
        "a transaction was ended by a statement in it" => aborted(AbortReason::EndedByHand),
        "a parameter or a row does not fit its type" => {
            let garbled = read_by_the_driver(b"Z\0\0\0\x04".to_vec()).await;
            Error::of_statement(garbled, true, StatementPhase::Autocommit, None)
        }
        "a change of the schema gave way in each of its attempts" => {
            let reason = GiveWayReason::Waiting { sessions: 3, longest: SECOND };
            Error::GaveWay { attempts: 10, reason }
        }
        "no host of a `Cluster` accepts writes" => {
            Error::NoPrimary { hosts: "a:5432 is a replica".into(), retry_after: SECOND }
        }
        "two hosts of a `Cluster` accept writes" => {
            Error::TwoPrimaries { hosts: Box::new(["a:5432".into(), "b:5432".into()]), retry_after: SECOND }
        }
        "hosts of a `Cluster` belong to two systems" => {
            Error::TwoSystems { systems: Box::new([("a:5432".into(), 7), ("b:5432".into(), 8)]), retry_after: SECOND }
        }
        "no replica of a `Cluster` is fresh enough for a read" => {
            Error::NoFreshReplica { nearest: Some(SECOND), retry_after: SECOND }
        }
        "the pool is closed or drained" => Error::Closed,
        "the caller drops its future" => return None,
        _ => panic!("no example of: {what}"),
    })
}

/// The columns of breaker and connection are tested elsewhere, where the errors occur.
#[tokio::test]
async fn what_the_pool_says() {
    let rows = rows("What the pool says");
    assert!(rows.len() > 15, "the table was not found");
    for row in rows {
        let [what, kind, applies, runs_again, _, _, status, fallback, _] = row[..] else { panic!("{row:?}") };
        let Some(error) = example(what).await else {
            assert_eq!((kind, status), ("none", "none"), "{what}");
            continue;
        };
        let variant = format!("`{:?}`", error.kind());
        let status_code = error.http_status().to_string();
        let is_unavailable = yes(error.is_unavailable());
        let found = [variant.as_str(), applied(&error), &status_code, is_unavailable];
        assert_eq!(found, [kind, applies, status, fallback], "{what}: {error}");
        // Whether a transaction runs again depends on its statements, not on the error: see `tests/it/transactions.rs`.
        if !what.contains("in a transaction,") {
            assert_eq!(again(error.retry()), runs_again, "{what}: {error}");
        }
    }
}

/// The kinds as `meaning.rs` names them: `Self::Shed => "shed",`.
fn kinds() -> Vec<(&'static str, &'static str)> {
    let names = include_str!("../meaning.rs").lines().filter_map(|line| line.trim().strip_prefix("Self::"));
    let names = names.filter_map(|line| line.strip_suffix("\",")?.split_once(" => \""));
    names.collect()
}

#[test]
fn each_kind_has_a_row_and_a_name_in_the_metrics() {
    let kinds = kinds();
    assert!(kinds.len() > 10, "the kinds were not found");
    let (rows, metrics) = (rows("What the pool says"), include_str!("../../../docs/metrics.md"));
    for (kind, name) in kinds {
        assert!(rows.iter().any(|row| row[1] == format!("`{kind}`")), "docs/failure-semantics.md has no row of {kind}");
        assert!(metrics.contains(&format!("`{name}`")), "docs/metrics.md does not have the error.type {name}");
    }
}

/// The last column is for people, and no other test reads it.
#[test]
fn each_row_says_what_to_do() {
    for heading in ["What the pool says", "What the server says to a statement", "What the server says to a dial"] {
        for row in rows(heading) {
            assert!(row.last().is_some_and(|advice| !advice.is_empty()), "{row:?}");
        }
    }
}

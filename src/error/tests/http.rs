//! What an HTTP service answers, for each error.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn answer(error: &Error) -> (u16, Option<u64>) {
    (error.http_status(), error.http_retry_after())
}

fn shed(retry_after: Option<Duration>) -> Error {
    Error::Shed { reason: ShedReason::QueueFull, retry_after, longest_held: LongestHeld::NONE }
}

/// The errors that do not come from the driver, each with a secret where one could be.
fn ours() -> Vec<(Error, (u16, Option<u64>))> {
    let connect = || ConnectError::io("canary:5432", io::ErrorKind::ConnectionRefused.into());
    let status = Box::new(Status { name: "canary".into(), ..status() });
    let late = |effect| Error::QueryTimeout { operation: Some("canary"), after: SECOND, process_id: Some(1), effect };
    let aborted = |reason| Error::TransactionAborted { reason };
    vec![
        (shed(None), (503, Some(1))),
        (shed(Some(Duration::ZERO)), (503, Some(1))),
        (shed(Some(Duration::from_millis(20))), (503, Some(1))),
        (shed(Some(SECOND)), (503, Some(1))),
        (shed(Some(SECOND + Duration::from_nanos(1))), (503, Some(2))),
        (shed(Some(Duration::MAX)), (503, Some(u64::MAX))),
        (
            Error::CircuitOpen { retry_after: Duration::from_millis(29_001), last_connect_error: Some(connect()) },
            (503, Some(30)),
        ),
        (
            Error::AcquireTimeout {
                timeout: SECOND,
                status,
                last_connect_error: Some(connect()),
                longest_held: LongestHeld::NONE,
            },
            (503, Some(1)),
        ),
        (Error::Connect { source: connect(), retry_after: Duration::from_millis(1_500) }, (503, Some(2))),
        (Error::Busy { reason: BusyReason::Stopping, waited: SECOND, process_id: Some(1) }, (503, Some(1))),
        (Error::Closed, (503, Some(1))),
        (late(Effect::Unknown), (504, None)),
        (late(Effect::NotApplied), (504, None)),
        (Error::CommitUnknown { source: None, lost: None }, (500, None)),
        (aborted(AbortReason::Failed { sqlstate: Some(SqlState::UNIQUE_VIOLATION) }), (500, None)),
        (aborted(AbortReason::EndedByHand), (500, None)),
        (aborted(AbortReason::InUse), (500, None)),
    ]
}

async fn of_the_server(severity: &str, state: &str, phase: StatementPhase) -> Error {
    Error::of_statement(plain(severity, state, "canary").await, true, phase, None)
}

/// Severity, SQLSTATE, phase and HTTP status.
const ANSWERS: [(&str, &str, StatementPhase, u16); 20] = [
    ("ERROR", "40001", StatementPhase::Transaction, 503),
    ("ERROR", "40P01", StatementPhase::Autocommit, 503),
    ("ERROR", "40001", StatementPhase::Commit, 503),
    ("ERROR", "40003", StatementPhase::Autocommit, 500),
    ("ERROR", "53200", StatementPhase::Autocommit, 503),
    ("FATAL", "53300", StatementPhase::Autocommit, 503),
    ("ERROR", "55P03", StatementPhase::Autocommit, 503),
    ("ERROR", "25006", StatementPhase::Autocommit, 503),
    ("FATAL", "57P01", StatementPhase::Transaction, 503),
    ("FATAL", "57P01", StatementPhase::Autocommit, 500),
    ("FATAL", "57P01", StatementPhase::Commit, 500),
    ("FATAL", "57P02", StatementPhase::Autocommit, 500),
    ("FATAL", "57P03", StatementPhase::Autocommit, 503),
    ("FATAL", "08P01", StatementPhase::Autocommit, 500),
    ("ERROR", "57014", StatementPhase::Autocommit, 500),
    ("ERROR", "23505", StatementPhase::Autocommit, 500),
    ("ERROR", "22P02", StatementPhase::Autocommit, 500),
    ("ERROR", "42601", StatementPhase::Autocommit, 500),
    ("ERROR", "P0001", StatementPhase::Autocommit, 500),
    ("ERROR", "XX000", StatementPhase::Autocommit, 500),
];

#[test]
fn what_the_pool_says_itself() {
    for (error, expected) in ours() {
        assert_eq!(answer(&error), expected, "{error}");
    }
}

#[tokio::test]
async fn what_the_server_says() {
    for (severity, state, phase, status) in ANSWERS {
        let error = of_the_server(severity, state, phase).await;
        let after = (status == 503).then_some(1);
        assert_eq!(answer(&error), (status, after), "{severity} {state} {phase:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_lost_connection_is_unavailable_only_if_nothing_was_applied() {
    for (written, phase, status) in [
        (false, StatementPhase::Autocommit, 503),
        (true, StatementPhase::Autocommit, 500),
        (true, StatementPhase::Transaction, 503),
        (false, StatementPhase::Commit, 503),
        (true, StatementPhase::Commit, 500),
    ] {
        for lost in [None, Some(lost().await)] {
            let error = Error::of_statement(closed().await, written, phase, lost);
            assert_eq!(error.http_status(), status, "written {written}, {phase:?}: {error:?}");
        }
    }
    // Without the facts about the call, an error cannot say that nothing was applied.
    assert_eq!(Error::from(closed().await).http_status(), 500);
}

#[cfg(feature = "axum")]
mod as_an_answer {
    use axum_core::response::IntoResponse;
    use futures_util::TryStreamExt;

    use super::*;

    async fn check(error: Error) {
        let (line, status, after) = (error.to_string(), error.http_status(), error.http_retry_after());
        let is_known = error.effect() == Effect::NotApplied;
        let response = error.into_response();
        let headers = format!("{:?}", response.headers());
        assert_eq!(response.status().as_u16(), status, "{line}");
        let told = response.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
        assert_eq!(told, after, "{line}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.extensions().get::<Arc<Error>>().map(ToString::to_string), Some(line.clone()));

        let parts: Vec<_> = response.into_body().into_data_stream().try_collect().await.unwrap();
        let body = String::from_utf8(parts.concat()).unwrap();
        assert!(body.contains(&format!("\"status\":{status}")), "{body}");
        assert_eq!(body.contains("is not known"), status == 500 && !is_known, "{line}: {body}");
        for secret in ["canary", "SELECT", "localhost", "5432"] {
            assert!(!body.contains(secret) && !headers.contains(secret), "{line}: {headers} {body}");
        }
    }

    #[tokio::test]
    async fn each_has_its_status_and_nothing_of_the_database() {
        for (error, _) in ours() {
            check(error).await;
        }
        for (severity, state, phase, _) in ANSWERS {
            let error = of_the_server(severity, state, phase).await;
            assert!(error.to_string().contains("canary"), "{error}");
            check(error).await;
        }
        check(Error::of_statement(closed().await, true, StatementPhase::Commit, Some(lost().await))).await;
    }
}

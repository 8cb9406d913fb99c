use std::panic::Location;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::*;
use crate::error::{ConnectError, ConnectErrorKind, Lost};
use crate::operation::Operation;
use crate::policy::{Advice, AdviceReason, Cause, Counts, Lane, RefusalCounts, ShedReason, State, Transition};
use crate::status::Status;

const SECOND: Duration = Duration::from_secs(1);

fn status() -> Status {
    Status::of_19_in_20()
}

fn line(kind: EventKind) -> String {
    Event::new("orders".into(), SystemTime::now(), kind).to_string()
}

fn change(from: State, to: State) -> EventKind {
    let counts = Counts { completed: 10, failures: 6, ..Counts::default() };
    let transition = Transition {
        name: None,
        from,
        to,
        cause: Cause::FailureRate,
        counts,
        at: std::time::Instant::now(),
        by: None,
        number: 2,
    };
    EventKind::BreakerChanged { transition, lasting: Duration::ZERO }
}

#[test]
fn the_line_of_utilization() {
    let shown = line(EventKind::UtilizationCritical { status: status(), lasting: 10 * SECOND });
    assert_eq!(shown, "pool orders: utilization 95% (19/20), 127 waiting");
    let again = line(EventKind::UtilizationHigh { status: status(), lasting: 40 * SECOND });
    assert_eq!(again, "pool orders: utilization 95% (19/20), 127 waiting (for 40 s so far)");
    let predicted = EventKind::ExhaustionPredicted {
        status: status(),
        within: Duration::from_millis(2_340),
        over: 12 * SECOND,
        lasting: Duration::ZERO,
    };
    assert_eq!(
        line(predicted),
        "pool orders: utilization 95% (19/20), 127 waiting, and the trend of the last 12 s exhausts it in 2.3 s"
    );
}

#[test]
fn refusals_are_listed_by_reason() {
    let refused = RefusalCounts::of([(ShedReason::QueueFull, 2), (ShedReason::Hopeless, 40)]);
    let shown = line(EventKind::Shedding { status: status(), refused, lasting: 31 * SECOND });
    assert_eq!(
        shown,
        "pool orders: refusing callers for 31 s: 42 (40 hopeless, 2 with the queue full); utilization 95% (19/20), 127 waiting"
    );
}

#[test]
fn the_slower_operation_is_named() {
    let inflated = EventKind::LeasesInflated {
        operation: Operation::Named("load_dashboard"),
        from: Duration::from_millis(200),
        to: Duration::from_millis(1_802),
        lasting: 30 * SECOND,
    };
    assert_eq!(
        line(inflated),
        "pool orders: load_dashboard holds its connections for 1.8 s, which used to be 200 ms (for 30 s so far)"
    );
}

#[test]
fn unusual_traffic_is_shown_beside_the_usual() {
    let anomaly = EventKind::TrafficAnomaly { calls_per_minute: 6_120, usual: 1_190, lasting: 30 * SECOND };
    assert_eq!(line(anomaly), "pool orders: 6120 calls in a minute, which used to be 1190 (for 30 s so far)");
    let normal = EventKind::TrafficNormal { calls_per_minute: 1_204, lasted: 90 * SECOND };
    assert_eq!(line(normal), "pool orders: 1204 calls in a minute, which is normal again, after 90 s");
}

#[test]
fn a_throttled_lane_is_shown_with_the_operation_that_is_slow() {
    let operation = Operation::Named("load_dashboard");
    let throttled = EventKind::BackgroundThrottled { share: 0.5, operation, lasting: Duration::ZERO };
    assert_eq!(
        line(throttled),
        "pool orders: the lane background may use 50% of its limit, because load_dashboard holds its connections too \
         long"
    );
    let restored = EventKind::BackgroundRestored { lasted: 40 * SECOND };
    assert_eq!(line(restored), "pool orders: the lane background may use all of its limit again, after 40 s");
}

#[test]
fn a_change_of_the_schema_that_has_to_wait_says_for_what() {
    let postponed = EventKind::SchemaChangePostponed {
        operation: Some("migration 41"),
        attempts: 3,
        reason: "2 sessions waited for its locks, the first for 510 ms".into(),
        retry_in: 8 * SECOND,
    };
    let shown = "pool orders: migration 41 is not done after 3 attempts, trying again in 8 s: 2 sessions waited for its \
        locks, the first for 510 ms";
    assert_eq!(line(postponed), shown);
}

#[test]
fn an_order_names_the_call_and_the_reason() {
    let by = Location::caller();
    let resized = EventKind::Resized { from: 10, to: 30, by, reason: Some("campaign".into()) };
    assert_eq!(line(resized), format!("pool orders: resized from 10 to 30 by {}:{}: campaign", file!(), by.line()));
    let moved = EventKind::LaneChanged {
        operation: "report".into(),
        from: None,
        to: Some(Lane::Background),
        by,
        reason: Some("incident 7".into()),
    };
    let shown = "pool orders: report moves from the lane of each call to background by ";
    assert_eq!(line(moved), format!("{shown}{}:{}: incident 7", file!(), by.line()));
    let flushed = EventKind::Flushed { by, reason: None };
    assert_eq!(line(flushed), format!("pool orders: flushed by {}:{}", file!(), by.line()));
}

#[test]
fn a_change_of_the_breaker_matters_by_its_target() {
    assert_eq!(change(State::Closed, State::Open).severity(), Severity::Critical);
    assert_eq!(change(State::Closed, State::Disabled).severity(), Severity::Warning);
    assert_eq!(change(State::Open, State::HalfOpen).severity(), Severity::Info);
    assert_eq!(change(State::HalfOpen, State::Closed).severity(), Severity::Critical, "as its beginning");
    assert!(change(State::HalfOpen, State::Closed).is_end() && !change(State::Closed, State::Open).is_end());
    let shown = line(change(State::Closed, State::Open));
    assert_eq!(shown, "pool orders: circuit closed -> open: too many calls failed (6 of 10 calls failed)");
}

#[test]
fn severities_are_in_order() {
    assert!(Severity::Info < Severity::Warning && Severity::Warning < Severity::Critical);
    assert_eq!(Severity::Critical.to_string(), "critical");
}

#[test]
fn the_lines_of_a_fleet_say_what_to_do() {
    let (lasting, short) = (SECOND * 40, |minimums| EventKind::FleetShort {
        granted: 4,
        wanted: 20,
        capacity: 34,
        members: 8,
        minimums,
        lasting: SECOND,
    });
    for (kind, expected) in [
        (
            short(8),
            "pool orders: the fleet is short: 8 processes divide 34 connections, and this one gets 4 of the 20 that it wants",
        ),
        (
            short(40),
            "pool orders: the fleet is short: 8 processes divide 34 connections, and this one gets 4 of the 20 that it \
             wants; the minimums alone are 40",
        ),
        (
            EventKind::FleetStrangers { count: 25, capacity: 9, lasting },
            "pool orders: 25 connections of strangers (for 40 s so far): the fleet has only 9 left",
        ),
        (
            EventKind::FleetBlind { granted: 4, reason: "no answer within 2 s".to_owned(), lasting },
            "pool orders: cannot read the beacons of the fleet for 40 s, and uses at most 4 connections: no answer \
             within 2 s",
        ),
        (
            EventKind::FleetOff { lasting: SECOND },
            "pool orders: no fleet: a pooler answers, which shows no beacons; limit its connections with \
             max_db_connections",
        ),
    ] {
        assert_eq!(line(kind), expected);
    }
}

fn advice(reason: AdviceReason, operation: Option<Operation>, to: usize) -> Advice {
    let (from, inflation) = (20, Some(2.4));
    Advice { reason, operation, from, to, inflation, utilization: 0.95, throughput: 812.0 }
}

#[test]
fn the_lines_of_a_limit_that_follows_the_database() {
    let report = Some(Operation::Named("report"));
    let changed = |reason, operation, to| line(EventKind::LimitChanged { advice: advice(reason, operation, to) });
    let figures = "(95% in use, 812 leases a second)";
    for (shown, expected) in [
        (
            changed(AdviceReason::Saturated, None, 18),
            "pool orders: 20 -> 18 connections, because the server is saturated: leases take 2.4 times as long as usual \
             (95% in use, 812 leases a second)",
        ),
        (
            changed(AdviceReason::SlowOperation, report, 3),
            "pool orders: report: at most 3 calls at a time, because it is slow and the others are not: leases take 2.4 \
             times as long as usual (95% in use, 812 leases a second)",
        ),
    ] {
        assert_eq!(shown, expected);
    }
    let normal = |reason, operation, to| {
        let advice = Advice { inflation: Some(1.1), ..advice(reason, operation, to) };
        line(EventKind::LimitChanged { advice })
    };
    let expected = format!("pool orders: 20 -> 21 connections, because leases take their usual time again {figures}");
    assert_eq!(normal(AdviceReason::Recovered, None, 21), expected);
    let expected = format!(
        "pool orders: report: no longer at most 20 calls, because leases take their usual time again {figures}"
    );
    assert_eq!(normal(AdviceReason::Recovered, report, 20), expected);
    let growth = Advice { inflation: Some(1.0), ..advice(AdviceReason::CallersQueue, None, 22) };
    assert_eq!(
        line(EventKind::LimitAdvised { advice: growth, lasting: 40 * SECOND }),
        format!(
            "pool orders: advice (for 40 s so far): 20 -> 22 connections, because callers wait while leases take their usual \
             time {figures}"
        )
    );
    let bound =
        Advice { inflation: Some(6.0), ..advice(AdviceReason::LockBound, Some(Operation::Named("book_seat")), 20) };
    assert_eq!(
        line(EventKind::LockBound { advice: bound, lasting: SECOND }),
        "pool orders: book_seat waits for locks of the database: leases take 6.0 times as long as usual; more \
         connections would wait, too"
    );
    assert_eq!(
        line(EventKind::HeldByCaller { advice: advice(AdviceReason::HeldByCaller, None, 20), lasting: SECOND }),
        "pool orders: leases take 2.4 times as long as usual, and the server waits for our code or the network: more \
         connections would be held, too"
    );
    for reason in [AdviceReason::NoGain, AdviceReason::Costly, AdviceReason::HeldByCaller, AdviceReason::LockBound] {
        assert!(changed(reason, None, 18).contains("20 -> 18 connections"));
    }
}

#[test]
fn each_event_is_one_line_and_may_go_anywhere() {
    fn goes_anywhere<T: Clone + Send + Sync + fmt::Debug + 'static>(_: &T) {}

    let by = Location::caller();
    let operation = Operation::At(by);
    let error = ConnectError::new(ConnectErrorKind::Timeout(SECOND), "db:5432");
    let lost = Arc::new(Lost::sealed());
    let (status, lasting, lasted) = (status(), SECOND, SECOND);
    let refused = RefusalCounts::default();
    let kinds = [
        EventKind::UtilizationHigh { status: status.clone(), lasting },
        EventKind::UtilizationCritical { status: status.clone(), lasting },
        EventKind::ExhaustionPredicted { status: status.clone(), within: SECOND, over: SECOND, lasting },
        EventKind::Shedding { status: status.clone(), refused, lasting },
        EventKind::LeasesInflated { operation, from: SECOND, to: SECOND, lasting },
        change(State::Closed, State::Open),
        EventKind::Resized { from: 1, to: 2, by, reason: None },
        EventKind::LaneChanged { operation: "a\nb".into(), from: None, to: None, by, reason: None },
        EventKind::SchemaChangePostponed {
            operation: None,
            attempts: 1,
            reason: "a lock\nwas not free".into(),
            retry_in: SECOND,
        },
        EventKind::TimelineForgotten { timeline: 7, by, reason: None },
        EventKind::Flushed { by, reason: None },
        EventKind::Started { settings: "max_size 20".into() },
        EventKind::PoolTooLarge { max_size: 20, left: 7 },
        EventKind::UtilizationNormal { status: status.clone(), lasted },
        EventKind::Exhausted { status: status.clone(), lasting },
        EventKind::ExhaustionEnded { status: status.clone(), lasted },
        EventKind::ExhaustionPredictionEnded { status: status.clone(), lasted },
        EventKind::SheddingEnded { status: status.clone(), refused, lasted },
        EventKind::LeasesNormal { operation, to: SECOND, lasted },
        EventKind::TrafficAnomaly { calls_per_minute: 500, usual: 100, lasting },
        EventKind::TrafficNormal { calls_per_minute: 100, lasted },
        EventKind::BackgroundThrottled { share: 0.25, operation, lasting },
        EventKind::BackgroundRestored { lasted },
        EventKind::LeakSuspected { operation, held: SECOND, taken: by, backtrace: None },
        EventKind::LongRunning { count: 6, than: SECOND, longest: (operation, SECOND), lasting },
        EventKind::LongRunningEnded { lasted },
        EventKind::SlowAcquire { status, count: 3, than: SECOND, longest: SECOND, lasting },
        EventKind::SlowAcquireEnded { lasted },
        EventKind::ConnectFailed { error, count: 3, lasting },
        EventKind::ConnectRecovered { lasted },
        EventKind::ConnectionLost { lost: Arc::clone(&lost), count: 1, ago: lasted },
        EventKind::ConnectionLost { lost: Arc::clone(&lost), count: 2, ago: lasted },
        EventKind::ListenInterrupted { reason: lost.to_string() },
        EventKind::ListenResumed { lasted },
        EventKind::ServerShuttingDown { lost },
        EventKind::ServerWarning { message: "low".to_owned(), sqlstate: SqlState::WARNING, count: 2, ago: lasted },
        EventKind::PrimaryChanged {
            from: Some("a:5432".to_owned()),
            to: None,
            #[cfg(feature = "cluster")]
            last: None,
            #[cfg(feature = "cluster")]
            first: None,
        },
        EventKind::PrimaryMissing { lasting },
        EventKind::PrimaryFound { host: "a:5432".to_owned(), lasted },
        EventKind::TwoPrimaries { hosts: ["a:5432", "b:5432"].map(str::to_owned), lasting },
        EventKind::TwoSystems { systems: [("a:5432".to_owned(), 7), ("b:5432".to_owned(), 8)], lasting },
        EventKind::ReplicaLags { host: "b:5432".to_owned(), lag: Some(SECOND), lasting },
        EventKind::ReplicaLags { host: "b:5432".to_owned(), lag: None, lasting },
        EventKind::ReplicaCaughtUp { host: "b:5432".to_owned(), lasted },
        EventKind::HostSilent { host: "b:5432".to_owned(), reason: "no answer".to_owned(), lasting },
        EventKind::HostAnswers { host: "b:5432".to_owned(), lasted },
        EventKind::HostBalances { host: "b:5432".to_owned() },
        EventKind::FleetShort { granted: 9, wanted: 20, capacity: 34, members: 8, minimums: 8, lasting },
        EventKind::FleetSuffices { lasted },
        EventKind::FleetStrangers { count: 25, capacity: 9, lasting },
        EventKind::FleetStrangersGone { lasted },
        EventKind::FleetBlind { granted: 9, reason: "no answer within 2 s".to_owned(), lasting },
        EventKind::FleetSees { lasted },
        EventKind::FleetOff { lasting },
        EventKind::FleetOn { lasted },
        EventKind::LimitAdvised { advice: advice(AdviceReason::CallersQueue, None, 22), lasting },
        EventKind::LimitChanged { advice: advice(AdviceReason::Saturated, Some(operation), 3) },
        EventKind::LockBound { advice: advice(AdviceReason::LockBound, None, 20), lasting },
        EventKind::LockBoundEnded { lasted },
        EventKind::HeldByCaller { advice: advice(AdviceReason::HeldByCaller, None, 20), lasting },
        EventKind::HeldByCallerEnded { lasted },
        EventKind::AddressAvoided { address: "[::1]:5432".to_owned(), reason: "no answer".to_owned() },
        EventKind::AddressRestored { address: "[::1]:5432".to_owned(), lasted },
        EventKind::SettleFailed { count: 1, ago: lasted },
        EventKind::BreakerForced { to: State::ForcedOpen, by, reason: "failover".into() },
        EventKind::Draining { by, reason: None },
        EventKind::Drained { left: 0, took: SECOND },
        EventKind::Drained { left: 2, took: SECOND },
    ];
    // The names as `name.rs` has them: `Self::Started { .. } => "started",`.
    let names =
        include_str!("name.rs").lines().filter_map(|line| line.split_once(" { .. } => \"")?.1.strip_suffix("\","));
    for name in names {
        assert!(kinds.iter().any(|kind| kind.as_str() == name), "the list above lacks the event {name}");
    }
    for kind in kinds {
        goes_anywhere(&kind);
        let shown = line(kind);
        assert!(shown.starts_with("pool orders: ") && !shown.contains('\n'), "{shown}");
    }
}

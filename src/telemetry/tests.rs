use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;

use super::*;

/// An event with a number.
fn numbered(count: u64) -> EventKind {
    EventKind::SettleFailed { count, ago: std::time::Duration::ZERO }
}

fn number(event: &Event) -> u64 {
    match event.kind {
        EventKind::SettleFailed { count, .. } => count,
        _ => panic!("another event: {event}"),
    }
}

/// An observer and the numbers of the events that it got.
fn recorder() -> (Arc<dyn Observer>, Arc<Mutex<Vec<u64>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let observer = Arc::clone(&events);
    (Arc::new(move |event: &Event| observer.lock().push(number(event))), events)
}

#[test]
fn all_observers_get_the_events_in_order() {
    let ((first, first_events), (second, second_events)) = (recorder(), recorder());
    let telemetry = Telemetry::new("orders".into(), Observers(vec![first, second]));
    assert!(telemetry.is_heard());
    (1..=3).for_each(|n| telemetry.emit(numbered(n)));
    assert_eq!(*first_events.lock(), [1, 2, 3]);
    assert_eq!(*second_events.lock(), [1, 2, 3]);
}

#[test]
fn a_panic_of_an_observer_harms_no_other() {
    let (after, events) = recorder();
    let telemetry = Telemetry::new("orders".into(), Observers(vec![Arc::new(|_: &Event| panic!("on purpose")), after]));
    telemetry.emit(numbered(1));
    telemetry.emit(numbered(2));
    assert_eq!(*events.lock(), [1, 2]);
}

#[test]
fn an_observer_gets_the_events_that_it_causes() {
    let (recorder, events) = recorder();
    let telemetry = Arc::new_cyclic(|telemetry: &Weak<Telemetry>| {
        let telemetry = telemetry.clone();
        let answers = move |event: &Event| {
            if number(event) == 1 {
                telemetry.upgrade().unwrap().emit(numbered(2));
            }
        };
        Telemetry::new("orders".into(), Observers(vec![recorder, Arc::new(answers)]))
    });
    telemetry.emit(numbered(1));
    assert_eq!(*events.lock(), [1, 2]);
}

#[test]
fn an_observer_that_answers_its_own_events_is_stopped() {
    let calls = Arc::new(AtomicUsize::new(0));
    let telemetry = Arc::new_cyclic(|telemetry: &Weak<Telemetry>| {
        let (telemetry, calls) = (telemetry.clone(), Arc::clone(&calls));
        let answers = move |event: &Event| {
            calls.fetch_add(1, SeqCst);
            telemetry.upgrade().unwrap().emit(numbered(number(event) + 1));
        };
        Telemetry::new("orders".into(), Observers(vec![Arc::new(answers)]))
    });
    for round in 1..=2 {
        telemetry.emit(numbered(1));
        assert_eq!(calls.load(SeqCst), round * DEEPEST as usize);
    }
}

#[tokio::test]
async fn events_are_heard_while_there_is_a_reader_or_an_observer() {
    let telemetry = Telemetry::new("orders".into(), Observers::default());
    assert!(!telemetry.is_heard());
    telemetry.emit(numbered(1));
    let mut events = telemetry.events();
    assert!(telemetry.is_heard());
    telemetry.emit(numbered(2));
    let event = events.next().await.unwrap();
    assert_eq!(event.to_string(), "pool orders: closed 2 connections: the clean-up failed");
    drop(events);
    assert!(!telemetry.is_heard());
}

#[tokio::test]
async fn a_slow_reader_loses_the_oldest_events_and_can_count_them() {
    let telemetry = Telemetry::new("orders".into(), Observers::default());
    let (mut slow, mut quick) = (telemetry.events(), telemetry.events());
    for n in 1..=KEPT as u64 + 7 {
        telemetry.emit(numbered(n));
        assert_eq!(number(&quick.next().await.unwrap()), n);
    }
    assert_eq!(number(&slow.next().await.unwrap()), 8);
    assert_eq!((slow.dropped(), quick.dropped()), (7, 0));
    drop(telemetry);
    assert_eq!(StreamExt::count(slow).await, KEPT - 1);
}

#[tokio::test]
async fn the_stream_ends_with_the_pool_and_remains_ended() {
    let telemetry = Telemetry::new("orders".into(), Observers::default());
    let mut events = telemetry.events();
    telemetry.emit(numbered(1));
    drop(telemetry);
    assert_eq!(number(&events.next().await.unwrap()), 1);
    assert!(events.next().await.is_none());
    assert!(StreamExt::next(&mut events).await.is_none());
}

#[tokio::test]
async fn a_dropped_wait_loses_no_event() {
    let telemetry = Telemetry::new("orders".into(), Observers::default());
    let mut events = telemetry.events();
    assert!(events.next().now_or_never().is_none());
    telemetry.emit(numbered(1));
    drop(events.next());
    assert_eq!(number(&events.next().await.unwrap()), 1);
}

#[tokio::test]
async fn a_reader_is_woken() {
    let telemetry = Arc::new(Telemetry::new("orders".into(), Observers::default()));
    let mut events = telemetry.events();
    let reader = tokio::spawn(async move { number(&events.next().await.unwrap()) });
    tokio::task::yield_now().await;
    telemetry.emit(numbered(3));
    assert_eq!(reader.await.unwrap(), 3);
}

use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use parking_lot::Mutex;
use tokio::time;

use super::*;
use crate::clock::now;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn of_lane(rate: Rate) -> Rates {
    Rates::new(now(), [None, Some(rate), None], BTreeMap::new()).unwrap()
}

fn of(lane: Rate, operation: Rate) -> Rates {
    Rates::new(now(), [None, Some(lane), None], BTreeMap::from([("report".to_owned(), operation)])).unwrap()
}

fn at_a_place() -> Operation {
    Operation::At(Location::caller())
}

/// Charges a call of the lane without a name.
fn charge(rates: &Rates) -> Result<Box<Charge>, Duration> {
    rates.charge(Lane::Normal, at_a_place()).map(|charge| charge.expect("the lane has a rate"))
}

/// A lease that has begun.
fn lease(rates: &Rates) -> Result<Box<Charge>, Duration> {
    charge(rates).map(|mut charge| {
        charge.begin();
        charge
    })
}

/// How many calls without a lease are admitted in this instant, if all of them stay.
fn room(rates: &Rates) -> usize {
    let mut all = Vec::new();
    while let Ok(charge) = charge(rates) {
        all.push(charge);
    }
    all.len()
}

#[tokio::test(start_paused = true)]
async fn only_calls_with_a_rate_are_charged() {
    assert!(Rates::new(now(), PerLane::default(), BTreeMap::new()).is_none());
    let rates = of(Rate::new().concurrency(1), Rate::new().concurrency(1));
    let operation = |name: Option<&'static str>| name.map_or_else(at_a_place, Operation::Named);
    let is_charged = |lane, name| rates.charge(lane, operation(name)).unwrap().is_some();
    assert!(is_charged(Lane::Normal, None) && is_charged(Lane::Normal, Some("other")));
    assert!(is_charged(Lane::Normal, Some("report")) && is_charged(Lane::Critical, Some("report")));
    assert!(!is_charged(Lane::Critical, None) && !is_charged(Lane::Background, Some("other")));
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_lease_gets_all_of_it_back() {
    let rates = of_lane(Rate::new().calls(10.0).connection_seconds(0.1).concurrency(8));
    assert_eq!(room(&rates), 8);
    time::advance(300 * MILLISECOND).await;
    assert_eq!(room(&rates), 8, "refused, or cancelled while they waited");
    // A lease has used its call.
    for _ in 0..10 {
        drop(lease(&rates).unwrap());
    }
    assert_eq!(charge(&rates).unwrap_err(), 100 * MILLISECOND);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_charged_with_what_it_took() {
    let rates = of_lane(Rate::new().connection_seconds(2.0));
    // Two seconds of connections may be used at once, and the first leases are expected to take 10 ms.
    assert_eq!(room(&rates), 200);
    let long = lease(&rates).unwrap();
    time::advance(3 * SECOND).await;
    drop(long);
    // They used 3 s; the schedule had 6 s, and 2 s at first. A lease is expected to take 3 s from now on.
    assert_eq!(room(&rates), 1);
    let next = lease(&rates).unwrap();
    assert_eq!(charge(&rates).unwrap_err(), 1_500 * MILLISECOND);
    drop(next);
    assert!(charge(&rates).is_ok(), "a lease of no time");
}

/// Otherwise an operation that becomes slow has all connections before the first of its leases ends.
#[tokio::test(start_paused = true)]
async fn leases_that_take_longer_than_usual_count_before_they_end() {
    let rates = of_lane(Rate::new().connection_seconds(2.0));
    for _ in 0..50 {
        let usual = lease(&rates).unwrap();
        time::advance(10 * MILLISECOND).await;
        drop(usual);
    }
    // Twenty calls a second, and none of them ends.
    let mut leases = Vec::new();
    for _ in 0..200 {
        leases.extend(lease(&rates));
        time::advance(50 * MILLISECOND).await;
    }
    assert!((8..=20).contains(&leases.len()), "{} of 200 were admitted", leases.len());
    let held = leases.len();
    drop(leases);
    let wait = charge(&rates).unwrap_err();
    assert!(wait > SECOND * (held as u32 * 3), "{held} leases of about 9 s: {wait:?}");
    time::advance(wait).await;
    assert!(charge(&rates).is_ok());
}

#[tokio::test(start_paused = true)]
async fn both_rates_hold_and_the_longer_wait_is_told() {
    let rates = of(Rate::new().calls(10.0), Rate::new().calls(1.0));
    let report = || rates.charge(Lane::Normal, Operation::Named("report"));
    let first = report().unwrap();
    assert_eq!(report().unwrap_err(), SECOND);
    // The refused calls have taken nothing from the lane.
    let mut others: Vec<_> = (0..9).map(|_| charge(&rates).unwrap()).collect();
    assert_eq!(charge(&rates).unwrap_err(), 100 * MILLISECOND);
    assert_eq!(report().unwrap_err(), SECOND);
    drop(first);
    others.push(charge(&rates).unwrap());
    assert_eq!(report().unwrap_err(), 100 * MILLISECOND);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_one_too_many_hears_when_one_is_likely_to_end() {
    let rates = of_lane(Rate::new().concurrency(4));
    let mut leases: Vec<_> = (0..4).map(|_| lease(&rates).unwrap()).collect();
    assert_eq!(charge(&rates).unwrap_err(), Duration::from_micros(2_500));
    time::advance(SECOND).await;
    leases.clear();
    assert_eq!(room(&rates), 4);
    leases.extend((0..4).map(|_| lease(&rates).unwrap()));
    assert_eq!(charge(&rates).unwrap_err(), 250 * MILLISECOND);
    drop(leases.pop());
    assert!(charge(&rates).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_charge_that_is_dropped_by_a_panic_is_settled() {
    let rates = of_lane(Rate::new().concurrency(1).connection_seconds(1.0));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _lease = lease(&rates).unwrap();
        std::panic::resume_unwind(Box::new("out"));
    }));
    assert!(panicked.is_err());
    assert_eq!(room(&rates), 1);
}

/// The bucket admits all that the rate allows, and no more, whoever asks.
#[test]
fn threads_never_get_more_than_the_rate_and_the_burst_and_lose_nothing() {
    // A large burst and a small rate: threads meet often, and what they lose or win is not lost in what the rate adds.
    const PER_SECOND: f64 = 1_000.0;
    const BURST: Duration = Duration::from_secs(300);
    let begun = now();
    let rates = of_lane(Rate::new().calls(PER_SECOND).burst(BURST));
    let seconds = || now().duration_since(begun).as_secs_f64();
    let (admitted, refused_at, is_over) = (AtomicUsize::new(0), Mutex::new(0.0_f64), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while !is_over.load(SeqCst) {
                    let asked = seconds();
                    if lease(&rates).is_ok() {
                        admitted.fetch_add(1, SeqCst);
                    } else {
                        let mut refused_at = refused_at.lock();
                        *refused_at = refused_at.max(asked);
                    }
                }
            });
        }
        while *refused_at.lock() == 0.0 {
            thread::sleep(MILLISECOND);
        }
        thread::sleep(SECOND / 2);
        is_over.store(true, SeqCst);
    });
    let allowed = |seconds: f64| PER_SECOND * (seconds + BURST.as_secs_f64());
    let (admitted, most) = (admitted.into_inner() as f64, allowed(seconds()));
    assert!(admitted <= most, "{admitted} of {most}");
    // When a call was refused, all had been taken.
    let refused_at = refused_at.into_inner();
    assert!(admitted >= 0.99 * allowed(refused_at), "{admitted} of {}", allowed(refused_at));
}

#[test]
fn threads_are_never_more_than_the_concurrency() {
    let rates = of_lane(Rate::new().concurrency(1));
    let (now_in, most, entered) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let Ok(lease) = lease(&rates) else { continue };
                    most.fetch_max(now_in.fetch_add(1, SeqCst) + 1, SeqCst);
                    entered.fetch_add(1, SeqCst);
                    now_in.fetch_sub(1, SeqCst);
                    drop(lease);
                }
            });
        }
    });
    assert_eq!(most.into_inner(), 1);
    assert!(entered.into_inner() > 1_000);
    assert_eq!(room(&rates), 1, "each place was given back");
}

/// Both threads ask for the only place in the same instant, again and again.
#[test]
fn two_threads_that_ask_at_once_never_both_enter() {
    let limiter = Limiter::new(now(), Rate::new().concurrency(1));
    let (arrived, entered, most) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    // Each thread spins until both are here.
    let meet = |turn: usize| {
        arrived.fetch_add(1, SeqCst);
        while arrived.load(SeqCst) < 2 * turn {
            std::hint::spin_loop();
        }
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for round in 0..20_000 {
                    meet(3 * round + 1);
                    let enters = limiter.enter().is_ok();
                    entered.fetch_add(usize::from(enters), SeqCst);
                    meet(3 * round + 2);
                    most.fetch_max(entered.load(SeqCst), SeqCst);
                    meet(3 * round + 3);
                    if enters {
                        entered.fetch_sub(1, SeqCst);
                        limiter.leave(&Default::default());
                    }
                }
            });
        }
    });
    assert_eq!(most.into_inner(), 1);
}

#[cfg(feature = "fleet")]
#[tokio::test(start_paused = true)]
async fn a_cap_binds_newcomers_of_its_operation_only_and_ends_at_once() {
    let caps = Arc::<OperationCaps>::default();
    let rates = Rates::with_caps(None, Some(Arc::clone(&caps))).unwrap();
    let charge = |name| rates.charge(Lane::Normal, Operation::Named(name));
    assert!(!rates.has_any() && charge("report").unwrap().is_none(), "without a cap, nobody is charged");
    caps.set(vec![(Operation::Named("report"), 2)]);
    assert!(rates.has_any() && charge("read").unwrap().is_none());
    let first = charge("report").unwrap().unwrap();
    let second = charge("report").unwrap().unwrap();
    assert!(charge("report").is_err());
    // The same cap goes on counting.
    caps.set(vec![(Operation::Named("report"), 2), (Operation::Named("export"), 1)]);
    assert!(charge("report").is_err() && charge("export").unwrap().is_some());
    drop(first);
    assert!(charge("report").unwrap().is_some(), "what was cancelled or has ended is free");
    caps.set(Vec::new());
    assert!(!rates.has_any() && charge("report").unwrap().is_none());
    drop(second);
    assert!(Rates::with_caps(None, None).is_none());
}

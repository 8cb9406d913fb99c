//! Everything at once, on several threads and runtimes: callers that leave at any moment, changes to the whole pool,
//! looks at the server, runtimes that end. Afterwards the slots add up, and every caller is served.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::runtime::{Builder, Runtime};

use super::*;

const SIZE: usize = 3;

async fn calls(slots: TestSlots, count: usize) {
    for _ in 0..count {
        let (budget, asked) = (fastrand::u64(0..4), Instant::now());
        let mut waiting = pin!(slots.acquire(now(), within(budget)));
        let got = match fastrand::u8(0..4) {
            0 => poll_fn(|cx| Poll::Ready(Some(waiting.as_mut().poll(cx)))).await.and_then(|poll| match poll {
                Poll::Ready(got) => Some(got),
                Poll::Pending => None,
            }),
            1 => time::timeout(Duration::from_micros(fastrand::u64(0..2_000)), waiting).await.ok(),
            _ => Some(waiting.await),
        };
        assert!(asked.elapsed() < Duration::from_secs(5), "a caller waited past its deadline");
        if let Some(Ok(mut lease)) = got {
            if fastrand::bool() {
                yield_now().await;
            }
            lease.alive = fastrand::u8(0..20) > 0;
        } else {
            yield_now().await;
        }
    }
}

/// What maintenance and the owner do to a pool.
async fn disturb(slots: TestSlots, changes: Arc<AtomicUsize>, is_over: Arc<AtomicBool>) {
    while !is_over.load(SeqCst) {
        let change = changes.fetch_add(1, SeqCst) as u64;
        match fastrand::u8(0..9) {
            0 => slots.flush(),
            1 => slots.limit_dials(change, Some(0)),
            2 => slots.limit_dials(change, Some(1)),
            3 => {
                slots.resize(fastrand::usize(1..=SIZE));
            }
            4 => slots.reap(),
            5 => slots.sweep(),
            6 => drop(slots.begin_checks()),
            7 => _ = slots.check_server().await,
            _ => slots.limit_dials(change, None),
        }
        time::sleep(Duration::from_micros(fastrand::u64(0..1_500))).await;
    }
}

/// Runtimes that end while callers wait and dials are under way on them.
fn short_lives(slots: &TestSlots, is_over: &AtomicBool) {
    while !is_over.load(SeqCst) {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for _ in 0..4 {
                tokio::spawn(calls(Arc::clone(slots), 1_000));
            }
            time::sleep(Duration::from_millis(fastrand::u64(0..5))).await;
        });
    }
}

#[test]
fn on_several_threads_and_runtimes_the_slots_add_up_and_callers_are_served() {
    let script: Vec<_> = (0..3_000)
        .map(|n| match n % 9 {
            0 => Outcome::FailsAfter(Duration::ZERO),
            1 => Outcome::DiesAfter(Duration::ZERO),
            2 => Outcome::After(Duration::from_millis(1)),
            _ => Outcome::After(Duration::ZERO),
        })
        .collect();
    let (slots, world) = slots(Limits { max_size: SIZE, max_waiting: 20, max_connecting: 2, ..limits() }, &script);
    let (changes, is_over) = (Arc::new(AtomicUsize::new(1)), Arc::new(AtomicBool::new(false)));
    let runtime = Runtime::new().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| short_lives(&slots, &is_over));
        let disturber = runtime.spawn(disturb(Arc::clone(&slots), Arc::clone(&changes), Arc::clone(&is_over)));
        let callers: Vec<_> = (0..12).map(|_| runtime.spawn(calls(Arc::clone(&slots), 1_000))).collect();
        runtime.block_on(async {
            for caller in callers {
                caller.await.unwrap();
            }
            is_over.store(true, SeqCst);
            disturber.await.unwrap();
        });
    });
    world.script.lock().unwrap().clear();
    slots.limit_dials(changes.load(SeqCst) as u64, None);
    slots.resize(SIZE);
    runtime.block_on(async {
        until_nothing_is_left(&slots).await;
        assert_eq!(slots.counts().idle, world.open.load(SeqCst));
        time::sleep(Duration::from_secs(1)).await; // the longest pause between dials
        let served: Vec<_> = (0..20)
            .map(|_| {
                let slots = Arc::clone(&slots);
                tokio::spawn(async move { slots.acquire(now(), within(10_000)).await.map(drop) })
            })
            .collect();
        for caller in served {
            caller.await.unwrap().unwrap();
        }
        until_nothing_is_left(&slots).await;
    });
}

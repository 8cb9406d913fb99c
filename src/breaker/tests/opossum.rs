//! Comparison with opossum itself: 100 random schedules, and what opossum 10.0.0 did on a simulated clock.
//!
//! `opossum/schedules.txt` has the schedules. Each begins with a line `S id errorThresholdPercentage volumeThreshold
//! rollingCountTimeout rollingCountBuckets resetTimeout timeout capacity allowWarmUp errorFilter filterAlsoSeesTimeouts
//! - observed`, in milliseconds, where -1 means "not set", and ends with `.`. Between them are the steps:
//!
//! - `P ms`: time passes.
//! - `C number kind ms`: a call begins and ends after `ms`. Of the kinds, `o` succeeds, `f` fails, `x` fails with an
//!   error that the filter, if there is one (`errorFilter` 1), counts as a success, and `h` never ends.
//! - `c ...`: as `C`, but the next step follows before anything else happens.
//!
//! `opossum/observed.txt` has a line for each observed step: the state, the counts of the window, the changes of state
//! since the last line, and the events of calls. A call began (`s`), returned (`ok`, `err`, `timeout`) or was refused
//! (`open`, `busy`). If `observed` is 0, the line has state and counts after the last step only, and `-` before.

use std::collections::BTreeSet;
use std::future::pending;
use std::rc::Rc;

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};

use super::*;

const SCHEDULES: &str = include_str!("opossum/schedules.txt");
const OBSERVED: &str = include_str!("opossum/observed.txt");
/// opossum leaves a circuit half-open while a probe hangs; see [`BreakerConfig::opossum`].
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

#[tokio::test(start_paused = true)]
async fn every_schedule_ends_as_in_opossum() {
    let mut seen = 0;
    for schedule in SCHEDULES.split_terminator("\n.\n") {
        let mut lines = schedule.lines();
        let head: Vec<_> = lines.next().unwrap().split(' ').collect();
        let [_, id, settings @ .., "-1", observed] = &head[..] else { panic!("no schedule: {head:?}") };
        let steps: Vec<_> = lines.collect();
        let mut replay = Replay::new(settings);
        let mut expected = OBSERVED.lines().filter(|line| line.split(' ').next() == Some(id));
        for (number, step) in steps.iter().enumerate() {
            if replay.take(step).await {
                let looks = *observed == "1" || number + 1 == steps.len();
                assert_eq!(Some(&*format!("{id} {number} [{step}] {}", replay.look(looks))), expected.next());
            }
        }
        assert_eq!(expected.next(), None);
        seen += 1;
    }
    assert_eq!(seen, 100);
}

struct Replay {
    breaker: CircuitBreaker,
    filters: bool,
    transitions: Arc<Mutex<Vec<&'static str>>>,
    calls: FuturesUnordered<LocalBoxFuture<'static, String>>,
    /// The results of calls since the last look.
    results: BTreeSet<String>,
    /// The calls that have begun since the last look.
    begun: Rc<Cell<Vec<String>>>,
}

impl Replay {
    fn new(settings: &[&str]) -> Self {
        let settings: Vec<i64> = settings.iter().map(|setting| setting.parse().unwrap()).collect();
        let [threshold, volume, window, buckets, reset_timeout, timeout, capacity, warm_up, filters, 0] = settings[..]
        else {
            panic!("unknown settings: {settings:?}")
        };
        let transitions: Arc<Mutex<Vec<_>>> = Arc::default();
        let states = Arc::clone(&transitions);
        let config = BreakerConfig::opossum()
            .error_threshold_percentage(threshold.try_into().unwrap())
            .volume_threshold(volume.try_into().unwrap())
            .rolling_window(ms(window))
            .rolling_buckets(buckets.try_into().unwrap())
            .reset_timeout(ms(reset_timeout))
            .probe_timeout(FOR_EVER)
            .warm_up(warm_up == 1)
            .on_transition(move |transition| states.lock().push(transition.to.as_str()));
        let mut breaker = CircuitBreaker::new(config).unwrap();
        if timeout >= 0 {
            breaker = breaker.with_timeout(ms(timeout));
        }
        if let Ok(capacity) = capacity.try_into() {
            breaker = breaker.with_capacity(capacity);
        }
        let (calls, results, begun) = Default::default();
        Self { breaker, filters: filters == 1, transitions, calls, results, begun }
    }

    /// Takes one step. Returns whether the breaker may be observed after it.
    async fn take(&mut self, step: &str) -> bool {
        match step.split(' ').collect::<Vec<_>>()[..] {
            ["P", time] => {
                let calls = async {
                    while let Some(what) = self.calls.next().await {
                        self.results.insert(what);
                    }
                    pending().await
                };
                let _: Result<(), _> = timeout(ms(time.parse().unwrap()), calls).await;
                true
            }
            [letter @ ("C" | "c"), number, kind, time] => {
                let mut call = self.call(number.to_owned(), kind.to_owned(), ms(time.parse().unwrap()));
                match (&mut call).now_or_never() {
                    Some(what) => drop(self.results.insert(what)),
                    None => self.calls.push(call),
                }
                letter == "C"
            }
            _ => panic!("unknown step: {step}"),
        }
    }

    fn call(&self, number: String, kind: String, time: Duration) -> LocalBoxFuture<'static, String> {
        let (breaker, begun, filters) = (self.breaker.clone(), Rc::clone(&self.begun), self.filters);
        Box::pin(async move {
            let call = async {
                begun.set([begun.take(), vec![format!("{number}s")]].concat());
                match &*kind {
                    "h" => pending().await,
                    _ if time.is_zero() => {}
                    _ => sleep(time).await,
                }
                if kind == "o" { Ok(()) } else { Err(kind) }
            };
            let what = match breaker.call_with(|kind| !filters || kind != "x", call).await {
                Ok(()) => "ok",
                Err(CallError::Failed(_)) => "err",
                Err(CallError::Open { .. }) => "open",
                Err(CallError::Busy { .. }) => "busy",
                Err(CallError::Timeout { .. }) => "timeout",
                Err(CallError::ShutDown { .. }) => panic!("no step shuts the breaker down"),
            };
            format!("{number}{what}")
        })
    }

    fn look(&mut self, looks: bool) -> String {
        self.results.extend(self.begun.take());
        let results: Vec<_> = mem::take(&mut self.results).into_iter().collect();
        let seen = if looks { self.seen() } else { "-".to_owned() };
        format!("{seen} ev={}", results.join(","))
    }

    fn seen(&self) -> String {
        let snapshot = self.breaker.snapshot();
        let counts = snapshot.counts;
        let (state, fires, ok) = (snapshot.state.as_str(), counts.fires, counts.successes());
        let (fail, rejected, busy) = (counts.failures, counts.rejected, counts.busy);
        let transitions = mem::take(&mut *self.transitions.lock()).join(",");
        format!("{state} fires={fires} ok={ok} fail={fail} rej={rejected} busy={busy} tr={transitions}")
    }
}

fn ms(ms: i64) -> Duration {
    Duration::from_millis(ms.try_into().unwrap())
}

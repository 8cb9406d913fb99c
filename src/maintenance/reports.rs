//! What the pool tells of itself: looks at everything once a round, and says what somebody should know.
//!
//! What is worth telling, and when again, is decided in `policy::watch`. Nothing is told under a lock.

use std::collections::HashMap;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_postgres::error::SqlState;

use super::refusals::RefusalCounters;
use super::unreported::Unreported;
use super::waits::Waits;
use crate::conn::{ConnectionEvent, Dialer, Holder, LeaseRegistry, OutcomeRecorder};
use crate::error::{ConnectError, Lost};
use crate::event::EventKind;
use crate::operation::Operation;
use crate::policy::{Cause, Finding, Lasting, REPEAT, Reading, Sign, State, Told, Transition, Watch};
use crate::slots::{Counts, Slots};
use crate::status::Status;
use crate::telemetry::{Meter, Telemetry};

/// The pause between two rounds of the maintenance.
pub(super) const ROUND: Duration = Duration::from_millis(250);

/// A connection has been lost for good when none was made for so long.
const CALM: Duration = Duration::from_secs(1);
/// So many places in the code are remembered to have been told as leaks.
const MOST_LEAKS: usize = 256;

/// From when on something takes too long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Thresholds {
    /// A lease, if it matters.
    pub(crate) leak: Option<Duration>,
    /// More statements than this,
    pub(crate) long_running: usize,
    /// that take longer than this.
    pub(crate) long: Duration,
    /// A wait.
    pub(crate) slow_acquire: Duration,
}

#[derive(Debug)]
pub(crate) struct Reports {
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) meter: Meter,
    pub(crate) registry: Arc<LeaseRegistry>,
    pub(crate) refusals: RefusalCounters,
    thresholds: Thresholds,
    heard: Mutex<Pending>,
    seen: Mutex<Reported>,
    begun: Instant,
    /// When the database last answered, in milliseconds after that, and one more; 0 for never.
    last_success: AtomicU64,
}

/// What connections have told since the last round.
#[derive(Debug, Default)]
struct Pending {
    lost: Option<Unreported<Arc<Lost>>>,
    unsettled: Option<Unreported<()>>,
    failed_dials: u64,
    warned: Option<Unreported<(String, SqlState)>>,
}

#[derive(Debug)]
struct Reported {
    watch: Watch,
    waits: Waits,
    slow_acquire: Lasting,
    long_running: Lasting,
    connecting: Lasting,
    /// While the circuit is open: how that came about.
    opened: Option<Transition>,
    open: Lasting,
    /// When each place was told last.
    leaks: HashMap<&'static Location<'static>, Instant>,
    lost: Option<Instant>,
    unsettled: Option<Instant>,
    warned: Option<Instant>,
}

impl Reports {
    pub(crate) fn new(
        telemetry: Arc<Telemetry>,
        meter: Meter,
        registry: Arc<LeaseRegistry>,
        thresholds: Thresholds,
        now: Instant,
    ) -> Self {
        let seen = Reported {
            watch: Watch::new(),
            waits: Waits::default(),
            slow_acquire: Lasting::new(Duration::ZERO, CALM),
            long_running: Lasting::new(Duration::ZERO, CALM),
            connecting: Lasting::new(Duration::ZERO, Duration::ZERO),
            opened: None,
            open: Lasting::new(REPEAT, Duration::ZERO),
            leaks: HashMap::new(),
            lost: None,
            unsettled: None,
            warned: None,
        };
        Self {
            telemetry,
            meter,
            registry,
            refusals: RefusalCounters::default(),
            thresholds,
            heard: Mutex::default(),
            seen: Mutex::new(seen),
            begun: now,
            last_success: AtomicU64::new(0),
        }
    }

    /// One round.
    pub(super) fn look(&self, now: Instant, slots: &Slots<Dialer>, recorder: &OutcomeRecorder) {
        if recorder.take_answered() {
            let after = now.saturating_duration_since(self.begun).as_millis();
            self.last_success.store(u64::try_from(after).unwrap_or(u64::MAX - 1) + 1, Relaxed);
        }
        self.registry.begin_round();
        slots.look_at_idle();
        let holders = self.registry.holders(now);
        let counts = slots.counts();
        let found = self.find(now, slots, counts, &holders);
        let status = self.status(now, slots, recorder);
        self.meter.look(&status, || (self.refusals.snapshot(), slots.counts().at_once));
        for make in found {
            self.telemetry.emit(make(&status));
        }
    }

    /// The pool has ended.
    pub(super) fn end(&self, slots: Option<&Slots<Dialer>>) {
        self.meter.end(slots.map(|slots| || (self.refusals.snapshot(), slots.counts().at_once)));
    }

    fn find(&self, now: Instant, slots: &Slots<Dialer>, counts: Counts, holders: &[Holder]) -> Vec<MakeEvent> {
        let mut seen = self.seen.lock();
        for (operation, hold) in self.registry.take_holds() {
            seen.watch.record(now, operation, hold);
        }
        let reading = Reading {
            in_use: counts.in_use,
            limit: counts.limit,
            waiting: counts.waiting,
            arrivals: counts.arrivals,
            refused: self.refusals.snapshot(),
        };
        let running = holders.iter().map(|holder| (holder.purpose.operation, ROUND * holder.rounds));
        let findings = seen.watch.tick(now, &reading, running);
        let mut made: Vec<MakeEvent> = findings.into_iter().map(of_finding).collect();
        made.extend(self.slow_acquire(&mut seen, now, slots));
        made.extend(self.long_running(&mut seen, now, holders));
        self.leaks(&mut seen, now, holders, &mut made);
        self.heard(&mut seen, now, slots.last_error(), &mut made);
        made
    }

    fn slow_acquire(&self, seen: &mut Reported, now: Instant, slots: &Slots<Dialer>) -> Option<MakeEvent> {
        let than = self.thresholds.slow_acquire;
        let (count, longest) = seen.waits.look(now, slots.waiters(), than);
        let sign = if count > 0 { Sign::Yes } else { Sign::No };
        seen.slow_acquire.look(now, sign).map(|told| -> MakeEvent {
            Box::new(move |status| match told {
                Told::Lasts(lasting) => {
                    EventKind::SlowAcquire { status: status.clone(), count, than, longest, lasting }
                }
                Told::Ended(lasted) => EventKind::SlowAcquireEnded { lasted },
            })
        })
    }

    fn long_running(&self, seen: &mut Reported, now: Instant, holders: &[Holder]) -> Option<MakeEvent> {
        let than = self.thresholds.long;
        let long = holders.iter().filter_map(|holder| Some((holder.purpose.operation, holder.running?)));
        let long: Vec<(Operation, Duration)> = long.filter(|(_, running)| *running > than).collect();
        let longest = long.iter().copied().max_by_key(|(_, running)| *running);
        let (count, longest) = (long.len(), longest.filter(|_| long.len() > self.thresholds.long_running));
        let sign = if longest.is_some() { Sign::Yes } else { Sign::No };
        let told = seen.long_running.look(now, sign)?;
        Some(match (told, longest) {
            (Told::Lasts(lasting), Some(longest)) => {
                Box::new(move |_| EventKind::LongRunning { count, than, longest, lasting })
            }
            (Told::Lasts(lasted) | Told::Ended(lasted), _) => Box::new(move |_| EventKind::LongRunningEnded { lasted }),
        })
    }

    /// Each place in the code is told of once in a while, however many connections it holds.
    fn leaks(&self, seen: &mut Reported, now: Instant, holders: &[Holder], made: &mut Vec<MakeEvent>) {
        let Some(threshold) = self.thresholds.leak else { return };
        seen.leaks.retain(|_, told| now.saturating_duration_since(*told) < REPEAT);
        for holder in holders {
            let (held, purpose) = (ROUND * holder.rounds, holder.purpose);
            let is_known = seen.leaks.contains_key(purpose.taken) || seen.leaks.len() >= MOST_LEAKS;
            if held < threshold || is_known {
                continue;
            }
            seen.leaks.insert(purpose.taken, now);
            let backtrace = holder.backtrace.clone();
            made.push(Box::new(move |_| EventKind::LeakSuspected {
                operation: purpose.operation,
                held,
                taken: purpose.taken,
                backtrace,
            }));
        }
    }

    fn heard(&self, seen: &mut Reported, now: Instant, error: Option<ConnectError>, made: &mut Vec<MakeEvent>) {
        let is_due = |last: Option<Instant>| last.is_none_or(|last| now.saturating_duration_since(last) >= REPEAT);
        let mut heard = self.heard.lock();
        if is_due(seen.lost) {
            if let Some(unreported) = heard.lost.take() {
                seen.lost = Some(now);
                let (ago, count, lost) = (unreported.ago(now), unreported.count, unreported.latest);
                made.push(Box::new(move |_| EventKind::ConnectionLost { lost, count, ago }));
            }
        }
        if is_due(seen.unsettled) {
            if let Some(unreported) = heard.unsettled.take() {
                seen.unsettled = Some(now);
                let (ago, count) = (unreported.ago(now), unreported.count);
                made.push(Box::new(move |_| EventKind::SettleFailed { count, ago }));
            }
        }
        if is_due(seen.warned) {
            if let Some(unreported) = heard.warned.take() {
                seen.warned = Some(now);
                let (ago, count, (message, sqlstate)) = (unreported.ago(now), unreported.count, unreported.latest);
                made.push(Box::new(move |_| EventKind::ServerWarning { message, sqlstate, count, ago }));
            }
        }
        // If nobody has dialed since, nobody knows whether it is still so.
        let sign = match &error {
            None => Sign::No,
            Some(_) if seen.connecting.is_told() && heard.failed_dials == 0 => Sign::Near,
            Some(_) => Sign::Yes,
        };
        match (seen.connecting.look(now, sign), error) {
            (Some(Told::Lasts(lasting)), Some(error)) => {
                let count = std::mem::take(&mut heard.failed_dials);
                made.push(Box::new(move |_| EventKind::ConnectFailed { error, count, lasting }));
            }
            (Some(Told::Ended(lasted)), _) => {
                heard.failed_dials = 0;
                made.push(Box::new(move |_| EventKind::ConnectRecovered { lasted }));
            }
            _ => {}
        }
        let sign = if seen.opened.is_some() { Sign::Yes } else { Sign::No };
        if let (Some(Told::Lasts(lasting)), Some(transition)) = (seen.open.look(now, sign), seen.opened.clone()) {
            made.push(Box::new(move |_| EventKind::BreakerChanged { transition, lasting }));
        }
    }

    /// What connections tell, for the next round.
    pub(super) fn hear(&self, news: &ConnectionEvent) {
        match news {
            ConnectionEvent::Lost { cause, .. } => {
                self.meter.lost();
                Unreported::add(&mut self.heard.lock().lost, Arc::clone(cause));
            }
            ConnectionEvent::SettleFailed => {
                self.meter.settle_failed();
                Unreported::add(&mut self.heard.lock().unsettled, ());
            }
            ConnectionEvent::Warned { message, sqlstate } => {
                Unreported::add(&mut self.heard.lock().warned, (message.clone(), sqlstate.clone()));
            }
            ConnectionEvent::DialFailed => {
                self.meter.connect_failed();
                self.heard.lock().failed_dials += 1;
            }
            ConnectionEvent::Dialed { took, .. } => self.meter.connected(*took),
            ConnectionEvent::Dials
            | ConnectionEvent::AddressAvoided { .. }
            | ConnectionEvent::AddressRestored { .. }
            | ConnectionEvent::WrongHost { .. }
            | ConnectionEvent::HeldUp { .. } => {}
        }
    }

    /// The circuit has changed its state: told at once. `is_open`: the pool, which may have ended though a lease on it has not.
    pub(super) fn follow(&self, transition: &Transition, is_open: bool) {
        self.meter.follow(transition, is_open);
        let is_open = matches!(transition.to, State::Open | State::ForcedOpen);
        self.seen.lock().opened = is_open.then(|| transition.clone());
        let transition = transition.clone();
        self.telemetry.emit(match (&transition.cause, transition.by) {
            (Cause::Requested(reason), Some(by)) => {
                EventKind::Forced { to: transition.to, by, reason: Arc::clone(reason) }
            }
            _ => EventKind::BreakerChanged { transition, lasting: Duration::ZERO },
        });
    }

    /// How long ago the database last answered.
    pub(crate) fn last_success(&self, now: Instant) -> Option<Duration> {
        let after = self.last_success.load(Relaxed).checked_sub(1)?;
        Some(now.saturating_duration_since(self.begun).saturating_sub(Duration::from_millis(after)))
    }

    pub(crate) fn status(&self, now: Instant, slots: &Slots<Dialer>, recorder: &OutcomeRecorder) -> Status {
        let counts = slots.counts();
        let (demand, time_to_exhaustion) = {
            let seen = self.seen.lock();
            (seen.watch.demand(), seen.watch.time_to_exhaustion())
        };
        Status {
            name: self.telemetry.pool(),
            max_size: counts.limit,
            in_use: counts.in_use,
            settling: counts.settling,
            idle: counts.idle,
            dialing: counts.dialing,
            closing: counts.closing,
            waiting: counts.waiting,
            max_waiting: counts.max_waiting,
            closed: !counts.is_open,
            breaker: recorder.breaker().last_state(),
            demand,
            predicted_wait: slots.predicted_wait(),
            time_to_exhaustion,
            last_connect_error: slots.last_error().map(|error| error.to_string()),
            last_success: self.last_success(now),
        }
    }
}

/// An event, once it is known how the pool is.
type MakeEvent = Box<dyn FnOnce(&Status) -> EventKind>;

fn of_finding(finding: Finding) -> MakeEvent {
    Box::new(move |status| {
        let status = status.clone();
        match finding {
            Finding::HoldsInflated { operation, from, to, lasting } => {
                EventKind::HoldsInflated { operation, from, to, lasting }
            }
            Finding::HoldsNormal { operation, hold, lasted } => EventKind::HoldsNormal { operation, hold, lasted },
            Finding::ExhaustionPredicted { within, over, lasting } => {
                EventKind::ExhaustionPredicted { status, within, over, lasting }
            }
            Finding::PredictionEnded { lasted } => EventKind::PredictionEnded { status, lasted },
            Finding::UtilizationHigh { lasting } => EventKind::UtilizationHigh { status, lasting },
            Finding::UtilizationCritical { lasting } => EventKind::UtilizationCritical { status, lasting },
            Finding::UtilizationNormal { lasted } => EventKind::UtilizationNormal { status, lasted },
            Finding::Exhausted { lasting } => EventKind::Exhausted { status, lasting },
            Finding::ExhaustionEnded { lasted } => EventKind::ExhaustionEnded { status, lasted },
            Finding::Shedding { refused, lasting } => EventKind::Shedding { status, refused, lasting },
            Finding::SheddingEnded { refused, lasted } => EventKind::SheddingEnded { status, refused, lasted },
        }
    })
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;
    use crate::slots::Dial as _;
    use crate::telemetry::{Given, Observers};

    /// What is told of dials, and how many had failed.
    fn told(made: Vec<MakeEvent>, status: &Status) -> Vec<Option<u64>> {
        let count = |kind| match kind {
            EventKind::ConnectFailed { count, .. } => Some(count),
            _ => None,
        };
        made.into_iter().map(|make| count(make(status))).collect()
    }

    fn reports(begun: Instant) -> Reports {
        let thresholds = Thresholds { leak: None, long_running: 1, long: REPEAT, slow_acquire: REPEAT };
        let telemetry = Arc::new(Telemetry::new("orders".into(), Observers::default()));
        let meter = Meter::new("orders".into(), 0, Given::default());
        Reports::new(telemetry, meter, Arc::new(LeaseRegistry::new(false)), thresholds, begun)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_late_says_when_it_happened() {
        let now = || time::Instant::now().into_std();
        let (reports, status) = (reports(now()), Status::of_19_in_20());
        let look = || {
            let mut made = Vec::new();
            reports.heard(&mut reports.seen.lock(), now(), None, &mut made);
            made.into_iter().map(|make| make(&status).to_string()).collect::<Vec<_>>()
        };
        let cause = Arc::new(Lost::sealed());
        let hear = || {
            reports.hear(&ConnectionEvent::Lost { cause: Arc::clone(&cause) });
            reports.hear(&ConnectionEvent::SettleFailed);
        };
        hear();
        assert_eq!(look(), [format!("lost 1 connection: {cause}"), "closed 1 connection: the clean-up failed".into()]);
        time::advance(Duration::from_secs(8)).await;
        hear();
        hear();
        assert!(look().is_empty());
        time::advance(Duration::from_secs(22)).await;
        let late = ", the last 22 s ago: ";
        assert_eq!(
            look(),
            [format!("lost 2 connections{late}{cause}"), format!("closed 2 connections{late}the clean-up failed")]
        );
    }

    #[test]
    fn dials_that_fail_are_counted_in_one_outage_and_told_again_only_if_more_have() {
        let begun = Instant::now();
        let reports = reports(begun);
        let status = Status::of_19_in_20();
        let look = |seconds, failed: u64, is_failing: bool| {
            (0..failed).for_each(|_| reports.hear(&ConnectionEvent::DialFailed));
            let error = is_failing.then(Dialer::abandoned);
            let mut made = Vec::new();
            let now = begun + Duration::from_secs(seconds);
            reports.heard(&mut reports.seen.lock(), now, error, &mut made);
            told(made, &status)
        };
        assert_eq!(look(0, 1, true), [Some(1)]);
        assert_eq!(look(40, 0, true), [], "nobody has dialed since");
        assert_eq!(look(41, 3, true), [Some(3)]);
        assert_eq!(look(50, 20, true), []);
        assert_eq!(look(60, 0, false), [None], "it is over");
        assert_eq!(look(100, 1, true), [Some(1)], "of this outage");
    }
}

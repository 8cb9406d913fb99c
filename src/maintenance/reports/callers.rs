//! Events about what callers experience: refusals, long waits, long statements, suspected leaks, and the findings of
//! `policy::watch`.

use std::collections::HashMap;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::waits::Waits;
use crate::event::EventKind;
use crate::holder::Holder;
use crate::operation::Operation;
use crate::policy::{
    DueReport, EndedLease, Finding, Lane, Lasting, PerLane, PerReason, REPEAT, Reading, RefusalCounts, ShedReason,
    Sign, Watch,
};
use crate::status::Status;

/// The pause between two rounds of the maintenance.
pub(in crate::maintenance) const ROUND: Duration = Duration::from_millis(250);

/// Slow waits and long statements have ended when there was none for this long.
const CALM: Duration = Duration::from_secs(1);
/// The number of places in the code that are remembered as reported leaks.
const MOST_LEAKS: usize = 256;

/// The durations and numbers above which the pool reports an event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Thresholds {
    /// The lease duration from which on a leak is suspected. `None` reports no leaks.
    pub(crate) leak: Option<Duration>,
    /// The pool reports more statements than `long_running` that have been running for longer than `long`.
    pub(crate) long_running: usize,
    pub(crate) long: Duration,
    /// The wait for a connection from which on it is slow.
    pub(crate) slow_acquire: Duration,
}

/// An event that needs the status of the pool, which is read after the round.
pub(super) type MakeEvent = Box<dyn FnOnce(&Status) -> EventKind>;

#[derive(Debug)]
pub(super) struct CallerReports {
    thresholds: Thresholds,
    pub(super) watch: Watch,
    waits: Waits,
    slow_acquire: Lasting,
    long_running: Lasting,
    /// When each place in the code was last reported.
    leaks: HashMap<&'static Location<'static>, Instant>,
}

impl CallerReports {
    pub(super) fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            watch: Watch::new(),
            waits: Waits::default(),
            slow_acquire: Lasting::new(Duration::ZERO, CALM),
            long_running: Lasting::new(Duration::ZERO, CALM),
            leaks: HashMap::new(),
        }
    }

    /// The events that are due. `ended` are the leases that have ended since the last round, `waiters` the numbers of
    /// the first waiter and of the next caller, `holders` the leases that have not ended.
    pub(super) fn look(
        &mut self,
        now: Instant,
        reading: &Reading,
        ended: &[EndedLease],
        waiters: (u64, u64),
        holders: &[Holder],
    ) -> Vec<MakeEvent> {
        for lease in ended {
            self.watch.record(now, lease.operation, lease.lane, lease.lasted);
        }
        let running = holders.iter().map(|holder| (holder.operation, holder.lane, holder.age));
        let findings = self.watch.tick(now, reading, running);
        let mut made: Vec<MakeEvent> = findings.into_iter().map(of_finding).collect();
        made.extend(self.slow_acquire(now, waiters, reading.waiting));
        made.extend(self.long_running(now, holders));
        self.leaks(now, holders, &mut made);
        made
    }

    fn slow_acquire(&mut self, now: Instant, waiters: (u64, u64), waiting: usize) -> Option<MakeEvent> {
        let than = self.thresholds.slow_acquire;
        let (count, longest) = self.waits.look(now, waiters, than);
        // Callers of other lanes may have been served since the first waiter came.
        let count = count.min(waiting as u64);
        let sign = if count > 0 { Sign::Yes } else { Sign::No };
        self.slow_acquire.look(now, sign).map(|told| -> MakeEvent {
            Box::new(move |status| match told {
                DueReport::Lasts(lasting) => {
                    EventKind::SlowAcquire { status: status.clone(), count, than, longest, lasting }
                }
                DueReport::Ended(lasted) => EventKind::SlowAcquireEnded { lasted },
            })
        })
    }

    fn long_running(&mut self, now: Instant, holders: &[Holder]) -> Option<MakeEvent> {
        let than = self.thresholds.long;
        let long = holders.iter().filter_map(|holder| Some((holder.operation, holder.running?)));
        let long: Vec<(Operation, Duration)> = long.filter(|(_, running)| *running > than).collect();
        let longest = long.iter().copied().max_by_key(|(_, running)| *running);
        let (count, longest) = (long.len(), longest.filter(|_| long.len() > self.thresholds.long_running));
        let sign = if longest.is_some() { Sign::Yes } else { Sign::No };
        let told = self.long_running.look(now, sign)?;
        Some(match (told, longest) {
            (DueReport::Lasts(lasting), Some(longest)) => {
                Box::new(move |_| EventKind::LongRunning { count, than, longest, lasting })
            }
            (DueReport::Lasts(lasted) | DueReport::Ended(lasted), _) => {
                Box::new(move |_| EventKind::LongRunningEnded { lasted })
            }
        })
    }

    /// Reports each place in the code at most every [`REPEAT`], however many connections it holds.
    fn leaks(&mut self, now: Instant, holders: &[Holder], made: &mut Vec<MakeEvent>) {
        let Some(threshold) = self.thresholds.leak else { return };
        self.leaks.retain(|_, reported| now.saturating_duration_since(*reported) < REPEAT);
        for holder in holders {
            let Holder { operation, taken, age: held, .. } = *holder;
            let is_known = self.leaks.contains_key(taken) || self.leaks.len() >= MOST_LEAKS;
            if held < threshold || is_known {
                continue;
            }
            self.leaks.insert(taken, now);
            let backtrace = holder.backtrace.clone();
            made.push(Box::new(move |_| EventKind::LeakSuspected { operation, held, taken, backtrace }));
        }
    }
}

fn of_finding(finding: Finding) -> MakeEvent {
    Box::new(move |status| {
        let status = status.clone();
        match finding {
            Finding::LeasesInflated { operation, from, to, lasting } => {
                EventKind::LeasesInflated { operation, from, to, lasting }
            }
            Finding::LeasesNormal { operation, to, lasted } => EventKind::LeasesNormal { operation, to, lasted },
            Finding::TrafficAnomaly { calls, usual, lasting } => {
                EventKind::TrafficAnomaly { calls_per_minute: calls, usual, lasting }
            }
            Finding::TrafficNormal { calls, lasted } => EventKind::TrafficNormal { calls_per_minute: calls, lasted },
            Finding::BackgroundThrottled { percent, operation, lasting } => {
                EventKind::BackgroundThrottled { share: f64::from(percent) / 100.0, operation, lasting }
            }
            Finding::BackgroundRestored { lasted } => EventKind::BackgroundRestored { lasted },
            Finding::ExhaustionPredicted { within, over, lasting } => {
                EventKind::ExhaustionPredicted { status, within, over, lasting }
            }
            Finding::ExhaustionPredictionEnded { lasted } => EventKind::ExhaustionPredictionEnded { status, lasted },
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

/// The callers that were refused since the pool began. [`RefusalCounts`] is a snapshot of these counters.
#[derive(Debug, Default)]
pub(crate) struct RefusalCounters {
    shed: PerReason<AtomicU64>,
    timed_out: AtomicU64,
    rejected: AtomicU64,
    /// Those that were shed or timed out in the lanes `Critical` and `Background`.
    critical: AtomicU64,
    background: AtomicU64,
}

impl RefusalCounters {
    pub(crate) fn on_shed(&self, reason: ShedReason, lane: Lane) {
        self.shed[reason as usize].fetch_add(1, Relaxed);
        self.count_lane(lane);
    }

    /// A caller waited until its time was up.
    pub(crate) fn on_timed_out(&self, lane: Lane) {
        self.timed_out.fetch_add(1, Relaxed);
        self.count_lane(lane);
    }

    fn count_lane(&self, lane: Lane) {
        match lane {
            Lane::Critical => _ = self.critical.fetch_add(1, Relaxed),
            Lane::Normal => {}
            Lane::Background => _ = self.background.fetch_add(1, Relaxed),
        }
    }

    /// The callers of each lane that were shed or timed out.
    pub(super) fn by_lane(&self) -> PerLane<u64> {
        let (critical, background) = (self.critical.load(Relaxed), self.background.load(Relaxed));
        let RefusalCounts { shed, timed_out, .. } = self.snapshot();
        let all = shed.iter().sum::<u64>() + timed_out;
        [critical, all.saturating_sub(critical + background), background]
    }

    /// The open circuit rejected a caller.
    pub(crate) fn on_rejected(&self) {
        self.rejected.fetch_add(1, Relaxed);
    }

    pub(super) fn snapshot(&self) -> RefusalCounts {
        RefusalCounts {
            shed: self.shed.each_ref().map(|count| count.load(Relaxed)),
            timed_out: self.timed_out.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::holder::HolderState;
    use crate::policy::Lane::{Background, Critical};

    const SECOND: Duration = Duration::from_secs(1);

    fn reports() -> CallerReports {
        CallerReports::new(Thresholds { leak: None, long_running: 10, long: 60 * SECOND, slow_acquire: SECOND })
    }

    fn lines(made: Vec<MakeEvent>) -> Vec<String> {
        made.into_iter().map(|make| make(&Status::of_19_in_20()).to_string()).collect()
    }

    #[test]
    fn a_jump_of_traffic_is_reported() {
        let (mut reports, begun, mut all) = (reports(), Instant::now(), Vec::new());
        let mut reading = Reading { limit: 20, ..Reading::default() };
        for second in 0..900 {
            reading.arrivals += if second < 780 { 10 } else { 50 };
            all.extend(lines(reports.look(begun + second * SECOND, &reading, &[], (0, 0), &[])));
        }
        assert_eq!(
            all,
            [
                "3000 calls in a minute, which used to be 600",
                "3000 calls in a minute, which used to be 600 (for 30 s so far)"
            ]
        );
    }

    #[test]
    fn background_gives_way_to_a_slow_operation_of_another_lane() {
        let (mut reports, begun, mut all) = (reports(), Instant::now(), Vec::new());
        let (load, reading) = (Operation::Named("load"), Reading { limit: 20, ..Reading::default() });
        let held = |lane, age| Holder { lane, ..Holder::of("load", age, HolderState::WaitingForServer) };
        for second in 0..30 {
            let ended = EndedLease { operation: load, lane: Critical, lasted: SECOND / 10, is_cut: false };
            all.extend(lines(reports.look(
                begun + second * SECOND,
                &reading,
                &[ended; 10],
                (0, 0),
                &[held(Background, SECOND / 20)],
            )));
        }
        assert!(all.is_empty() && reports.watch.background_share() == 1.0, "{all:?}");
        let holders: Vec<_> = (0..8).map(|_| held(Critical, 2 * SECOND)).collect();
        for second in 30..33 {
            all.extend(lines(reports.look(begun + second * SECOND, &reading, &[], (0, 0), &holders)));
        }
        let expected = "the lane background may use 50% of its limit, because load holds its connections too long";
        assert!(all.iter().any(|line| line == expected), "{all:?}");
        assert!(reports.watch.background_share() <= 0.5);
    }
}

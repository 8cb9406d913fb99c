//! What the pool reports about itself: events, metrics and its status.
//!
//! Four times a second the background task looks at the pool, and this module reports what an operator should know.
//! `policy::watch` decides what is worth an event, and when the event is repeated. No observer and no recorder is
//! called under a lock.

mod callers;
mod connections;
mod holders;
mod waits;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub(super) use self::callers::ROUND;
pub(crate) use self::callers::Thresholds;
use self::callers::{CallerReports, RefusalCounters};
use self::connections::ConnectionReports;
use self::holders::SharedList;
#[cfg(feature = "fleet")]
use crate::adaptive::AdaptiveLimit;
use crate::conn::{ConnectionEvent, Dialer, LeaseRegistry, OutcomeRecorder};
use crate::event::EventKind;
#[cfg(feature = "fleet")]
use crate::fleet::Fleet;
use crate::holder::{Holder, HolderState, LongestHeld};
#[cfg(feature = "admin")]
use crate::policy::{Baseline, RefusalCounts};
use crate::policy::{Cause, DueReport, Lane, Lasting, REPEAT, Reading, Sign, State, Transition};
use crate::slots::{LaneCounts, Slots};
use crate::status::{LaneStatus, Status};
use crate::telemetry::{Meter, Telemetry};

#[derive(Debug)]
pub(crate) struct Reports {
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) meter: Meter,
    pub(crate) registry: Arc<LeaseRegistry>,
    pub(crate) refusals: RefusalCounters,
    callers: Mutex<CallerReports>,
    connections: Mutex<ConnectionReports>,
    circuit: Mutex<Circuit>,
    longest_held: SharedList,
    /// The pool's budget, if it is a member of a fleet.
    #[cfg(feature = "fleet")]
    pub(crate) fleet: Option<Arc<Fleet>>,
    /// The limit that follows the database, if it does.
    #[cfg(feature = "fleet")]
    pub(crate) adaptive: Option<Arc<AdaptiveLimit>>,
    begun: Instant,
    /// When the database last answered, in milliseconds since `begun`, plus one; 0 for never.
    last_success: AtomicU64,
}

/// Whether the circuit is open, for the event that repeats this.
#[derive(Debug)]
struct Circuit {
    /// The change that opened it.
    opened: Option<Transition>,
    open: Lasting,
}

impl Circuit {
    fn look(&mut self, now: Instant) -> Option<EventKind> {
        let sign = if self.opened.is_some() { Sign::Yes } else { Sign::No };
        let Some(DueReport::Lasts(lasting)) = self.open.look(now, sign) else { return None };
        Some(EventKind::BreakerChanged { transition: self.opened.clone()?, lasting })
    }
}

impl Reports {
    pub(crate) fn new(
        telemetry: Arc<Telemetry>,
        meter: Meter,
        registry: Arc<LeaseRegistry>,
        thresholds: Thresholds,
        now: Instant,
    ) -> Self {
        Self {
            telemetry,
            meter,
            registry,
            refusals: RefusalCounters::default(),
            callers: Mutex::new(CallerReports::new(thresholds)),
            connections: Mutex::new(ConnectionReports::new()),
            circuit: Mutex::new(Circuit { opened: None, open: Lasting::new(REPEAT, Duration::ZERO) }),
            longest_held: SharedList::default(),
            #[cfg(feature = "fleet")]
            fleet: None,
            #[cfg(feature = "fleet")]
            adaptive: None,
            begun: now,
            last_success: AtomicU64::new(0),
        }
    }

    /// The pool is a member of a fleet, or its limit follows the database.
    #[cfg(feature = "fleet")]
    pub(crate) fn of_fleet(self, fleet: Option<Arc<Fleet>>, adaptive: Option<Arc<AdaptiveLimit>>) -> Self {
        Self { fleet, adaptive, ..self }
    }

    /// The owner has changed `max_size`. Returns the value before.
    #[cfg(feature = "fleet")]
    pub(crate) fn resize(&self, slots: &Arc<Slots<Dialer>>, max_size: usize) -> usize {
        if let Some(fleet) = &self.fleet {
            fleet.resize(slots, max_size);
        }
        match (&self.adaptive, &self.fleet) {
            (Some(adaptive), _) => adaptive.resize(slots, max_size),
            (None, Some(fleet)) => fleet.limit.resize(slots, max_size),
            (None, None) => slots.resize(max_size),
        }
    }

    /// Reports what one round has found: metrics first, then events.
    pub(super) fn look(&self, now: Instant, slots: &Arc<Slots<Dialer>>, recorder: &OutcomeRecorder) {
        if recorder.take_answered() {
            let after = now.saturating_duration_since(self.begun).as_millis();
            self.last_success.store(u64::try_from(after).unwrap_or(u64::MAX - 1) + 1, Relaxed);
        }
        let mut holders = self.holders(now, slots);
        // What the pool does itself is no caller's lease.
        holders.retain(|holder| holder.state != HolderState::Settling);
        let counts = slots.counts();
        let reading = Reading {
            in_use: counts.in_use,
            limit: counts.limit,
            waiting: counts.waiting,
            arrivals: counts.arrivals,
            refused: self.refusals.snapshot(),
        };
        let (ended, waiters) = (self.registry.take_lease_durations(), slots.waiters());
        let mut callers = self.callers.lock();
        let share_before = callers.watch.background_share();
        let of_callers = callers.look(now, &reading, &ended, waiters, &holders);
        let share = callers.watch.background_share();
        drop(callers);
        if share != share_before {
            slots.set_background_share(share);
        }
        #[cfg(feature = "fleet")]
        if let Some(adaptive) = &self.adaptive {
            adaptive.look(now, slots, &reading.refused, &ended, &holders);
            adaptive.ask_if_wanted(slots);
        }
        let error = slots.last_error();
        let of_connections = self.connections.lock().look(now, error);
        let of_circuit = self.circuit.lock().look(now);
        let status = self.status(now, slots, recorder);
        #[cfg(feature = "fleet")]
        if let Some(fleet) = &self.fleet {
            fleet.set_demand(status.demand);
        }
        self.meter.look(&status, || (self.refusals.snapshot(), slots.counts().served_at_once));
        let of_callers = of_callers.into_iter().map(|make| make(&status));
        for event in of_callers.chain(of_connections).chain(of_circuit) {
            self.telemetry.emit(event);
        }
    }

    /// Returns the callers that have a connection in this instant, the longest first.
    pub(crate) fn holders(&self, now: Instant, slots: &Slots<Dialer>) -> Vec<Holder> {
        self.registry.holders(now, || slots.look_at_idle(now))
    }

    /// Returns the callers that have held connections longest, as they were at most 50 ms ago. For errors.
    #[inline]
    pub(crate) fn longest_held(&self, now: Instant, slots: &Slots<Dialer>) -> LongestHeld {
        self.longest_held.get(now, || self.holders(now, slots))
    }

    /// The pool has ended: the gauges become 0, and what was counted since the last round is recorded.
    pub(super) fn on_end(&self, slots: Option<&Slots<Dialer>>) {
        self.meter.end(slots.map(|slots| || (self.refusals.snapshot(), slots.counts().served_at_once)));
    }

    /// A connection has noticed something. Metrics record it at once, and the next round reports it as an event.
    pub(super) fn on_connection_event(&self, event: &ConnectionEvent) {
        match event {
            ConnectionEvent::Lost { .. } => self.meter.lost(),
            ConnectionEvent::SettleFailed => self.meter.settle_failed(),
            ConnectionEvent::DialFailed => self.meter.connect_failed(),
            ConnectionEvent::Dialed { took, .. } => self.meter.connected(*took),
            _ => {}
        }
        self.connections.lock().on_connection_event(event);
    }

    /// The circuit has changed its state, which is reported at once. `is_open`: the pool is not closed. A lease may
    /// outlive its pool and still change the state.
    pub(super) fn on_transition(&self, transition: &Transition, is_open: bool) {
        self.meter.follow(transition, is_open);
        let opens = matches!(transition.to, State::Open | State::ForcedOpen);
        self.circuit.lock().opened = opens.then(|| transition.clone());
        let transition = transition.clone();
        self.telemetry.emit(match (&transition.cause, transition.by) {
            (Cause::Requested(reason), Some(by)) => {
                EventKind::BreakerForced { to: transition.to, by, reason: Arc::clone(reason) }
            }
            _ => EventKind::BreakerChanged { transition, lasting: Duration::ZERO },
        });
    }

    /// Returns how long each operation usually holds a connection.
    #[cfg(feature = "admin")]
    pub(crate) fn baselines(&self, now: Instant) -> Vec<Baseline> {
        self.callers.lock().watch.baselines(now)
    }

    /// Returns the callers that were refused since the pool began.
    #[cfg(feature = "admin")]
    pub(crate) fn refused(&self) -> RefusalCounts {
        self.refusals.snapshot()
    }

    /// Returns how long ago the database last answered.
    pub(crate) fn last_success(&self, now: Instant) -> Option<Duration> {
        let after = self.last_success.load(Relaxed).checked_sub(1)?;
        Some(now.saturating_duration_since(self.begun).saturating_sub(Duration::from_millis(after)))
    }

    pub(crate) fn status(&self, now: Instant, slots: &Slots<Dialer>, recorder: &OutcomeRecorder) -> Status {
        let counts = slots.counts();
        let (demand, time_to_exhaustion, background_share) = {
            let callers = self.callers.lock();
            (callers.watch.demand(), callers.watch.time_to_exhaustion(), callers.watch.background_share())
        };
        Status {
            name: self.telemetry.pool(),
            max_size: counts.limit,
            in_use: counts.in_use,
            settling: counts.settling,
            idle: counts.idle,
            dialing: counts.dialing,
            closing: counts.closing,
            listening: slots.dialer().listen_control().connections(),
            waiting: counts.waiting,
            max_waiting: counts.max_waiting,
            closed: !counts.is_open,
            breaker: recorder.breaker().last_state(),
            demand,
            background_share,
            predicted_wait: slots.predicted_wait(Lane::Normal),
            lanes: slots.lane_counts().map(|counts| {
                let refused = self.refusals.by_lane();
                Lane::ALL.map(|lane| lane_status(lane, counts[lane as usize], refused[lane as usize]))
            }),
            #[cfg(feature = "fleet")]
            fleet: self.fleet.as_ref().map(|fleet| fleet.status()),
            #[cfg(feature = "fleet")]
            adaptive: self.adaptive.as_ref().map(|adaptive| adaptive.status(now)),
            time_to_exhaustion,
            last_connect_error: slots.last_error().map(|error| error.to_string()),
            last_success: self.last_success(now),
        }
    }
}

fn lane_status(lane: Lane, counts: LaneCounts, refused: u64) -> LaneStatus {
    let LaneCounts { guaranteed, at_most, in_use, waiting, predicted_wait } = counts;
    LaneStatus { lane, guaranteed, at_most, in_use, waiting, refused, predicted_wait }
}

//! Makes a pool of validated settings: creates its parts and connects them with one another. It connects to no server.

use std::sync::Arc;

use super::{PoolBuilder, driver};
#[cfg(feature = "fleet")]
use crate::adaptive::{AdaptiveLimit, PoolLimit};
use crate::breaker::PoolBreaker;
use crate::call::Shared;
use crate::clock::now;
use crate::conn::{Connector, Dialer, Handling, LeaseRegistry, Listeners, OutcomeRecorder, ReadingLimits};
use crate::error::ConfigError;
use crate::event::EventKind;
#[cfg(feature = "fleet")]
use crate::fleet::Fleet;
use crate::lane_names::LaneNames;
use crate::maintenance::{Maintenance, Reports, Thresholds};
#[cfg(feature = "fleet")]
use crate::policy::{Adaptive, SizeTerms};
use crate::policy::{Lane, LaneLimits, Lifetimes};
use crate::pool::Pool;
#[cfg(feature = "fleet")]
use crate::rates::OperationCaps;
use crate::rates::Rates;
use crate::slots::{Ages, Limits, Slots};
use crate::telemetry::{Meter, Telemetry, Tracer};

impl PoolBuilder {
    /// What has a say in how many connections the pool may use, at first. A member of a fleet lives on its minimum
    /// until it knows the others.
    #[cfg(feature = "fleet")]
    fn limit_and_caps(&self) -> (Arc<PoolLimit>, Arc<OperationCaps>, SizeTerms) {
        let (max_size, min_idle) = (self.max_size, self.min_idle);
        let start = self.adaptive_start.filter(|_| self.adaptive == Adaptive::Act);
        let budget = self.fleet.as_ref().map(|fleet| fleet.minimum);
        let terms = SizeTerms { max_size, min_idle, start: start.unwrap_or(max_size) };
        (Arc::new(PoolLimit::new(max_size, budget, start)), Arc::default(), terms)
    }

    fn slot_limits(&self, max_size: usize) -> Limits {
        Limits {
            max_size,
            max_waiting: self.effective_max_waiting(),
            max_connecting: self.max_connecting,
            wait_budget: self.acquire_timeout,
            ages: Ages {
                lifetimes: Lifetimes::new(self.max_lifetime, fastrand::f64()),
                min_idle: self.min_idle,
                idle_timeout: self.idle_timeout,
                check_after: self.health_check_after,
            },
            lanes: Lane::ALL.map(|lane| self.lanes[lane as usize].unwrap_or_else(|| LaneLimits::of(lane))),
        }
    }

    fn thresholds(&self) -> Thresholds {
        let (long_running, long) = self.long_running;
        Thresholds { leak: self.leak_detection_threshold, long_running, long, slow_acquire: self.acquire_timeout / 2 }
    }

    /// Returns whether the owner has named a lane. Otherwise the first caller that names one opens them.
    fn has_lanes(&self) -> bool {
        self.lanes.iter().any(Option::is_some) || self.lane_names.values().any(|lane| *lane != Lane::Normal)
    }

    pub(super) fn finish(self, connector: Connector) -> Result<Pool, ConfigError> {
        self.check_values()?;
        self.place.check()?;
        driver::check(&self.place, !connector.is_none())?;
        #[cfg(not(feature = "fleet"))]
        let first_size = self.max_size;
        #[cfg(feature = "fleet")]
        let (pool_limit, caps, terms) = self.limit_and_caps();
        #[cfg(feature = "fleet")]
        let first_size = pool_limit.effective();
        let (slot_limits, thresholds, has_lanes) = (self.slot_limits(first_size), self.thresholds(), self.has_lanes());
        let settings = self.in_effect();
        let mut config = self.place.driver;
        if config.get_application_name().is_none() {
            config.application_name(&self.name);
        }
        let (timeouts, query_timeout) = (self.server_timeouts, self.query_timeout);
        let registry = Arc::new(LeaseRegistry::new(self.leak_backtraces));
        let tracer = Tracer::new(&self.name, &config);
        let mut observers = self.observers;
        observers.extend(tracer.log());
        let name: Arc<str> = self.name.as_str().into();
        let meter = Meter::new(Arc::clone(&name), self.min_idle, self.recorder);
        observers.extend(meter.observer());
        let telemetry = Arc::new(Telemetry::new(name, observers));
        let reports = Reports::new(Arc::clone(&telemetry), meter.clone(), Arc::clone(&registry), thresholds, now());
        #[cfg(feature = "fleet")]
        let (has_fleet, reports) = {
            let new = |fleet| Fleet::new(&fleet, self.max_size, Arc::clone(&pool_limit), Arc::clone(&telemetry));
            let fleet = self.fleet.map(|fleet| Arc::new(new(fleet)));
            let adaptive = (self.adaptive != Adaptive::Off).then(|| {
                let (limit, caps) = (Arc::clone(&pool_limit), Arc::clone(&caps));
                let (registry, telemetry) = (Arc::clone(&registry), Arc::clone(&telemetry));
                Arc::new(AdaptiveLimit::new(self.adaptive, terms, limit, caps, registry, telemetry))
            });
            (fleet.is_some(), reports.of_fleet(fleet, adaptive))
        };
        let maintenance = Maintenance::new(self.breaker.probes(), self.unready_after, self.connect_timeout, reports);
        let (of_transitions, of_events) = (Arc::clone(&maintenance), Arc::clone(&maintenance));
        let breaker = self.breaker.call_timeout(query_timeout);
        let breaker = breaker.on_transition_first(move |change| of_transitions.on_transition(change));
        let breaker = PoolBreaker::new(breaker, self.machine).map_err(|error| error.within("breaker"))?;
        let on_event = Arc::new(move |event| of_events.on_connection_event(event));
        let recorder = OutcomeRecorder::new(breaker, self.is_failure, on_event);
        #[cfg(feature = "fleet")]
        let caps = (self.adaptive == Adaptive::Act).then_some(caps);
        #[cfg(feature = "fleet")]
        let recorder = recorder.with_caps(caps.clone());
        let recorder = Arc::new(recorder);
        let retries = self.retry.finish(now(), self.max_size)?;
        let rates = Rates::new(now(), self.rates, self.rates_of);
        #[cfg(feature = "fleet")]
        let rates = Rates::with_caps(rates, caps);
        let (hooks, statements) = (self.hooks, self.statement_cache);
        let listeners = Listeners { recorder: Arc::clone(&recorder), registry, tracer: tracer.clone(), meter };
        let limits_of_work = (self.connect_timeout, query_timeout);
        let reading = ReadingLimits::new(self.stream_idle_timeout, self.acquire_timeout, query_timeout);
        let handling = Handling::new(hooks, self.reset, statements, timeouts, limits_of_work, reading, listeners);
        #[cfg(feature = "fleet")]
        handling.set_keepalives(has_fleet);
        #[cfg(feature = "testing")]
        let pretences = Arc::clone(&handling.pretences);
        let dialer = Dialer::new(config, self.connect_timeout, connector, handling);
        let slots = Slots::new(dialer, slot_limits, self.runtime);
        if has_lanes {
            slots.open_lanes();
        }
        maintenance.attach(&slots, &recorder);
        telemetry.emit(EventKind::Started { settings: settings.into() });
        Ok(Pool::new(Shared {
            acquire_timeout: self.acquire_timeout,
            query_timeout: self.query_timeout,
            shedding: self.shedding,
            health_check_after: self.health_check_after,
            max_lifetime: self.max_lifetime,
            slots,
            recorder,
            maintenance,
            retries,
            lane_names: LaneNames::new(self.lane_names),
            rates,
            tracer,
            #[cfg(feature = "testing")]
            pretences,
        }))
    }
}

//! Looks at the pool four times a second and finds what its owner should know.
//!
//! Each detector has its own file: `inflation` (which operation became slow?), `traffic` (do many more callers come
//! than usual?), `trend` (will the pool run out?), `utilization` (is it full?) and `shedding` (are callers refused?).
//! `lasting` decides for all of them when a finding is reported, when it is repeated, and when its end is reported.
//! `throttle` decides how much of its limit Background may use.
//!
//! Findings are plain numbers; the maintenance turns them into events. One look returns causes before effects: an
//! operation that became slow, unusual traffic, a throttled lane, the coming exhaustion, a full pool, refused callers.

#[cfg(feature = "admin")]
mod baseline;
mod demand;
mod finding;
mod inflation;
mod lasting;
mod reading;
mod shedding;
mod throttle;
mod traffic;
mod trend;
mod utilization;

use std::time::{Duration, Instant};

#[cfg(feature = "admin")]
pub use self::baseline::Baseline;
use self::demand::Demand;
pub(crate) use self::finding::Finding;
use self::inflation::Inflation;
pub(crate) use self::lasting::{DueReport, Lasting, REPEAT, Sign};
pub(crate) use self::reading::{EndedLease, Reading};
use self::shedding::Shedding;
use self::throttle::Throttle;
use self::traffic::Traffic;
use self::trend::{Prediction, Trend};
use self::utilization::Utilization;
use crate::operation::Operation;
use crate::policy::Lane;

/// A prediction ends after this time without any sign of exhaustion.
const REASSURED: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Watch {
    inflation: Inflation,
    throttle: Throttle,
    traffic: Traffic,
    demand: Demand,
    trend: Trend,
    prediction: Option<Prediction>,
    predicted: Lasting,
    utilization: Utilization,
    shedding: Shedding,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self {
            inflation: Inflation::new(),
            throttle: Throttle::new(),
            traffic: Traffic::new(),
            demand: Demand::default(),
            trend: Trend::new(),
            prediction: None,
            predicted: Lasting::new(Duration::ZERO, REASSURED),
            utilization: Utilization::new(),
            shedding: Shedding::new(),
        }
    }

    /// A lease has ended that lasted so long. The caller may pass only a sample of the connections, if
    /// each is equally likely to be in it.
    pub(crate) fn record(&mut self, now: Instant, operation: Operation, lane: Lane, lasted: Duration) {
        self.inflation.record(now, operation, lane, lasted);
    }

    /// Looks at the pool and returns the findings. `running` has the operation, the lane and the age of each lease.
    /// Without it, the watch finds a slow operation only when its leases end.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        reading: &Reading,
        running: impl IntoIterator<Item = (Operation, Lane, Duration)>,
    ) -> Vec<Finding> {
        let mut findings = self.inflation.tick(now, running);
        findings.extend(self.traffic.tick(now, reading));
        findings.extend(self.throttle(now));
        self.demand.tick(now, reading);
        self.prediction = self.trend.tick(now, reading);
        findings.extend(self.predict(now, self.prediction));
        findings.extend(self.utilization.tick(now, reading));
        findings.extend(self.shedding.tick(now, reading.refused));
        findings
    }

    /// Returns how long each operation usually holds a connection, by its name.
    #[cfg(feature = "admin")]
    pub(crate) fn baselines(&self, now: Instant) -> Vec<Baseline> {
        self.inflation.baselines(now)
    }

    /// Returns how much of its limit the lane Background may use: 0 to 1.
    pub(crate) fn background_share(&self) -> f64 {
        f64::from(self.throttle.percent()) / 100.0
    }

    /// Returns how many connections callers ask for. `None` if too few callers were served.
    pub(crate) fn demand(&self) -> Option<f64> {
        self.demand.connections()
    }

    /// Returns when the pool runs out of connections, if utilization keeps rising at its present rate.
    pub(crate) fn time_to_exhaustion(&self) -> Option<Duration> {
        self.prediction.map(|prediction| prediction.within)
    }

    /// Does nothing in a pool that has no callers in Background.
    fn throttle(&mut self, now: Instant) -> Option<Finding> {
        if !self.inflation.has_background() {
            return None;
        }
        self.throttle.tick(now, self.inflation.worst_above_background(now))
    }

    /// Does not repeat a prediction once the pool is exhausted.
    fn predict(&mut self, now: Instant, prediction: Option<Prediction>) -> Option<Finding> {
        let sign = match prediction {
            None => Sign::No,
            Some(_) if self.predicted.is_reported() && self.utilization.is_exhausted() => Sign::Near,
            Some(_) => Sign::Yes,
        };
        let Prediction { within, over } = prediction.unwrap_or_default();
        self.predicted.look(now, sign).map(|due| match due {
            DueReport::Lasts(lasting) => Finding::ExhaustionPredicted { within, over, lasting },
            DueReport::Ended(lasted) => Finding::ExhaustionPredictionEnded { lasted },
        })
    }
}

#[cfg(test)]
mod tests;

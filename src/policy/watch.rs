//! What the pool sees of itself, four times a second, and what of that somebody should be told.
//!
//! Each detector is a file of its own: `utilization`, `trend` (will it run out?), `inflation` (whose fault is it?),
//! `shedding`. When to tell, when again and when no more is the same for all of them: `lasting`, which others may use
//! for what they see themselves.
//!
//! Findings are plain numbers; the maintenance makes events of them. In one look the cause comes before the effect: who
//! holds too long, that the pool will run out, that it is full, that callers are refused.

mod demand;
mod finding;
mod inflation;
mod lasting;
mod reading;
mod shedding;
mod trend;
mod utilization;

use std::time::{Duration, Instant};

use self::demand::Demand;
pub(crate) use self::finding::Finding;
use self::inflation::Inflation;
pub(crate) use self::lasting::{Lasting, REPEAT, Sign, Told};
pub(crate) use self::reading::Reading;
use self::shedding::Shedding;
use self::trend::{Prediction, Trend};
use self::utilization::Utilization;
use crate::operation::Operation;

/// For so long nothing must point to the end, before that is told.
const REASSURED: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Watch {
    inflation: Inflation,
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
            demand: Demand::default(),
            trend: Trend::new(),
            prediction: None,
            predicted: Lasting::new(Duration::ZERO, REASSURED),
            utilization: Utilization::new(),
            shedding: Shedding::new(),
        }
    }

    /// A connection that was held for `hold` has come back. Not all of them need be told, as long as each is as likely
    /// to be.
    pub(crate) fn record(&mut self, now: Instant, operation: Operation, hold: Duration) {
        self.inflation.record(now, operation, hold);
    }

    /// `running`: the connections in use, what for, and for how long so far. Without them, what became slow is found
    /// when it ends.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        reading: &Reading,
        running: impl IntoIterator<Item = (Operation, Duration)>,
    ) -> Vec<Finding> {
        let mut findings = self.inflation.tick(now, running);
        self.demand.tick(now, reading);
        self.prediction = self.trend.tick(now, reading);
        findings.extend(self.predict(now, self.prediction));
        findings.extend(self.utilization.tick(now, reading));
        findings.extend(self.shedding.tick(now, reading.refused));
        findings
    }

    /// How many connections callers ask for.
    pub(crate) fn demand(&self) -> Option<f64> {
        self.demand.connections()
    }

    /// If utilization goes on rising as it does.
    pub(crate) fn time_to_exhaustion(&self) -> Option<Duration> {
        self.prediction.map(|prediction| prediction.within)
    }

    /// Once the end has come, it need not be predicted again.
    fn predict(&mut self, now: Instant, prediction: Option<Prediction>) -> Option<Finding> {
        let sign = match prediction {
            None => Sign::No,
            Some(_) if self.predicted.is_told() && self.utilization.is_exhausted() => Sign::Near,
            Some(_) => Sign::Yes,
        };
        let Prediction { within, over } = prediction.unwrap_or_default();
        self.predicted.look(now, sign).map(|told| match told {
            Told::Lasts(lasting) => Finding::ExhaustionPredicted { within, over, lasting },
            Told::Ended(lasted) => Finding::PredictionEnded { lasted },
        })
    }
}

#[cfg(test)]
mod tests;

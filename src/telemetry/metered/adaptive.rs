//! The metrics of a pool whose limit follows the database.

use metrics::Gauge;

use super::handles::Source;
use crate::metrics as ours;
use crate::policy::AdviceReason;
use crate::status::AdaptiveStatus;

pub(super) struct AdaptiveHandles {
    limit: Gauge,
    inflation: Gauge,
    capped: Gauge,
    advice: [(AdviceReason, Gauge); 8],
}

impl AdaptiveHandles {
    pub(super) fn new(source: &Source) -> Self {
        source.describe(ours::ADAPTIVE_METRICS);
        let advice = |reason: AdviceReason| {
            (reason, source.gauge(&ours::ADAPTIVE_ADVICE, [(ours::REASON, reason.as_str().into())]))
        };
        Self {
            limit: source.gauge(&ours::ADAPTIVE_LIMIT, []),
            inflation: source.gauge(&ours::ADAPTIVE_INFLATION, []),
            capped: source.gauge(&ours::ADAPTIVE_CAPPED, []),
            advice: AdviceReason::ALL.map(advice),
        }
    }

    pub(super) fn look(&self, status: &AdaptiveStatus) {
        self.limit.set(status.limit as f64);
        self.inflation.set(status.inflation.unwrap_or_default());
        self.capped.set(status.capped.len() as f64);
        self.show(status.advice.map(|advice| advice.reason));
    }

    /// The pool has ended.
    pub(super) fn end(&self) {
        [&self.limit, &self.inflation, &self.capped].into_iter().for_each(|gauge| gauge.set(0.0));
        self.show(None);
    }

    fn show(&self, now: Option<AdviceReason>) {
        for (reason, gauge) in &self.advice {
            gauge.set(if Some(*reason) == now { 1.0 } else { 0.0 });
        }
    }
}

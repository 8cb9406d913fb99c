//! The findings of the detectors.

use std::time::Duration;

use crate::operation::Operation;
use crate::policy::refusals::RefusalCounts;

/// Something that the pool's owner should know. `lasting` and `lasted` are the durations in
/// [`DueReport`](super::DueReport).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    LeasesInflated {
        operation: Operation,
        from: Duration,
        to: Duration,
        lasting: Duration,
    },
    LeasesNormal {
        operation: Operation,
        to: Duration,
        lasted: Duration,
    },
    /// `calls` and `usual` are per minute.
    TrafficAnomaly {
        calls: u64,
        usual: u64,
        lasting: Duration,
    },
    TrafficNormal {
        calls: u64,
        lasted: Duration,
    },
    /// `percent` is how much of its limit the lane may use.
    BackgroundThrottled {
        percent: u8,
        operation: Operation,
        lasting: Duration,
    },
    BackgroundRestored {
        lasted: Duration,
    },
    ExhaustionPredicted {
        within: Duration,
        over: Duration,
        lasting: Duration,
    },
    ExhaustionPredictionEnded {
        lasted: Duration,
    },
    UtilizationHigh {
        lasting: Duration,
    },
    UtilizationCritical {
        lasting: Duration,
    },
    UtilizationNormal {
        lasted: Duration,
    },
    Exhausted {
        lasting: Duration,
    },
    ExhaustionEnded {
        lasted: Duration,
    },
    Shedding {
        refused: RefusalCounts,
        lasting: Duration,
    },
    SheddingEnded {
        refused: RefusalCounts,
        lasted: Duration,
    },
}

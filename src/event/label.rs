//! The word for each event, as metrics name it.

use super::kind::EventKind;

impl EventKind {
    /// A word in snake case that never changes: a label for metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::TooLarge { .. } => "too_large",
            Self::UtilizationHigh { .. } => "utilization_high",
            Self::UtilizationCritical { .. } => "utilization_critical",
            Self::UtilizationNormal { .. } => "utilization_normal",
            Self::Exhausted { .. } => "exhausted",
            Self::ExhaustionEnded { .. } => "exhaustion_ended",
            Self::ExhaustionPredicted { .. } => "exhaustion_predicted",
            Self::PredictionEnded { .. } => "prediction_ended",
            Self::Shedding { .. } => "shedding",
            Self::SheddingEnded { .. } => "shedding_ended",
            Self::HoldsInflated { .. } => "holds_inflated",
            Self::HoldsNormal { .. } => "holds_normal",
            Self::LeakSuspected { .. } => "leak_suspected",
            Self::LongRunning { .. } => "long_running",
            Self::LongRunningEnded { .. } => "long_running_ended",
            Self::SlowAcquire { .. } => "slow_acquire",
            Self::SlowAcquireEnded { .. } => "slow_acquire_ended",
            Self::ConnectFailed { .. } => "connect_failed",
            Self::ConnectRecovered { .. } => "connect_recovered",
            Self::ConnectionLost { .. } => "connection_lost",
            Self::ServerShuttingDown { .. } => "server_shutting_down",
            Self::ServerWarning { .. } => "server_warning",
            Self::PrimaryChanged { .. } => "primary_changed",
            Self::AddressAvoided { .. } => "address_avoided",
            Self::AddressRestored { .. } => "address_restored",
            Self::SettleFailed { .. } => "settle_failed",
            Self::BreakerChanged { .. } => "breaker_changed",
            Self::Forced { .. } => "forced",
            Self::Resized { .. } => "resized",
            Self::Flushed { .. } => "flushed",
            Self::Draining { .. } => "draining",
            Self::Drained { .. } => "drained",
        }
    }
}

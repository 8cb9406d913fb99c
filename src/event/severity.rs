//! How much each event matters, and which events end others.

use std::fmt;

use super::kind::EventKind;
use crate::policy::{AdviceReason, State};

/// From so many seconds on, the lag of a replica is critical.
const CRITICAL_LAG: u64 = 45;

/// How much an event matters. `Critical` is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// Useful to know afterwards.
    Info,
    /// Look at it today.
    Warning,
    /// The pool refuses callers, or soon will, or no longer does. Look at it now, unless the event
    /// [is an end](EventKind::is_end).
    Critical,
}

impl Severity {
    /// The name, which never changes: `info`, `warning`, `critical`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl EventKind {
    /// The severity. The end of a condition has the severity of its beginning, so that a filter shows both or neither.
    /// See [`is_end`](Self::is_end).
    pub fn severity(&self) -> Severity {
        match self {
            Self::Exhausted { .. }
            | Self::ExhaustionEnded { .. }
            | Self::UtilizationCritical { .. }
            | Self::Shedding { .. }
            | Self::SheddingEnded { .. }
            | Self::ConnectFailed { .. }
            | Self::ConnectRecovered { .. }
            | Self::PrimaryMissing { .. }
            | Self::PrimaryFound { .. }
            | Self::TwoPrimaries { .. }
            | Self::TwoSystems { .. } => Severity::Critical,
            Self::LimitAdvised { advice, .. } | Self::LimitChanged { advice } => match advice.reason {
                AdviceReason::Saturated | AdviceReason::SlowOperation | AdviceReason::LockBound => Severity::Warning,
                _ => Severity::Info,
            },
            Self::ReplicaLags { lag, .. } if lag.is_none_or(|lag| lag.as_secs() >= CRITICAL_LAG) => Severity::Critical,
            Self::BreakerChanged { transition, .. } => match (transition.from, transition.to) {
                (_, State::Open) | (State::Open | State::HalfOpen, State::Closed) => Severity::Critical,
                (_, State::HalfOpen) => Severity::Info,
                _ => Severity::Warning,
            },
            Self::PoolTooLarge { .. }
            | Self::UtilizationHigh { .. }
            | Self::UtilizationNormal { .. }
            | Self::ExhaustionPredicted { .. }
            | Self::ExhaustionPredictionEnded { .. }
            | Self::LeasesInflated { .. }
            | Self::LeasesNormal { .. }
            | Self::TrafficAnomaly { .. }
            | Self::TrafficNormal { .. }
            | Self::BackgroundThrottled { .. }
            | Self::BackgroundRestored { .. }
            | Self::LeakSuspected { .. }
            | Self::LongRunning { .. }
            | Self::LongRunningEnded { .. }
            | Self::SlowAcquire { .. }
            | Self::SlowAcquireEnded { .. }
            | Self::ConnectionLost { .. }
            | Self::ListenInterrupted { .. }
            | Self::ListenResumed { .. }
            | Self::ServerShuttingDown { .. }
            | Self::ServerWarning { .. }
            | Self::PrimaryChanged { .. }
            | Self::ReplicaLags { .. }
            | Self::ReplicaCaughtUp { .. }
            | Self::HostSilent { .. }
            | Self::HostAnswers { .. }
            | Self::HostBalances { .. }
            | Self::LockBound { .. }
            | Self::LockBoundEnded { .. }
            | Self::HeldByCaller { .. }
            | Self::HeldByCallerEnded { .. }
            | Self::FleetShort { .. }
            | Self::FleetSuffices { .. }
            | Self::FleetStrangers { .. }
            | Self::FleetStrangersGone { .. }
            | Self::FleetBlind { .. }
            | Self::FleetSees { .. }
            | Self::FleetOff { .. }
            | Self::FleetOn { .. }
            | Self::AddressAvoided { .. }
            | Self::AddressRestored { .. }
            | Self::SettleFailed { .. }
            | Self::TimelineForgotten { .. }
            | Self::BreakerForced { .. } => Severity::Warning,
            Self::Drained { left, .. } if *left > 0 => Severity::Warning,
            Self::Started { .. }
            | Self::Resized { .. }
            | Self::LaneChanged { .. }
            | Self::SchemaChangePostponed { .. }
            | Self::Flushed { .. }
            | Self::Draining { .. }
            | Self::Drained { .. } => Severity::Info,
        }
    }

    /// Returns whether the event reports the end of a condition that an earlier event reported. Such an event needs no
    /// page, even if it is critical.
    pub fn is_end(&self) -> bool {
        match self {
            Self::UtilizationNormal { .. }
            | Self::ExhaustionEnded { .. }
            | Self::ExhaustionPredictionEnded { .. }
            | Self::SheddingEnded { .. }
            | Self::LeasesNormal { .. }
            | Self::TrafficNormal { .. }
            | Self::BackgroundRestored { .. }
            | Self::LongRunningEnded { .. }
            | Self::SlowAcquireEnded { .. }
            | Self::ConnectRecovered { .. }
            | Self::ListenResumed { .. }
            | Self::AddressRestored { .. }
            | Self::PrimaryFound { .. }
            | Self::ReplicaCaughtUp { .. }
            | Self::HostAnswers { .. }
            | Self::LockBoundEnded { .. }
            | Self::HeldByCallerEnded { .. }
            | Self::FleetSuffices { .. }
            | Self::FleetStrangersGone { .. }
            | Self::FleetSees { .. }
            | Self::FleetOn { .. }
            | Self::BreakerForced { to: State::Closed, .. } => true,
            Self::BreakerChanged { transition, .. } => transition.to == State::Closed,
            _ => false,
        }
    }
}

//! Every event there is: what it carries, and how much it matters.

use std::backtrace::Backtrace;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::severity::Severity;
use crate::error::{ConnectError, Lost};
use crate::operation::Operation;
use crate::policy::{Refused, State, Transition};
use crate::status::Status;

/// What happened, or goes on.
///
/// `lasting` is for how long it has been so when it is told, `lasted` for how long it had been so when it ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum EventKind {
    /// The pool begins its work.
    #[non_exhaustive]
    Started {
        /// The settings in effect, in one line, without credentials.
        settings: Arc<str>,
    },
    /// `max_size` is more than the server has left: the last connections will be refused.
    #[non_exhaustive]
    TooLarge {
        /// What the pool may open.
        max_size: usize,
        /// What the server had left when it was asked.
        left: usize,
    },
    /// More than 80% of the pool has been in use, on average over 10 s. Repeated while it lasts, unless something worse is.
    #[non_exhaustive]
    UtilizationHigh {
        /// The pool, as it is now.
        status: Status,
        /// So far.
        lasting: Duration,
    },
    /// The same for 90%. When it passes, the pool is at [`UtilizationHigh`](Self::UtilizationHigh) or
    /// [`UtilizationNormal`](Self::UtilizationNormal).
    #[non_exhaustive]
    UtilizationCritical {
        /// The pool, as it is now.
        status: Status,
        /// So far.
        lasting: Duration,
    },
    /// The end of [`UtilizationHigh`](Self::UtilizationHigh).
    #[non_exhaustive]
    UtilizationNormal {
        /// The pool, as it is now.
        status: Status,
        /// In all.
        lasted: Duration,
    },
    /// All connections are in use and callers wait, for 2 s or more. A pool that is only busy, with nobody waiting, is not exhausted.
    #[non_exhaustive]
    Exhausted {
        /// The pool, as it is now.
        status: Status,
        /// So far.
        lasting: Duration,
    },
    /// The end of [`Exhausted`](Self::Exhausted).
    #[non_exhaustive]
    ExhaustionEnded {
        /// The pool, as it is now.
        status: Status,
        /// In all.
        lasted: Duration,
    },
    /// If utilization goes on rising as it does, the pool will be exhausted soon. A trend is believed for a quarter of the time for which it has been seen, so
    /// a surge is told seconds before, and a day's growth up to half an hour.
    #[non_exhaustive]
    ExhaustionPredicted {
        /// The pool, as it is now.
        status: Status,
        /// Until nothing is left. Zero: now.
        within: Duration,
        /// The trend was seen for so long.
        over: Duration,
        /// So far.
        lasting: Duration,
    },
    /// The end of [`ExhaustionPredicted`](Self::ExhaustionPredicted): nothing points to it any more.
    #[non_exhaustive]
    PredictionEnded {
        /// The pool, as it is now.
        status: Status,
        /// In all.
        lasted: Duration,
    },
    /// Callers are refused at once rather than made to wait in vain.
    #[non_exhaustive]
    Shedding {
        /// The pool, as it is now.
        status: Status,
        /// Since the first was.
        refused: Refused,
        /// So far.
        lasting: Duration,
    },
    /// The end of [`Shedding`](Self::Shedding): nobody has been refused for 5 s.
    #[non_exhaustive]
    SheddingEnded {
        /// The pool, as it is now.
        status: Status,
        /// In all.
        refused: Refused,
        /// In all.
        lasted: Duration,
    },
    /// An operation holds its connections more than three times as long as it used to: the first suspect when a pool runs out.
    #[non_exhaustive]
    HoldsInflated {
        /// Which.
        operation: Operation,
        /// How long it used to hold one, on average.
        from: Duration,
        /// How long it holds one now; at least, while the first of the slow ones have not ended.
        to: Duration,
        /// So far.
        lasting: Duration,
    },
    /// The end of [`HoldsInflated`](Self::HoldsInflated): it is fast again, or has been slow for so long that this is usual.
    #[non_exhaustive]
    HoldsNormal {
        /// Which.
        operation: Operation,
        /// How long it holds a connection now, on average.
        hold: Duration,
        /// In all.
        lasted: Duration,
    },
    /// A connection is held for longer than anybody should.
    #[non_exhaustive]
    LeakSuspected {
        /// What it was taken for.
        operation: Operation,
        /// For how long it has been held.
        held: Duration,
        /// Where it was taken.
        taken: &'static Location<'static>,
        /// How that place was reached, if backtraces are switched on. Not in the line of `Display`.
        backtrace: Option<Arc<Backtrace>>,
    },
    /// More statements than usual take long.
    #[non_exhaustive]
    LongRunning {
        /// Statements that have been running for longer than `than`.
        count: usize,
        /// The threshold.
        than: Duration,
        /// The longest of them: what it is, and for how long it has been running.
        longest: (Operation, Duration),
        /// So far.
        lasting: Duration,
    },
    /// The end of [`LongRunning`](Self::LongRunning).
    #[non_exhaustive]
    LongRunningEnded {
        /// In all.
        lasted: Duration,
    },
    /// Callers wait for a connection for more than half of [`acquire_timeout`](crate::PoolBuilder::acquire_timeout).
    #[non_exhaustive]
    SlowAcquire {
        /// The pool, as it is now.
        status: Status,
        /// Those who waited longer than `than`, since it was told last.
        count: u64,
        /// The threshold.
        than: Duration,
        /// The longest wait of them.
        longest: Duration,
        /// So far.
        lasting: Duration,
    },
    /// The end of [`SlowAcquire`](Self::SlowAcquire).
    #[non_exhaustive]
    SlowAcquireEnded {
        /// In all.
        lasted: Duration,
    },
    /// No connection could be made.
    #[non_exhaustive]
    ConnectFailed {
        /// The last error.
        error: ConnectError,
        /// Dials that failed, since it was told last.
        count: u64,
        /// So far.
        lasting: Duration,
    },
    /// The end of [`ConnectFailed`](Self::ConnectFailed): a connection was made.
    #[non_exhaustive]
    ConnectRecovered {
        /// In all.
        lasted: Duration,
    },
    /// Connections were lost.
    #[non_exhaustive]
    ConnectionLost {
        /// How the last of them was lost.
        lost: Arc<Lost>,
        /// How many, since the last such event.
        count: u64,
        /// How long ago the last of them was lost. Up to 30 s: there is one such event in 30 s at most.
        ago: Duration,
    },
    /// The server warned of a statement, as `RAISE WARNING` does. Repeated at most once in a while, whatever the number of warnings. Each one is also logged
    /// through the `log` crate, at the level and under the target where tokio-postgres logs it.
    #[non_exhaustive]
    ServerWarning {
        /// The latest: its text, fit for one line of a log.
        message: String,
        /// Its SQLSTATE: 01000 for a plain warning.
        sqlstate: SqlState,
        /// How many there were since the last such event.
        count: u64,
        /// How long ago the latest came. Up to 30 s: there is one such event in 30 s at most.
        ago: Duration,
    },
    /// The server says that it shuts down. Its connections are retired.
    #[non_exhaustive]
    ServerShuttingDown {
        /// What it said.
        lost: Arc<Lost>,
    },
    /// Another server is the primary. A service drops what it has cached of the database: it may be newer than what the new primary knows.
    #[non_exhaustive]
    PrimaryChanged {
        /// Host and port of the one before, if there was one.
        from: Option<String>,
        /// Host and port of the one now; `None`: it is not known.
        to: Option<String>,
    },
    /// A host, or an address of one, could not be used: for 30 s, others are tried before it. Told once, until it can be used again.
    #[non_exhaustive]
    AddressAvoided {
        /// Host or address, and port.
        address: String,
        /// What happened there.
        reason: String,
    },
    /// A host or an address that others were tried before has taken a connection again.
    #[non_exhaustive]
    AddressRestored {
        /// Host or address, and port.
        address: String,
        /// For how long it could not be used.
        lasted: Duration,
    },
    /// Connections could not be cleaned up for their next caller, and were closed.
    #[non_exhaustive]
    SettleFailed {
        /// How many, since the last such event.
        count: u64,
        /// How long ago the last of them was closed. Up to 30 s: there is one such event in 30 s at most.
        ago: Duration,
    },
    /// The circuit breaker has changed its state.
    #[non_exhaustive]
    BreakerChanged {
        /// From what to what, why, and the counts behind it.
        transition: Transition,
        /// So far. An open circuit is repeated while it lasts.
        lasting: Duration,
    },
    /// Somebody ordered the circuit breaker.
    #[non_exhaustive]
    Forced {
        /// What its state is now.
        to: State,
        /// The call.
        by: &'static Location<'static>,
        /// What was given as the reason.
        reason: Arc<str>,
    },
    /// Somebody changed the size of the pool.
    #[non_exhaustive]
    Resized {
        /// `max_size` before.
        from: usize,
        /// `max_size` now.
        to: usize,
        /// The call.
        by: &'static Location<'static>,
        /// What was given as the reason.
        reason: Option<Arc<str>>,
    },
    /// Somebody had all connections replaced.
    #[non_exhaustive]
    Flushed {
        /// The call.
        by: &'static Location<'static>,
        /// What was given as the reason.
        reason: Option<Arc<str>>,
    },
    /// Somebody drains the pool: it serves those who wait, and then closes.
    #[non_exhaustive]
    Draining {
        /// The call.
        by: &'static Location<'static>,
        /// What was given as the reason.
        reason: Option<Arc<str>>,
    },
    /// The pool has been drained, and is closed.
    #[non_exhaustive]
    Drained {
        /// Connections that were still held when the time was over.
        left: usize,
        /// How long it took.
        took: Duration,
    },
}

impl EventKind {
    /// How much it matters. The end of something that lasts matters as much as its beginning, so that a filter which shows the one shows the other;
    /// [`is_end`](Self::is_end) tells them apart.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Exhausted { .. }
            | Self::ExhaustionEnded { .. }
            | Self::UtilizationCritical { .. }
            | Self::Shedding { .. }
            | Self::SheddingEnded { .. }
            | Self::ConnectFailed { .. }
            | Self::ConnectRecovered { .. } => Severity::Critical,
            Self::BreakerChanged { transition, .. } => match (transition.from, transition.to) {
                (_, State::Open) | (State::Open | State::HalfOpen, State::Closed) => Severity::Critical,
                (_, State::HalfOpen) => Severity::Info,
                _ => Severity::Warning,
            },
            Self::TooLarge { .. }
            | Self::UtilizationHigh { .. }
            | Self::UtilizationNormal { .. }
            | Self::ExhaustionPredicted { .. }
            | Self::PredictionEnded { .. }
            | Self::HoldsInflated { .. }
            | Self::HoldsNormal { .. }
            | Self::LeakSuspected { .. }
            | Self::LongRunning { .. }
            | Self::LongRunningEnded { .. }
            | Self::SlowAcquire { .. }
            | Self::SlowAcquireEnded { .. }
            | Self::ConnectionLost { .. }
            | Self::ServerShuttingDown { .. }
            | Self::ServerWarning { .. }
            | Self::PrimaryChanged { .. }
            | Self::AddressAvoided { .. }
            | Self::AddressRestored { .. }
            | Self::SettleFailed { .. }
            | Self::Forced { .. } => Severity::Warning,
            Self::Drained { left, .. } if *left > 0 => Severity::Warning,
            Self::Started { .. }
            | Self::Resized { .. }
            | Self::Flushed { .. }
            | Self::Draining { .. }
            | Self::Drained { .. } => Severity::Info,
        }
    }

    /// Whether something has ended that an earlier event reported: what is told as critical need wake nobody then.
    pub fn is_end(&self) -> bool {
        match self {
            Self::UtilizationNormal { .. }
            | Self::ExhaustionEnded { .. }
            | Self::PredictionEnded { .. }
            | Self::SheddingEnded { .. }
            | Self::HoldsNormal { .. }
            | Self::LongRunningEnded { .. }
            | Self::SlowAcquireEnded { .. }
            | Self::ConnectRecovered { .. }
            | Self::AddressRestored { .. }
            | Self::Forced { to: State::Closed, .. } => true,
            Self::BreakerChanged { transition, .. } => transition.to == State::Closed,
            _ => false,
        }
    }
}

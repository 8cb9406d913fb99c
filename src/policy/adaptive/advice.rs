//! What the controller advises, why, and by which figures.

use crate::operation::Operation;

/// Why the pool should use more or fewer connections, or an operation fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AdviceReason {
    /// Callers queue, more than three quarters of the connections are in use, and leases take their usual time: the
    /// server can do more.
    CallersQueue,
    /// The pool grew, and throughput did not rise by at least half as much: it goes back.
    NoGain,
    /// Leases take much longer than usual, the server's processes are busy (processor, IO, internal locks), and more
    /// connections in use do not bring more throughput.
    Saturated,
    /// The pool used fewer connections, and throughput fell: it goes back.
    Costly,
    /// Leases take about their usual time again.
    Recovered,
    /// One operation takes much longer than usual, and the others do not.
    SlowOperation,
    /// The operation waits for locks of the database.
    LockBound,
    /// The connections wait for the caller: its code, or the network, between two statements.
    HeldByCaller,
}

impl AdviceReason {
    #[cfg(all(feature = "fleet", feature = "metrics"))]
    pub(crate) const ALL: [Self; 8] = [
        Self::CallersQueue,
        Self::NoGain,
        Self::Saturated,
        Self::Costly,
        Self::Recovered,
        Self::SlowOperation,
        Self::LockBound,
        Self::HeldByCaller,
    ];

    /// Returns a word in snake case that never changes, as a label for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CallersQueue => "callers_queue",
            Self::NoGain => "no_gain",
            Self::Saturated => "saturated",
            Self::Costly => "costly",
            Self::Recovered => "recovered",
            Self::SlowOperation => "slow_operation",
            Self::LockBound => "lock_bound",
            Self::HeldByCaller => "held_by_caller",
        }
    }
}

/// What the pool advises about its limit, or about the connections of one operation: `PoolBuilder::adaptive`, feature
/// `fleet`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Advice {
    /// Why.
    pub reason: AdviceReason,
    /// The operation that it is about. `None`: the pool as a whole.
    pub operation: Option<Operation>,
    /// The connections that the pool or the operation may use before the advice.
    pub from: usize,
    /// The connections that it should use. Equal to `from` if the size should stay. More than `max_size` only as
    /// advice: the pool never exceeds it.
    pub to: usize,
    /// How many times as long as usual leases take, over the ten busiest operations. `None` if their usual durations
    /// are not known.
    pub inflation: Option<f64>,
    /// Connections in use, as a share of the limit, on average of the last window: 0 to 1.
    pub utilization: f64,
    /// Leases that ended per second in the last window, without those that were cut short by a timeout.
    pub throughput: f64,
}

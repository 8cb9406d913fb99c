//! How much the calls of a lane or an operation may use, as the owner sets it. `src/builder/check.rs` has the ranges.

use std::time::Duration;

/// How much the calls of a lane or an operation may use: up to three limits, which hold together.
/// [`PoolBuilder::rate`](crate::PoolBuilder::rate) and [`PoolBuilder::rate_of`](crate::PoolBuilder::rate_of) take it.
///
/// A call beyond a limit is refused at once with [`Error::Shed`](crate::Error::Shed), for the reason
/// [`ShedReason::RateLimited`](crate::ShedReason::RateLimited). `retry_after` says when to come back. A refused call
/// does not count as a failure of the database, nor as overload of the pool.
///
/// ```
/// use failfast::{Lane, Pool, Rate};
///
/// # fn example(config: failfast::Config) -> failfast::PoolBuilder {
/// Pool::builder(config)
///     .max_size(14)
///     .rate(Lane::Background, Rate::new().connection_seconds(3.0)) // three of 14 connections, on average
///     .rate_of("export", Rate::new().concurrency(2))
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use = "a rate does nothing until a pool is built with it"]
pub struct Rate {
    pub(crate) connection_seconds: Option<f64>,
    pub(crate) calls: Option<f64>,
    pub(crate) concurrency: Option<usize>,
    pub(crate) burst: Duration,
}

impl Default for Rate {
    fn default() -> Self {
        Self::new()
    }
}

impl Rate {
    /// Returns a rate without a limit. Set at least one.
    pub fn new() -> Self {
        Self { connection_seconds: None, calls: None, concurrency: None, burst: Duration::from_secs(1) }
    }

    /// For how many seconds the calls may hold connections, in each second: a share of the pool over time. With 2.0,
    /// two connections are in use on average. More than 0, at most 262,143. Default: no limit.
    ///
    /// It is the first choice, because it limits what a call costs. A call is charged with the usual duration of a
    /// lease (a mean of the recent ones; 10 ms before the first has ended), and with the real one when its lease ends.
    /// While a lease lasts longer than usual, what it takes counts, too.
    pub fn connection_seconds(mut self, per_second: f64) -> Self {
        self.connection_seconds = Some(per_second);
        self
    }

    /// How many calls may begin in each second. Each attempt counts. More than 0, at most 1,000,000; a fraction will
    /// do: 0.1 is a call every ten seconds. Default: no limit.
    pub fn calls(mut self, per_second: f64) -> Self {
        self.calls = Some(per_second);
        self
    }

    /// How many calls may be under way at once, those that wait for a connection included. 1 to 262,143. Default: no
    /// limit.
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency = Some(calls);
        self
    }

    /// The time that may be used at once: with the default of 1 s, as much as the rate allows in one second. For
    /// [`connection_seconds`](Self::connection_seconds) and [`calls`](Self::calls). More than 0, at most 24 hours.
    ///
    /// A call that costs more than the burst is admitted when nothing else was used lately. The next call then waits
    /// until it is paid for.
    pub fn burst(mut self, burst: Duration) -> Self {
        self.burst = burst;
        self
    }

    /// Returns whether the rate has a limit.
    pub(crate) fn is_limit(&self) -> bool {
        self.connection_seconds.is_some() || self.calls.is_some() || self.concurrency.is_some()
    }
}

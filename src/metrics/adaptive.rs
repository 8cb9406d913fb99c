//! The metrics of a pool whose limit follows the database.

use super::metric::Kind::Gauge;
use super::metric::Metric;
use super::metric::Unit::Count;
use super::table::REASON;

pub(crate) const ADAPTIVE_LIMIT: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.adaptive.limit",
    &[],
    "Connections that the database can bear, as far as the pool knows: at most max_size",
);
pub(crate) const ADAPTIVE_INFLATION: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.adaptive.inflation",
    &[],
    "How many times as long as usual leases take; 0 if it is not known",
);
pub(crate) const ADAPTIVE_CAPPED: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.adaptive.capped",
    &[],
    "Operations that may use no more connections than usual, or should not",
);
pub(crate) const ADAPTIVE_ADVICE: Metric = Metric::new(
    Gauge,
    Count,
    "failfast.adaptive.advice",
    &[REASON],
    "1 for the reason of the present advice, 0 for the others",
);

/// Every metric that a pool records whose limit [follows the database](crate::PoolBuilder::adaptive), beyond those of
/// all pools.
pub const ADAPTIVE_METRICS: &[Metric] = &[ADAPTIVE_LIMIT, ADAPTIVE_INFLATION, ADAPTIVE_CAPPED, ADAPTIVE_ADVICE];

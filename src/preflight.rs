//! Checks before a deployment or a migration: [`Pool::preflight`]. Feature `preflight`.
//!
//! ```no_run
//! # async fn example(pool: failfast::Pool) {
//! use failfast::preflight::Plan;
//!
//! let plan = Plan::new().instances(6).surge(2).touches(["orders", "order_items"]);
//! let report = pool.preflight(&plan).await;
//! println!("{report}");
//! std::process::exit(report.exit_code().into());
//! # }
//! ```
//!
//! Each check asks one question and judges the answer: [`Check`] has the list. Nothing is changed: each question is a
//! read-only transaction of its own with a limit of time, on a connection beside the pool's `max_size`. A question that
//! has no answer, such as one that the role may not ask, is [`Grade::NotKnown`], and never [`Grade::Ok`].
//!
//! A member of `pg_monitor` can answer every question. Without it, ages of other roles' transactions and the lag of
//! replicas are hidden.

mod asking;
mod checks;
#[cfg(feature = "serde")]
mod json;
mod plan;
mod report;

pub use self::plan::{Plan, PoolerMode};
pub use self::report::{Check, Finding, Grade, Report};
use crate::pool::Pool;

impl Pool {
    /// Checks whether the database is fit for a deployment or a migration. Feature `preflight`.
    ///
    /// Takes no connection of the pool, and works while all of them are in use. It makes its own, at most two at a
    /// time. Each dial is bounded by [`connect_timeout`](crate::PoolBuilder::connect_timeout), and each question by
    /// [`Plan::question_timeout`]. After a dial that failed there is no other.
    ///
    /// The future may be dropped at any await.
    pub async fn preflight(&self, plan: &Plan) -> Report {
        checks::run(self, plan).await
    }
}

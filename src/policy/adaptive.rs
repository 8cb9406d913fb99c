//! How many connections a pool should use, by what the database makes of them.
//!
//! The controller looks at the pool four times a second and decides every two seconds (`window`). It asks why before
//! it changes anything: which operations have longer leases than usual (`operations`, `baseline`), what their server
//! processes wait for (`waits`), and whether more connections in use bring more throughput (`correlation`). `size`
//! decides about the pool, `caps` about single operations.
//!
//! Without the feature `fleet` there are only the types of its advice and of its setting.
//!
//! It never makes the pool smaller to measure it. A limit binds newcomers only: no lease ends for it.

mod advice;
#[cfg(feature = "fleet")]
mod baseline;
#[cfg(feature = "fleet")]
mod caps;
#[cfg(feature = "fleet")]
mod controller;
#[cfg(feature = "fleet")]
mod correlation;
mod mode;
#[cfg(feature = "fleet")]
mod operations;
#[cfg(feature = "fleet")]
mod size;
#[cfg(feature = "fleet")]
mod waits;
#[cfg(feature = "fleet")]
mod window;

pub use self::advice::{Advice, AdviceReason};
#[cfg(feature = "fleet")]
pub(crate) use self::controller::{AdaptiveFinding, Controller, Pooled};
pub use self::mode::Adaptive;
#[cfg(feature = "fleet")]
pub(crate) use self::size::SizeTerms;
#[cfg(feature = "fleet")]
pub(crate) use self::waits::Wait;

#[cfg(all(test, feature = "fleet"))]
mod tests;

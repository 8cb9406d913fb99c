//! Decisions, and nothing else: no clock, no lock, no runtime, no randomness, no I/O. Time is an argument.

mod deadline;
mod forecast;
mod patience;

pub(crate) use deadline::Deadline;
pub(crate) use forecast::Forecast;
pub(crate) use patience::Patience;
pub use patience::Shedding;

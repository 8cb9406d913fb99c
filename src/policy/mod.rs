//! Decisions, and nothing else: no clock, no lock, no runtime, no randomness, no I/O. Time is an argument.

mod breaker;
#[cfg_attr(not(test), expect(dead_code, reason = "the breaker and the retries will ask the other questions"))]
mod classify;
mod deadline;
mod forecast;
mod patience;
mod window;

pub(crate) use breaker::{Breaker, Denied, Growth, Order, Outcome, Rule, Settings, SlowCall, Ticket};
pub use breaker::{Cause, Export, Past, Snapshot, State, Transition};
pub use classify::Effect;
pub(crate) use classify::{Answer, Event, Failure, Fate, Heal, Phase, Severity, Verdict};
pub(crate) use deadline::Deadline;
pub(crate) use forecast::Forecast;
pub(crate) use patience::Patience;
pub use patience::Shedding;
pub use window::Counts;

//! Processes that share a server divide its connections among themselves. Feature `fleet`.
//!
//! [`Fleet`] is what the pool knows of its budget. Its task (`scout`) has a connection beside the pool. On it the task
//! shows the beacon and reads those of the others (`question`). Then it sets which part of `max_size` the pool may use.
//! The rules are in `policy/fleet`, as pure code.

mod config;
mod core;
mod question;
mod reports;
mod scout;

pub use self::config::FleetConfig;
pub(crate) use self::config::is_budget;
pub(crate) use self::core::Fleet;

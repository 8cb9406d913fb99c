//! Feature `fleet`: processes that share a server divide its connections among themselves.
//!
//! [`Fleet`] is what the pool knows of its budget. Its task (`scout`) has a connection of its own, beside the pool: it
//! shows the beacon, reads those of the others (`question`), and sets the part of `max_size` that the pool may use. The
//! rules are in `policy/fleet`.

mod config;
mod core;
mod question;
mod reports;
mod scout;

pub use self::config::FleetConfig;
pub(crate) use self::config::is_budget;
pub(crate) use self::core::Fleet;

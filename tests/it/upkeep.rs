//! Maintenance of the pool: it notices ended connections and replaced servers, and keeps, checks and closes idle
//! connections.

mod ages;
mod events;
mod failover;
mod incidents;
mod stale;

use crate::pool::{LONG, shared};

//! What the pool does by itself: connections that ended while nobody looked, a server that was replaced, connections kept, checked and closed.

mod ages;
mod events;
mod failover;
mod incidents;
mod stale;

use crate::pool::{LONG, shared};

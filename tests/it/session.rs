//! The state of a session, from its beginning to the next caller.

mod ended;
mod reset;
mod server_timeouts;
mod start;
mod tenants;

use crate::pool::{LONG, shared};

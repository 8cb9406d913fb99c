//! The state of a session, from its begin to the next caller.

mod reset;
mod server_timeouts;
mod tenants;

use crate::pool::{LONG, shared};

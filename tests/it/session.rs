//! The state of a session, from its beginning to the next caller.

mod reset;
mod server_timeouts;
mod tenants;

use crate::pool::{LONG, shared};

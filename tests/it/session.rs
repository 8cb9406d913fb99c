//! The state of a session, from its begin to the next caller.

mod reset;
mod server_timeouts;

use crate::pool::{LONG, shared};

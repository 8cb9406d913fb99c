//! The nastiest things that happen to a connection, each made for real, by the numbers of `docs/failure-cases.md`. Bare deadpool-postgres
//! goes through the same, and its result is printed beside ours.

mod black_holes;
mod cancels;
pub(crate) mod deadpool;
mod endings;
mod leftovers;
mod migrations;
mod pgbouncer;
mod standby;
mod storms;
mod transactions;
mod types;
mod unknown;

use crate::pool::{LONG, shared};

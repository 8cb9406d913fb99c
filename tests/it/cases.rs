//! The nastiest things that happen to a connection, each made for real, by the numbers of `docs/failure-cases.md`. Bare deadpool-postgres
//! goes through the same, and its result is printed beside ours.

mod cancels;
mod deadpool;
mod leftovers;
mod migrations;
mod standby;
mod transactions;
mod unknown;

use crate::pool::{LONG, shared};

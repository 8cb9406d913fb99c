//! The nastiest faults of connections, each produced for real. The numbers are those of `docs/failure-cases.md`. Bare
//! deadpool-postgres runs through the same faults, and each test prints both results.

mod black_holes;
mod cancels;
pub(crate) mod deadpool;
mod endings;
mod leftovers;
mod migrations;
mod pgbouncer;
mod pooler;
mod standby;
mod storms;
mod transactions;
mod types;
mod unknown;

use crate::pool::{LONG, shared};

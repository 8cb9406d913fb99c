//! The nastiest things that happen to a connection, each made for real, by the numbers of `docs/failure-cases.md`.

mod leftovers;
mod transactions;

use crate::pool::{LONG, shared};

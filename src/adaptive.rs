//! Feature `fleet`: the limit of a pool follows the database.
//!
//! [`AdaptiveLimit`] shows the pool to the rules in `policy/adaptive` in each round of the maintenance, and does what
//! they decide (`control`). While leases take longer than usual, a task with a connection of its own asks what the
//! server's processes wait for (`asking`). [`PoolLimit`] is the one owner of the pool's limit: it combines the owner's
//! `max_size`, the budget of a fleet and this.

mod asking;
mod control;
mod limit;

pub(crate) use self::control::AdaptiveLimit;
pub(crate) use self::limit::PoolLimit;

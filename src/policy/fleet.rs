//! How processes that share a server divide its connections, without a coordinator.
//!
//! Each process is a [`Member`]. It shows a [`Beacon`] to all others, in the `application_name` of a connection of its
//! own, and reads theirs. From the same beacons and the same limits, all members compute the same [`shares`].
//!
//! One rule keeps the sum below the limit: a member claims connections in its beacon before it uses them, and claims
//! only what is free after all other claims. A member that is late, or cannot read, uses no more than it has claimed.

mod beacon;
mod growth;
mod member;
mod reading;
mod shares;
mod state;
mod strangers;

pub(crate) use self::beacon::Beacon;
pub(crate) use self::member::{Member, Own, Terms};
pub(crate) use self::reading::{Peer, Reading, Scope};
pub use self::state::FleetState;

#[cfg(test)]
mod tests;

//! Several servers of one database: which is the primary, and how old is what a replica shows?
//!
//! `topology` decides which server takes writes. `ring` bounds the lag of a replica by this process's own clock.
//! `fitness` keeps a replica that comes and goes out of use for a while. `spill` bounds the reads that move to the
//! primary. `trend` finds lag that an operator should know of. `position` is a place in the write-ahead log that
//! another process can wait for.

mod fitness;
mod looks;
mod lsn;
mod need;
mod position;
mod ring;
mod spill;
mod topology;
mod trend;

pub(crate) use fitness::Fitness;
pub(crate) use looks::Looks;
pub(crate) use lsn::Lsn;
pub(crate) use need::Need;
pub use position::{InvalidPosition, Position};
pub(crate) use ring::{History, Ring};
pub(crate) use spill::places;
pub(crate) use topology::{Look, Primacy, Sighting, Topology};
pub(crate) use trend::{Lag, Trend};

//! What a host of a cluster has to prove when a read has its connection. By then, the proof by which the read was sent
//! there may be too old: the read has waited, or the server has restarted behind its name.

use std::fmt;

use crate::error::Error;
use crate::policy::Need;

/// Knows what hosts have proven. The cluster is one.
pub(crate) trait Prover: Sync {
    /// Refuses a read if the host does not have what it needs at this moment.
    fn check(&self, host: usize, need: Need) -> Result<(), Error>;
}

#[derive(Clone, Copy)]
pub(crate) struct Gate<'a> {
    pub(crate) prover: &'a dyn Prover,
    pub(crate) host: usize,
    pub(crate) need: Need,
}

impl Gate<'_> {
    pub(super) fn check(self) -> Result<(), Error> {
        self.prover.check(self.host, self.need)
    }
}

impl fmt::Debug for Gate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("host", &self.host).field("need", &self.need).finish_non_exhaustive()
    }
}

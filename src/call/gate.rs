//! What a host of a cluster has to prove when a call has its connection. By then, the proof by which the call was sent
//! there may be too old: the call has waited, and meanwhile another host may have become the primary, or the server may
//! have restarted behind its name.
//!
//! A call has a reference to its gate, so that a call without a cluster is as small as possible. The gate is of one
//! call of the cluster, which makes one attempt after the other.

use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::Error;
use crate::policy::Need;

/// Knows what hosts have proven. The cluster is one.
pub(crate) trait Prover: Sync {
    /// Refuses a call if the host does not have what it needs at this moment. `None`: the host has to be the primary.
    fn check(&self, host: usize, need: Option<Need>) -> Result<(), Error>;
}

pub(crate) struct Gate<'a> {
    prover: &'a dyn Prover,
    need: Option<Need>,
    attempt: Mutex<Attempt>,
}

/// The attempt on one host.
#[derive(Debug, Clone, Copy, Default)]
struct Attempt {
    host: usize,
    /// How long the call may wait for its connection, if it has no deadline.
    wait: Duration,
    passage: Passage,
}

/// Whether the call has had its connection, so that something may have been sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Passage {
    #[default]
    Never,
    /// In an earlier attempt only.
    Earlier,
    /// In this attempt.
    Now,
}

impl<'a> Gate<'a> {
    pub(crate) fn new(prover: &'a dyn Prover, need: Option<Need>) -> Self {
        Self { prover, need, attempt: Mutex::default() }
    }

    /// An attempt on this host begins.
    pub(crate) fn on_attempt(&self, host: usize, wait: Duration) {
        let mut attempt = self.attempt.lock();
        let passage = if attempt.passage == Passage::Never { Passage::Never } else { Passage::Earlier };
        *attempt = Attempt { host, wait, passage };
    }

    /// Returns whether the attempt has had its connection.
    pub(crate) fn is_passed(&self) -> bool {
        self.attempt.lock().passage == Passage::Now
    }

    /// Returns whether this or an earlier attempt has had its connection.
    pub(crate) fn has_ever_passed(&self) -> bool {
        self.attempt.lock().passage != Passage::Never
    }

    pub(super) fn wait(&self) -> Duration {
        self.attempt.lock().wait
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let host = self.attempt.lock().host;
        self.prover.check(host, self.need)?;
        self.attempt.lock().passage = Passage::Now;
        Ok(())
    }
}

impl fmt::Debug for Gate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("need", &self.need).field("attempt", &*self.attempt.lock()).finish_non_exhaustive()
    }
}

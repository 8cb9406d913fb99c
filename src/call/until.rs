//! When a call has to be over: the argument of [`Call::deadline`](crate::Call::deadline).

use std::time::{Duration, Instant};

use tokio::time;

use crate::clock::now;
use crate::policy::Deadline;

/// The end of a call: a [`Duration`] from now, or an instant of `std` or tokio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until(Deadline);

impl Until {
    pub(crate) fn deadline(self) -> Deadline {
        self.0
    }
}

impl From<Duration> for Until {
    fn from(budget: Duration) -> Self {
        Self(Deadline::after(now(), budget))
    }
}

impl From<Instant> for Until {
    fn from(instant: Instant) -> Self {
        Self(Deadline::at(instant))
    }
}

impl From<time::Instant> for Until {
    fn from(instant: time::Instant) -> Self {
        Self(Deadline::at(instant.into_std()))
    }
}

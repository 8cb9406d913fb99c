//! One call's way through, and the only place that knows the order of its steps.
//!
//! So far: a deadline is fixed; an idle connection is taken; or else the caller waits in order, or is refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::conn::{Client, Dialer};
use crate::error::{Error, ShedReason};
use crate::policy::Deadline;
use crate::slots::{Refusal, Slots};
use crate::status::Status;

/// What every handle of one pool shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: Arc<str>,
    pub(crate) acquire_timeout: Duration,
    pub(crate) slots: Arc<Slots<Dialer>>,
}

impl Shared {
    pub(crate) async fn acquire(&self, timeout: Duration) -> Result<Client, Error> {
        if let Some(lease) = self.slots.try_acquire() {
            return Ok(Client::new(lease));
        }
        let deadline = Deadline::after(Instant::now().into_std(), timeout);
        match self.slots.acquire(deadline).await {
            Ok(lease) => Ok(Client::new(lease)),
            Err(Refusal::Closed) => Err(Error::Closed),
            Err(Refusal::QueueFull) => Err(Error::Shed {
                reason: ShedReason::QueueFull,
            }),
            Err(Refusal::Unreachable(source, retry_after)) => Err(Error::Connect { source, retry_after }),
            Err(Refusal::TimedOut) => Err(Error::AcquireTimeout {
                timeout,
                status: Box::new(self.status()),
                last_connect_error: self.slots.last_error(),
            }),
        }
    }

    pub(crate) fn try_acquire(&self) -> Result<Client, Error> {
        match self.slots.try_acquire() {
            Some(lease) => Ok(Client::new(lease)),
            None if self.slots.counts().closed => Err(Error::Closed),
            None => Err(Error::Shed {
                reason: ShedReason::NoneIdle,
            }),
        }
    }

    pub(crate) fn status(&self) -> Status {
        let counts = self.slots.counts();
        Status {
            name: Arc::clone(&self.name),
            max_size: counts.limit,
            in_use: counts.in_use,
            idle: counts.idle,
            dialing: counts.dialing,
            closing: counts.closing,
            waiting: counts.waiting,
            max_waiting: counts.max_waiting,
            closed: counts.closed,
        }
    }
}

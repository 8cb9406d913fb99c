//! Who holds a connection: the rules, as a synchronous state machine.
//!
//! A slot is the right to have one connection. It is in exactly one state:
//!
//! ```text
//!            begin_dials            place                 take, place
//!   (free) ─────────────▶ dialing ─────────▶ idle ◀──────────────────────▶ in use
//!      ▲                     │                 │                              │
//!      │      dial_failed    │                 │ close                retire  │
//!      ├─────────────────────┘                 ▼                              │
//!      └────────────────────────────────── closing ◀──────────────────────────┘
//!                   closed
//! ```
//!
//! Three rules hold after every transition, and the property test below checks them against a plain model:
//! the slots in all states never exceed the limit; nobody waits while a connection is idle; waiters are served in order.
//!
//! A transition only moves things and returns what is to be done. The shell (`super`) sends, wakes, drops and spawns after unlock.

use std::time::{Duration, Instant};

use super::queue::{Queue, WaiterId};
use crate::policy::Deadline;

/// Pause after the first failed dial. It doubles with every further failure.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// No pause is longer: a server that is back is found within about a second.
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// How many slots are in each state, and how many callers wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) limit: usize,
    pub(crate) dialing: usize,
    pub(crate) idle: usize,
    pub(crate) in_use: usize,
    pub(crate) closing: usize,
    pub(crate) waiting: usize,
    pub(crate) max_waiting: usize,
    pub(crate) closed: bool,
}

/// The bounds that a core keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_size: usize,
    pub(crate) max_waiting: usize,
    pub(crate) max_connecting: usize,
}

/// Why a caller may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Closed,
    QueueFull,
    /// Nothing is connected and the last dials failed; the next may begin after this long.
    Unreachable(Duration),
}

/// What became of a caller that asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entered<C> {
    Took(C),
    Waits(WaiterId),
}

/// What became of a connection, and who found its deadline past on the way.
#[derive(Debug)]
pub(crate) struct Placed<C, W> {
    pub(crate) to: Place<C, W>,
    pub(crate) expired: Vec<W>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place<C, W> {
    Waiter(W, C),
    Idle,
    /// To be closed; its slot is taken until [`Core::closed`].
    Closing(C),
}

/// Dials to begin now, and when to ask again if some are held up by the backoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dials {
    pub(crate) begin: usize,
    pub(crate) ask_again: Option<Instant>,
}

/// `C` is the connection, `W` the way to reach a waiter.
#[derive(Debug)]
pub(crate) struct Core<C, W> {
    limits: Limits,
    /// Freshest last.
    idle: Vec<C>,
    dialing: usize,
    in_use: usize,
    closing: usize,
    queue: Queue<W>,
    /// Failed dials since the last success; those of one burst count once.
    failures: u32,
    retry_at: Option<Instant>,
    /// The shell has been told to ask again.
    asked_again: bool,
    closed: bool,
}

impl<C, W> Core<C, W> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            idle: Vec::new(),
            dialing: 0,
            in_use: 0,
            closing: 0,
            queue: Queue::new(),
            failures: 0,
            retry_at: None,
            asked_again: false,
            closed: false,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            limit: self.limits.max_size,
            dialing: self.dialing,
            idle: self.idle.len(),
            in_use: self.in_use,
            closing: self.closing,
            waiting: self.queue.len(),
            max_waiting: self.limits.max_waiting,
            closed: self.closed,
        }
    }

    /// An idle connection, the freshest: it is the likeliest to be alive and to have warm caches.
    pub(crate) fn take(&mut self) -> Option<C> {
        let conn = self.idle.pop()?;
        self.in_use += 1;
        Some(conn)
    }

    /// Takes an idle connection, or joins the queue, or is refused.
    pub(crate) fn enter(
        &mut self,
        now: Instant,
        deadline: Deadline,
        waiter: impl FnOnce() -> W,
    ) -> Result<Entered<C>, Refused> {
        if self.closed {
            return Err(Refused::Closed);
        }
        if let Some(conn) = self.take() {
            return Ok(Entered::Took(conn));
        }
        if let Some(wait) = self.unreachable_for(now) {
            return Err(Refused::Unreachable(wait));
        }
        if self.queue.len() >= self.limits.max_waiting {
            return Err(Refused::QueueFull);
        }
        Ok(Entered::Waits(self.queue.push(waiter(), deadline)))
    }

    /// A waiter gives up. `None` if it has been served, or refused, meanwhile.
    pub(crate) fn leave(&mut self, id: WaiterId) -> Option<W> {
        self.queue.remove(id)
    }

    /// A lease ends and its connection is fit for the next.
    pub(crate) fn release(&mut self, now: Instant, conn: C) -> Placed<C, W> {
        self.in_use -= 1;
        self.place(now, conn)
    }

    /// A lease ends and its connection is not fit for anybody: it is to be closed.
    pub(crate) fn retire(&mut self) {
        self.in_use -= 1;
        self.closing += 1;
    }

    /// A connection being closed has ended.
    pub(crate) fn closed(&mut self) {
        self.closing -= 1;
    }

    /// How many dials are wanted, counted anew at each call so that none is made for nothing. They are under way from here on.
    pub(crate) fn begin_dials(&mut self, now: Instant) -> Dials {
        let begin = self.wanted_dials();
        if begin > 0 {
            if let Some(retry_at) = self.retry_at.filter(|retry_at| now < *retry_at) {
                let first = !self.asked_again;
                self.asked_again = true;
                return Dials {
                    begin: 0,
                    ask_again: first.then_some(retry_at),
                };
            }
        }
        self.dialing += begin;
        Dials { begin, ask_again: None }
    }

    /// The instant named by [`Dials::ask_again`] has come.
    pub(crate) fn asking_again(&mut self) {
        self.asked_again = false;
    }

    /// A dial has succeeded.
    pub(crate) fn dialed(&mut self, now: Instant, conn: C) -> Placed<C, W> {
        self.dialing -= 1;
        self.failures = 0;
        self.retry_at = None;
        self.place(now, conn)
    }

    /// A dial has failed. `jitter`, from 0 to 1, shortens the pause by up to half. Returns those who wait for nothing now.
    pub(crate) fn dial_failed(&mut self, now: Instant, jitter: f64) -> Vec<W> {
        self.dialing -= 1;
        if self.retry_at.is_none_or(|retry_at| retry_at <= now) {
            let pause = FIRST_BACKOFF
                .saturating_mul(1 << self.failures.min(10))
                .min(LONGEST_BACKOFF);
            self.failures += 1;
            self.retry_at = Some(now + pause.mul_f64(1.0 - jitter / 2.0));
        }
        if self.unreachable_for(now).is_some() {
            self.queue.drain()
        } else {
            Vec::new()
        }
    }

    /// A dial came to no end, through no fault of the server.
    pub(crate) fn dial_abandoned(&mut self) {
        self.dialing -= 1;
    }

    /// Nothing is served from now on. Returns the idle connections, to be closed, and everybody who waits.
    pub(crate) fn close(&mut self) -> (Vec<C>, Vec<W>) {
        self.closed = true;
        self.closing += self.idle.len();
        (std::mem::take(&mut self.idle), self.queue.drain())
    }

    fn place(&mut self, now: Instant, conn: C) -> Placed<C, W> {
        let mut expired = Vec::new();
        if self.closed {
            self.closing += 1;
            return Placed {
                to: Place::Closing(conn),
                expired,
            };
        }
        while let Some((waiter, deadline)) = self.queue.pop() {
            if deadline.has_passed(now) {
                expired.push(waiter);
                continue;
            }
            self.in_use += 1;
            return Placed {
                to: Place::Waiter(waiter, conn),
                expired,
            };
        }
        self.idle.push(conn);
        Placed {
            to: Place::Idle,
            expired,
        }
    }

    /// As many as there are waiters without one, as far as the limits allow; one at a time once they fail.
    fn wanted_dials(&self) -> usize {
        if self.closed {
            return 0;
        }
        let at_once = if self.failures == 0 {
            self.limits.max_connecting
        } else {
            1
        };
        let taken = self.dialing + self.idle.len() + self.in_use + self.closing;
        let waiting = self.queue.len().saturating_sub(self.dialing);
        let room = self.limits.max_size.saturating_sub(taken);
        waiting.min(room).min(at_once.saturating_sub(self.dialing))
    }

    /// Set while nothing is connected, nothing is being dialed, and the next dial is not due yet.
    pub(crate) fn unreachable_for(&self, now: Instant) -> Option<Duration> {
        if self.idle.len() + self.in_use + self.dialing > 0 {
            return None;
        }
        let wait = self.retry_at?.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }
}

#[cfg(test)]
mod tests;

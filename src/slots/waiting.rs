//! A place in the queue.

use std::sync::Arc;

use tokio::sync::oneshot::{self, error::RecvError};

use super::core::{Entered, Refused};
use super::queue::WaiterId;
use super::{Dial, Lease, Refusal, Slots, now};
use crate::policy::Patience;

type Answer<D> = Result<Lease<D>, Refusal<<D as Dial>::Error>>;

/// What became of a caller.
pub(super) enum Entry<D: Dial> {
    Took(Lease<D>),
    Waits(Waiting<D>),
}

/// Given up when dropped. What was handed to it and not fetched goes to the next.
pub(super) struct Waiting<D: Dial> {
    /// `None` once answered.
    id: Option<WaiterId>,
    answer: oneshot::Receiver<Answer<D>>,
    slots: Arc<Slots<D>>,
}

impl<D: Dial> Waiting<D> {
    /// `place` is that of a caller that waited before, and got nothing of use.
    pub(super) fn enter(
        slots: &Arc<Slots<D>>,
        patience: Patience,
        place: Option<WaiterId>,
    ) -> Result<Entry<D>, Refusal<D::Error>> {
        let mut answer = None;
        let waiter = || {
            let (waiter, receiver) = oneshot::channel();
            answer = Some(receiver);
            waiter
        };
        let mut state = slots.lock();
        let entered = match place {
            None => state.core.enter(now(), patience, waiter),
            Some(place) => state.core.enter_again(now(), patience, place, waiter),
        };
        match (entered, answer) {
            (Ok(Entered::Took(held)), _) => {
                drop(state);
                Ok(Entry::Took(Lease::new(slots, held)))
            }
            (Ok(Entered::Waits(id)), Some(answer)) => {
                let begin = state.begin_dials();
                drop(state);
                let waiting = Self { id: Some(id), answer, slots: Arc::clone(slots) };
                slots.dial(begin);
                Ok(Entry::Waits(waiting))
            }
            (Ok(Entered::Waits(_)), None) => unreachable!("the core makes a waiter of whoever waits"),
            (Err(why), _) => {
                drop(state);
                if let Refused::QueueFull(_) = why {
                    slots.dial_ahead();
                }
                Err(slots.explain(why))
            }
        }
    }

    /// The place in the queue.
    pub(super) fn place(&self) -> Option<WaiterId> {
        self.id
    }

    /// Resolves when it is served or refused.
    pub(super) fn answer(&mut self) -> &mut oneshot::Receiver<Answer<D>> {
        &mut self.answer
    }

    /// What came of it: an answer, or the deadline passed. `None` if it was told to enter again.
    pub(super) fn settled<L>(mut self, answer: Result<Result<Answer<D>, RecvError>, L>) -> Option<Answer<D>> {
        match answer {
            Ok(answer) => {
                self.id = None;
                answer.ok()
            }
            Err(_) => {
                self.leave();
                // Handed over in the very instant in which the deadline passed: better served than refused.
                Some(self.answer.try_recv().unwrap_or(Err(Refusal::TimedOut)))
            }
        }
    }

    fn leave(&mut self) {
        if let Some(id) = self.id.take() {
            let waiter = self.slots.lock().core.leave(now(), id);
            drop(waiter);
        }
    }
}

impl<D: Dial> Drop for Waiting<D> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<D: Dial> Slots<D> {
    /// The core's reason, with the error that belongs to it.
    pub(super) fn explain(&self, why: Refused) -> Refusal<D::Error> {
        match why {
            Refused::Closed => Refusal::Closed,
            Refused::Expired => Refusal::TimedOut,
            Refused::QueueFull(retry_after) => Refusal::QueueFull(retry_after),
            Refused::Hopeless(retry_after) => Refusal::Hopeless(retry_after),
            Refused::TooLate(retry_after) => Refusal::TooLate(retry_after),
            Refused::Overloaded(retry_after) => Refusal::Overloaded(retry_after),
            Refused::Unreachable(wait) => Refusal::Unreachable(self.last_error().unwrap_or_else(D::abandoned), wait),
        }
    }
}

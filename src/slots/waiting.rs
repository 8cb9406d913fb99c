//! A caller that waits: the future of its answer.
//!
//! The waiter's mailbox lies in the queue, and its waker in the mailbox. The thread that takes the mailbox out of the
//! queue puts an answer into it and wakes the waiter. A waiter that is dismissed enters again, in its old place, unless
//! its time is up. So no wake-up is lost, and an answer always arrives.
//!
//! Wakers are foreign code: none is cloned, woken or dropped under a lock.

use std::cell::LazyCell;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::clocks::Alarm;
use super::core::{Entered, Refusal};
use super::mailbox::{Found, Mailbox};
use super::queue::WaiterId;
use super::traits::Dial;
use super::{Answer, Lease, Slots, Waiter};
use crate::clock::now;
use crate::policy::{Deadline, ShedReason, WaitPolicy};

/// A runtime that loses this many new clocks in a row is shutting down.
const MOST_LOST_CLOCKS: usize = 8;

/// The future of a waiter's answer. Dropping it gives up the place in the queue. A connection that was handed over and
/// not fetched goes to the next waiter.
#[must_use = "futures do nothing unless awaited"]
pub(crate) struct Waiting<'a, D: Dial> {
    slots: &'a Arc<Slots<D>>,
    wait_policy: WaitPolicy,
    stage: Stage<D>,
}

enum Stage<D: Dial> {
    /// The caller asked at this instant, and has not entered yet.
    Asked(Instant),
    /// The caller is in the queue, or was.
    Waits(WaiterId, Waiter<D>),
    Answered,
}

/// What becomes of a caller that enters.
enum Entry<D: Dial> {
    Took(Lease<D>),
    Waits,
    /// The deadline has passed, or no clock watches it.
    LooksAgain,
}

impl<D: Dial> Slots<D> {
    /// Takes an idle connection, or the first one that is released or dialed for this caller. Waiters are served in
    /// order of arrival.
    ///
    /// Dropping the future gives up the place in the queue. A connection that was just handed over goes to the next.
    pub(crate) fn acquire(self: &Arc<Self>, asked: Instant, wait_policy: WaitPolicy) -> Waiting<'_, D> {
        Waiting { slots: self, wait_policy, stage: Stage::Asked(asked) }
    }
}

impl<D: Dial> Waiting<'_, D> {
    pub(crate) fn deadline(&self) -> Deadline {
        self.wait_policy.deadline
    }

    fn advance(&mut self, waker: &Waker) -> Poll<Answer<D>> {
        let mut lost_clocks = 0;
        loop {
            let found = if let Stage::Waits(_, mailbox) = &self.stage { Some(mailbox.look(waker)) } else { None };
            let mut lease = match found {
                Some(Found::Answer(answer)) => answer?,
                Some(Found::Nothing | Found::Dismissal) if self.wait_policy.deadline.has_passed(now()) => {
                    match self.leave() {
                        // The connection came in the instant in which the deadline passed: take it.
                        Some(answer) => answer?,
                        None => return Poll::Ready(Err(Refusal::TimedOut)),
                    }
                }
                Some(Found::Nothing) => return Poll::Pending,
                Some(Found::Dismissal) if lost_clocks == MOST_LOST_CLOCKS => {
                    return Poll::Ready(Err(Refusal::Unreachable(D::abandoned(), Duration::ZERO)));
                }
                Some(Found::Dismissal) | None => match self.enter(waker.clone())? {
                    Entry::Took(lease) => lease,
                    Entry::Waits => return Poll::Pending,
                    Entry::LooksAgain => {
                        lost_clocks += 1;
                        continue;
                    }
                },
            };
            if lease.is_usable() {
                lease.prove();
                return Poll::Ready(Ok(lease));
            }
            // Dropping an unusable lease retires its connection. The next one may be alive.
        }
    }

    fn enter(&mut self, waker: Waker) -> Result<Entry<D>, Refusal<D::Error>> {
        let (slots, wait_policy) = (self.slots, self.wait_policy);
        // The id, not the handle: all threads count its clones, and it would be dropped under the lock.
        let runtime = Handle::try_current().ok().map(|runtime| runtime.id());
        // A caller that is refused needs none.
        let mailbox = LazyCell::new(|| Arc::new(Mailbox::new(waker)));
        let now = if let Stage::Asked(asked) = self.stage { asked } else { now() };
        let mut state = slots.lock();
        let entered = match self.stage {
            Stage::Waits(id, _) => state.core.enter_again(now, wait_policy, id, || Arc::clone(&mailbox)),
            Stage::Asked(_) | Stage::Answered => state.core.enter(now, wait_policy, || Arc::clone(&mailbox)),
        };
        match entered {
            Ok(Entered::Took(held)) => {
                drop(state);
                Ok(Entry::Took(Lease::new(Arc::clone(slots), held)))
            }
            Ok(Entered::Waits(id)) => {
                self.stage = Stage::Waits(id, Arc::clone(&mailbox));
                let alarm =
                    runtime.map_or(Alarm::NoClock, |runtime| state.add_deadline(runtime, wait_policy.deadline, id));
                let check = state.core.begin_due_check(now);
                let begin = state.begin_dials(now);
                let may_owe = state.core.may_owe();
                drop(state);
                slots.spawn_check(check);
                slots.dial(begin);
                if may_owe {
                    slots.hand_idle();
                }
                let is_watched = match alarm {
                    Alarm::Set => true,
                    Alarm::Ring(bell) => {
                        bell.notify_one();
                        true
                    }
                    Alarm::NoClock => slots.begin_clock(wait_policy.deadline, id),
                };
                Ok(if is_watched && !wait_policy.deadline.has_passed(now) { Entry::Waits } else { Entry::LooksAgain })
            }
            Err(refusal) => {
                let refusal = state.explain(refusal);
                drop(state);
                if let Refusal::Shed(ShedReason::QueueFull, _) = refusal {
                    slots.dial_ahead(wait_policy.lane);
                }
                Err(refusal)
            }
        }
    }

    /// Leaves the queue. Returns the answer if there is one already.
    fn leave(&mut self) -> Option<Answer<D>> {
        let Stage::Waits(id, mailbox) = mem::replace(&mut self.stage, Stage::Answered) else { return None };
        let mut state = self.slots.lock();
        if state.core.leave(id).is_some() {
            state.tidy_clocks();
        }
        drop(state);
        mailbox.shut()
    }
}

impl<D: Dial> Future for Waiting<'_, D> {
    type Output = Answer<D>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let answer = this.advance(context.waker());
        if answer.is_ready() {
            this.stage = Stage::Answered;
        }
        answer
    }
}

impl<D: Dial> Drop for Waiting<'_, D> {
    fn drop(&mut self) {
        // Dropping a lease here gives its connection to the next waiter.
        drop(self.leave());
    }
}

//! A caller that waits: the future of its answer.
//!
//! Its mailbox lies in the queue, and its waker in the mailbox. Who takes it out of there leaves an answer and wakes it; one that is dismissed enters again, in
//! its old place, unless its time is up. So a wake-up cannot be lost, and an answer always arrives.
//!
//! Wakers are foreign code: none is cloned, woken or dropped under a lock.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::clock::Alarm;
use super::core::Entered;
use super::mailbox::{Answer, Found, Mailbox};
use super::queue::WaiterId;
use super::{Dial, Lease, Refusal, Slots, State};
use crate::clock::now;
use crate::policy::{Deadline, ShedReason, WaitPolicy};

/// A runtime is shutting down if it has lost so many clocks in a row, each as soon as it was begun.
const CLOCKS: usize = 8;

/// Its place in the queue is given up when it is dropped. What was handed to it and not fetched goes to the next.
#[must_use = "futures do nothing unless awaited"]
pub(crate) struct Waiting<'a, D: Dial> {
    slots: &'a Arc<Slots<D>>,
    wait_policy: WaitPolicy,
    stage: Stage<D>,
}

enum Stage<D: Dial> {
    Asked(Instant),
    /// Is in the queue, or was.
    Waits(WaiterId, Arc<Mailbox<D>>),
    Answered,
}

/// What becomes of one that enters.
enum Entry<D: Dial> {
    Took(Lease<D>),
    Waits,
    /// It is too late, or there is nobody to keep its deadline.
    LooksAgain,
}

impl<'a, D: Dial> Waiting<'a, D> {
    pub(super) fn new(slots: &'a Arc<Slots<D>>, asked: Instant, wait_policy: WaitPolicy) -> Self {
        Self { slots, wait_policy, stage: Stage::Asked(asked) }
    }

    pub(crate) fn deadline(&self) -> Deadline {
        self.wait_policy.deadline
    }

    fn advance(&mut self, waker: &Waker) -> Poll<Result<Lease<D>, Refusal<D::Error>>> {
        let mut in_vain = 0;
        loop {
            let found = if let Stage::Waits(_, mailbox) = &self.stage { Some(mailbox.look(waker)) } else { None };
            let mut lease = match found {
                Some(Found::Answer(answer)) => answer?,
                Some(Found::Nothing | Found::Dismissal) if self.wait_policy.deadline.has_passed(now()) => {
                    match self.leave() {
                        // Handed over in the very instant in which the deadline passed: better served than refused.
                        Some(answer) => answer?,
                        None => return Poll::Ready(Err(Refusal::TimedOut)),
                    }
                }
                Some(Found::Nothing) => return Poll::Pending,
                Some(Found::Dismissal) if in_vain == CLOCKS => {
                    return Poll::Ready(Err(Refusal::Unreachable(D::abandoned(), Duration::ZERO)));
                }
                Some(Found::Dismissal) | None => match self.enter(waker.clone())? {
                    Entry::Took(lease) => lease,
                    Entry::Waits => return Poll::Pending,
                    Entry::LooksAgain => {
                        in_vain += 1;
                        continue;
                    }
                },
            };
            if lease.is_usable() {
                lease.prove();
                return Poll::Ready(Ok(lease));
            }
            // Dropping an unusable one retires it; the next may be alive.
        }
    }

    fn enter(&mut self, waker: Waker) -> Result<Entry<D>, Refusal<D::Error>> {
        let (slots, wait_policy) = (self.slots, self.wait_policy);
        // Not the handle, which all threads count: it would be dropped under the lock.
        let runtime = Handle::try_current().ok().map(|runtime| runtime.id());
        let mailbox = Arc::new(Mailbox::new(waker));
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
                self.stage = Stage::Waits(id, mailbox);
                let kept = runtime.map_or(Alarm::NoClock, |runtime| state.keep(runtime, wait_policy.deadline, id));
                let check = state.core.begin_due_check(now);
                let begin = state.begin_dials(now);
                drop(state);
                slots.spawn_check(check);
                slots.dial(begin);
                let is_kept = match kept {
                    Alarm::Already => true,
                    Alarm::Ring(bell) => {
                        bell.notify_one();
                        true
                    }
                    Alarm::NoClock => slots.begin_clock(wait_policy.deadline, id),
                };
                Ok(if is_kept && !wait_policy.deadline.has_passed(now) { Entry::Waits } else { Entry::LooksAgain })
            }
            Err(why) => {
                let refusal = state.explain(why);
                drop(state);
                if let Refusal::Shed(ShedReason::QueueFull, _) = why {
                    slots.dial_ahead();
                }
                Err(refusal)
            }
        }
    }

    /// Out of the queue, with the answer if there is one.
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
    type Output = Result<Lease<D>, Refusal<D::Error>>;

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
        // A lease goes to the next.
        drop(self.leave());
    }
}

impl<D: Dial> State<D> {
    /// The core's reason, with the error that belongs to it.
    pub(super) fn explain(&self, why: Refusal) -> Refusal<D::Error> {
        why.with_error(|| self.known_error().unwrap_or_else(D::abandoned))
    }
}

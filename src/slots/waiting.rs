//! A caller that waits: the future of its answer.
//!
//! Its waker lies in the queue. Who takes it out of there leaves an answer in the table first, under the same lock, and wakes it after unlock; one that
//! finds itself neither in the queue nor answered was told to enter again, or its time is up. So a wake-up cannot be lost, and an answer always arrives.
//!
//! Wakers are foreign code: none is cloned, woken or dropped under the lock.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::clock::Kept;
use super::core::{Entered, Held, Refused};
use super::queue::WaiterId;
use super::{Answer, Connection, Dial, Lease, Refusal, Slots, State, now};
use crate::policy::Patience;

/// A runtime is shutting down if it has lost so many clocks in a row, each as soon as it was begun.
const CLOCKS: usize = 8;

/// Its place in the queue is given up when it is dropped. What was handed to it and not fetched goes to the next.
#[must_use = "futures do nothing unless awaited"]
pub(crate) struct Waiting<'a, D: Dial> {
    slots: &'a Arc<Slots<D>>,
    patience: Patience,
    stage: Stage,
}

enum Stage {
    Asked(Instant),
    /// Is in the queue, or was.
    Waits(WaiterId),
    Answered,
}

/// What a waiter finds when it looks.
enum Found<D: Dial> {
    Answer(Answer<D>),
    /// It is still in the queue.
    Nothing,
    /// It is no longer in the queue.
    Dismissal,
}

/// What becomes of one that enters.
enum Entry<D: Dial> {
    Took(Held<D::Conn>),
    Waits,
    /// It is too late, or there is nobody to keep its deadline.
    LooksAgain,
}

impl<'a, D: Dial> Waiting<'a, D> {
    pub(super) fn new(slots: &'a Arc<Slots<D>>, asked: Instant, patience: Patience) -> Self {
        Self { slots, patience, stage: Stage::Asked(asked) }
    }

    fn place(&self) -> Option<WaiterId> {
        if let Stage::Waits(id) = self.stage { Some(id) } else { None }
    }

    fn advance(&mut self, waker: &Waker) -> Poll<Result<Lease<D>, Refusal<D::Error>>> {
        let mut in_vain = 0;
        loop {
            let held = match self.place().map(|id| self.look(id, waker)) {
                Some(Found::Answer(answer)) => answer?,
                Some(Found::Nothing | Found::Dismissal) if self.patience.deadline.has_passed(now()) => {
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
                    Entry::Took(held) => held,
                    Entry::Waits => return Poll::Pending,
                    Entry::LooksAgain => {
                        in_vain += 1;
                        continue;
                    }
                },
            };
            let mut lease = Lease::new(self.slots, held);
            if lease.is_usable() {
                lease.prove();
                return Poll::Ready(Ok(lease));
            }
            // Dropping an unusable one retires it; the next may be alive.
        }
    }

    fn look(&self, id: WaiterId, waker: &Waker) -> Found<D> {
        let mut spare = None;
        loop {
            let mut state = self.slots.lock();
            if let Some(answer) = state.fetch(id) {
                return Found::Answer(answer);
            }
            let Some(known) = state.core.waiter(id) else { return Found::Dismissal };
            if known.will_wake(waker) {
                return Found::Nothing;
            }
            if let Some(new) = spare.take() {
                let old = mem::replace(known, new);
                drop(state);
                drop(old);
                return Found::Nothing;
            }
            drop(state);
            spare = Some(waker.clone());
        }
    }

    fn enter(&mut self, waker: Waker) -> Result<Entry<D>, Refusal<D::Error>> {
        let (slots, patience) = (self.slots, self.patience);
        let runtime = Handle::try_current().ok();
        let mut waker = Some(waker);
        let take_waker = || waker.take().unwrap_or_else(|| Waker::noop().clone());
        let now = if let Stage::Asked(asked) = self.stage { asked } else { now() };
        let mut state = slots.lock();
        let entered = match self.place() {
            None => state.core.enter(now, patience, take_waker),
            Some(id) => state.core.enter_again(now, patience, id, take_waker),
        };
        match entered {
            Ok(Entered::Took(held)) => Ok(Entry::Took(held)),
            Ok(Entered::Waits(id)) => {
                self.stage = Stage::Waits(id);
                let kept = runtime.map_or(Kept::NoClock, |runtime| state.keep(runtime.id(), patience.deadline, id));
                let begin = state.begin_dials(now);
                drop(state);
                slots.dial(begin);
                let is_kept = match kept {
                    Kept::Already => true,
                    Kept::Ring(bell) => {
                        bell.notify_one();
                        true
                    }
                    Kept::NoClock => slots.begin_clock(patience.deadline, id),
                };
                Ok(if is_kept && !patience.deadline.has_passed(now) { Entry::Waits } else { Entry::LooksAgain })
            }
            Err(why) => {
                let refusal = state.explain(why);
                drop(state);
                if let Refused::QueueFull(_) = why {
                    slots.dial_ahead();
                }
                Err(refusal)
            }
        }
    }

    /// Out of the queue, with the answer if there is one.
    fn leave(&mut self) -> Option<Answer<D>> {
        let id = self.place()?;
        self.stage = Stage::Answered;
        let mut state = self.slots.lock();
        let waker = state.core.leave(now(), id);
        let answer = if waker.is_some() {
            state.tidy_clocks();
            None
        } else {
            state.fetch(id)
        };
        drop(state);
        drop(waker);
        answer
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
        if let Some(Ok(held)) = self.leave() {
            self.slots.release(held);
        }
    }
}

impl<D: Dial> State<D> {
    /// The core's reason, with the error that belongs to it.
    pub(super) fn explain(&self, why: Refused) -> Refusal<D::Error> {
        match why {
            Refused::Closed => Refusal::Closed,
            Refused::Expired => Refusal::TimedOut,
            Refused::QueueFull(retry_after) => Refusal::QueueFull(retry_after),
            Refused::Hopeless(retry_after) => Refusal::Hopeless(retry_after),
            Refused::TooLate(retry_after) => Refusal::TooLate(retry_after),
            Refused::Overloaded(retry_after) => Refusal::Overloaded(retry_after),
            Refused::Unreachable(wait) => Refusal::Unreachable(self.known_error().unwrap_or_else(D::abandoned), wait),
        }
    }
}

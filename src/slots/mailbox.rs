//! Where a waiter's answer lies until the waiter fetches it, and the waiter's waker until then.
//!
//! The queue and the waiter share the mailbox. The thread that takes a waiter out of the queue puts the answer into the
//! mailbox after it has unlocked the slots: a lease, a refusal, or the order to enter again. So neither putting nor
//! fetching an answer needs the lock of the slots. A waiter that leaves in between shuts its mailbox. An answer that
//! comes later is dropped, and a lease in it goes to the next waiter.
//!
//! Wakers are foreign code: none is cloned, woken or dropped under the mailbox's own lock. No answer is dropped there
//! either.

use std::mem;
use std::task::Waker;

use parking_lot::Mutex;

/// A mailbox for one answer of type `A`.
pub(super) struct Mailbox<A>(Mutex<Mail<A>>);

enum Mail<A> {
    /// There is no answer yet. An answer wakes this waker.
    Awaited(Waker),
    Answer(A),
    /// The waiter is to enter again, or its time is up.
    Dismissal,
    /// The waiter no longer looks.
    Shut,
}

/// What a waiter finds when it looks.
pub(super) enum Found<A> {
    Answer(A),
    Nothing,
    /// The waiter is no longer in the queue.
    Dismissal,
}

impl<A> Mailbox<A> {
    pub(super) fn new(waker: Waker) -> Self {
        Self(Mutex::new(Mail::Awaited(waker)))
    }

    pub(super) fn put_answer(&self, answer: A) {
        self.put(Mail::Answer(answer));
    }

    pub(super) fn dismiss(&self) {
        self.put(Mail::Dismissal);
    }

    fn put(&self, mail: Mail<A>) {
        let mut place = self.0.lock();
        if let Mail::Awaited(_) = *place {
            let before = mem::replace(&mut *place, mail);
            drop(place);
            if let Mail::Awaited(waker) = before {
                waker.wake();
            }
        }
        // Otherwise the waiter no longer looks: the function drops `mail` after the lock.
    }

    /// Fetches the answer. If there is none yet, the next one wakes `waker`.
    pub(super) fn look(&self, waker: &Waker) -> Found<A> {
        let mut clone = None;
        loop {
            let mut place = self.0.lock();
            let known = match &mut *place {
                Mail::Awaited(known) => known,
                Mail::Answer(_) => return Self::found(mem::replace(&mut *place, Mail::Shut)),
                Mail::Dismissal | Mail::Shut => return Found::Dismissal,
            };
            if known.will_wake(waker) {
                return Found::Nothing;
            }
            if let Some(new) = clone.take() {
                let old = mem::replace(known, new);
                drop(place);
                drop(old);
                return Found::Nothing;
            }
            drop(place);
            clone = Some(waker.clone());
        }
    }

    /// Fetches the answer if there is one. The mailbox accepts no other.
    pub(super) fn shut(&self) -> Option<A> {
        let before = mem::replace(&mut *self.0.lock(), Mail::Shut);
        if let Mail::Answer(answer) = before { Some(answer) } else { None }
    }

    fn found(mail: Mail<A>) -> Found<A> {
        if let Mail::Answer(answer) = mail { Found::Answer(answer) } else { Found::Dismissal }
    }
}

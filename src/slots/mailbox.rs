//! Where a waiter's answer lies until the waiter fetches it, and its waker until then.
//!
//! The queue keeps a waiter's mailbox, and so does the waiter. Whoever takes it out of the queue tells the waiter after unlock: gives it a lease, or
//! refuses it, or sends it back to enter again. So neither telling nor fetching needs the lock that all fight for. One that leaves in
//! between shuts its mailbox: what it is told then is dropped, and a lease goes to the next.
//!
//! Wakers are foreign code: none is cloned, woken or dropped under the mailbox's own lock. Neither is a lease.

use std::mem;
use std::task::Waker;

use parking_lot::Mutex;

use super::{Dial, Lease, Refusal};

/// What a waiter is told.
pub(super) type Answer<D> = Result<Lease<D>, Refusal<<D as Dial>::Error>>;

pub(super) struct Mailbox<D: Dial>(Mutex<Mail<D>>);

enum Mail<D: Dial> {
    /// Nothing yet; this one is to be woken.
    Awaited(Waker),
    Answer(Answer<D>),
    /// It is to enter again, or its time is up.
    Dismissal,
    /// Nobody will look.
    Shut,
}

/// What a waiter finds when it looks.
pub(super) enum Found<D: Dial> {
    Answer(Answer<D>),
    Nothing,
    /// It is no longer in the queue.
    Dismissal,
}

impl<D: Dial> Mailbox<D> {
    pub(super) fn new(waker: Waker) -> Self {
        Self(Mutex::new(Mail::Awaited(waker)))
    }

    pub(super) fn tell(&self, answer: Answer<D>) {
        self.put(Mail::Answer(answer));
    }

    pub(super) fn dismiss(&self) {
        self.put(Mail::Dismissal);
    }

    fn put(&self, mail: Mail<D>) {
        let mut place = self.0.lock();
        if let Mail::Awaited(_) = *place {
            let before = mem::replace(&mut *place, mail);
            drop(place);
            if let Mail::Awaited(waker) = before {
                waker.wake();
            }
        }
        // Otherwise nobody will look: what it was told is dropped, after unlock.
    }

    /// Fetches what there is. If there is nothing, `waker` is the one to be woken.
    pub(super) fn look(&self, waker: &Waker) -> Found<D> {
        let mut spare = None;
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
            if let Some(new) = spare.take() {
                let old = mem::replace(known, new);
                drop(place);
                drop(old);
                return Found::Nothing;
            }
            drop(place);
            spare = Some(waker.clone());
        }
    }

    /// Fetches the answer if there is one. Nobody will look again.
    pub(super) fn shut(&self) -> Option<Answer<D>> {
        let before = mem::replace(&mut *self.0.lock(), Mail::Shut);
        if let Mail::Answer(answer) = before { Some(answer) } else { None }
    }

    fn found(mail: Mail<D>) -> Found<D> {
        if let Mail::Answer(answer) = mail { Found::Answer(answer) } else { Found::Dismissal }
    }
}

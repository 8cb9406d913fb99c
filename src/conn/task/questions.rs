//! A question to the task that drives a connection: is everything at rest?
//!
//! Only the task can tell, because requests may wait in the driver's channel until it polls. Questions are numbered, and the task notes
//! the last one that had been asked when it found everything at rest: there is nothing to queue, and nothing to withdraw.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(crate) struct Questions {
    asked: AtomicU64,
    /// The last one to which the answer is known to be yes.
    answered: AtomicU64,
    is_over: AtomicBool,
    told: Notify,
    task: AtomicWaker,
}

impl Questions {
    /// Resolves when the task has found everything at rest, after this was asked; with `false` if it has ended.
    pub(crate) async fn ask(&self) -> bool {
        let question = self.asked.fetch_add(1, AcqRel) + 1;
        self.wake();
        loop {
            let told = self.told.notified(); // from here on, nothing is missed
            if self.answered.load(Acquire) >= question {
                return true;
            }
            if self.is_over.load(Acquire) {
                return false;
            }
            told.await;
        }
    }

    pub(crate) fn wake(&self) {
        self.task.wake();
    }

    /// The task looks at what there is to do. Returns the last question that this can answer.
    pub(crate) fn last(&self, task: &Waker) -> u64 {
        self.task.register(task);
        self.asked.load(Acquire)
    }

    /// Everything is at rest, and was looked at after `question` had been asked.
    pub(crate) fn answer(&self, question: u64) {
        if self.answered.load(Acquire) < question {
            self.answered.store(question, Release);
            self.told.notify_waiters();
        }
    }

    /// There is nobody left to answer.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Release);
        self.told.notify_waiters();
    }
}

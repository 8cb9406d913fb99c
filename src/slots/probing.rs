//! A look at the server while callers are held back: does it answer?

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::time;

use super::core::Begin;
use super::{Connection, Dial, Slots};
use crate::clock::now;

/// What a look at the server has shown so far.
#[derive(Debug)]
pub(crate) enum Look {
    Answers,
    Silent,
    /// A dial was begun. Whoever dials reports how it ends.
    Dials,
    /// There was no way to look: a dial is under way that may still tell, or there is room for no other.
    Nothing,
}

impl<D: Dial> Slots<D> {
    /// Asks on an idle connection; if there is none, begins a dial in a slot of its own. A connection that gives no answer for as long as a dial may
    /// take is closed, and so are the other idle ones: they are as old.
    pub(crate) async fn look(self: &Arc<Self>) -> Look {
        if let Some(lease) = self.borrow() {
            let answers = time::timeout(self.dial.answer_limit(), lease.ping()).await == Ok(true);
            if answers {
                return Look::Answers;
            }
            lease.discard();
            let idle = self.lock().core.close_idle(now());
            self.close_all(idle);
            return Look::Silent;
        }
        let Ok(runtime) = Handle::try_current() else { return Look::Nothing };
        let Some(number) = self.lock().core.begin_probe(now()) else { return Look::Nothing };
        self.dial(Some((Begin { dials: number..number + 1, ask_again: None }, runtime)));
        Look::Dials
    }
}

//! Checks the server while the circuit is open: does it answer?

use std::sync::Arc;

use tokio::time;

use super::Slots;
use super::core::Begin;
use super::traits::{Connection, Dial};
use crate::clock::now;

/// The result of a check of the server.
#[derive(Debug)]
pub(crate) enum ServerCheck {
    Answers,
    Silent,
    /// A dial began. It reports by itself how it ends.
    Dials,
    /// No check was possible: a dial is under way already, or no slot is free.
    Nothing,
}

impl<D: Dial> Slots<D> {
    /// Pings the server on an idle connection. If none is idle, begins a dial in a slot of its own.
    ///
    /// If the server does not answer within [`Dial::answer_limit`], the pool closes this connection and the other idle
    /// ones, which are as old.
    pub(crate) async fn check_server(self: &Arc<Self>) -> ServerCheck {
        if let Some(lease) = self.borrow() {
            let answers = time::timeout(self.dial.answer_limit(), lease.ping()).await == Ok(true);
            if answers {
                return ServerCheck::Answers;
            }
            lease.discard();
            let idle = self.lock().core.close_idle(now());
            self.close_all(idle);
            return ServerCheck::Silent;
        }
        let mut state = self.lock();
        state.remember_runtime();
        let Some(runtime) = state.runtime.clone() else { return ServerCheck::Nothing };
        let Some(number) = state.core.begin_check(now()) else { return ServerCheck::Nothing };
        drop(state);
        self.dial(Some((Begin { dials: number..number + 1, ask_again: None }, runtime)));
        ServerCheck::Dials
    }
}

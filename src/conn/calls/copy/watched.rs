//! The deadline of a copy to the server, which holds even if nobody polls the copy.

use std::time::{Duration, Instant};

use super::{Copying, State};
use crate::conn::calls::in_flight::InFlightCall;
use crate::conn::calls::watcher::{Look, Watched};

/// How often the watcher looks at a copy whose deadline has passed, until the step that is being polled has ended.
const SECOND: Duration = Duration::from_secs(1);

impl<T> Watched for Copying<T>
where
    T: Send + 'static,
{
    /// Aborts the copy at the deadline of its call, unless a step is being polled. That has the same deadline.
    fn look(&self, now: Instant, _: bool) -> Option<Look> {
        let deadline = self.deadline?;
        if now < deadline {
            return Some(Look { again: deadline, held_until: None });
        }
        let mut state = self.state.lock();
        let waker = match &*state {
            State::Open(open) => open.wait.as_ref().map(|(_, waker)| waker.clone()),
            State::Taken => return Some(Look { again: now + SECOND, held_until: None }),
            State::Failing(_) | State::Ending(_) | State::TimedOut(_) | State::Over => return None,
        };
        // If a step waits, the server takes no data. Otherwise the caller sends none.
        let end = if waker.is_some() { InFlightCall::timed_out } else { InFlightCall::caller_timed_out };
        let State::Open(open) = self.replace_in(&mut state, State::Ending(waker)) else { return None };
        drop(state);
        let error = open.ended(end);
        // If the owner has dropped the copy or its step meanwhile, nobody waits.
        if let State::Ending(Some(waker)) = self.replace(State::TimedOut(error)) {
            waker.wake();
        }
        None
    }

    fn is_unread(&self) -> bool {
        false
    }
}

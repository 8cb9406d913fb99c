//! The look at the server while the circuit is open.
//!
//! When the circuit opens, whoever waits is told so, and nothing more is dialed. Then the server is looked at at once, and once a second after that: on
//! an idle connection, or by a dial, which has all of `connect_timeout`. While a dial may still tell, no other is begun; beside a quiet one the next is. If what opened the circuit was that the server could not be reached, the first answer lets
//! callers probe it, long before the reset timeout; else that is waited out, for a server that answers may still fail its callers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};

use super::Maintenance;
use crate::breaker::State;
use crate::conn::{Dialer, OutcomeRecorder};
use crate::slots::{Look, Slots};

/// Between the beginnings of two looks at the server.
pub(crate) const PACE: Duration = Duration::from_secs(1);

/// After a look that found no way to the server: every slot was taken, or a dial was under way that may tell as well.
const NO_WAY: Duration = Duration::from_millis(50);

impl Maintenance {
    pub(super) async fn look_out(&self) {
        loop {
            self.look_while_open().await;
            self.opened.notified().await;
        }
    }

    async fn look_while_open(&self) {
        while self.shut_pool().is_some() {
            let next = *self.next_look.lock();
            if let Some(next) = next {
                time::sleep_until(next).await;
            }
            let Some((slots, recorder)) = self.shut_pool() else { return };
            let begun = Instant::now();
            *self.next_look.lock() = Some(begun + PACE);
            match slots.look().await {
                Look::Answers => recorder.on_server_answer(),
                Look::Silent => recorder.on_server_late(),
                Look::Dials => {}
                Look::Nothing => *self.next_look.lock() = Some(begun + NO_WAY),
            }
        }
    }

    /// The pool, while its circuit is open.
    fn shut_pool(&self) -> Option<(Arc<Slots<Dialer>>, Arc<OutcomeRecorder>)> {
        self.open_pool().filter(|(_, recorder)| recorder.breaker().last_state() == State::Open)
    }
}

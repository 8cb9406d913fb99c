//! What a connection died of.
//!
//! The driver tells its callers "connection closed" and nothing else. The cause is known to the task that drives the connection, which
//! writes it here before it drops the driver: whoever was waiting for an answer finds it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::Lost;

#[derive(Debug, Default)]
pub(crate) struct CloseReason(watch::Sender<Written>);

#[derive(Debug, Default)]
enum Written {
    #[default]
    NotYet,
    /// It was said goodbye to.
    Graceful,
    Cause(Arc<Lost>),
}

impl CloseReason {
    /// Why the connection was lost, if it is known to be.
    pub(crate) fn cause(&self) -> Option<Arc<Lost>> {
        match &*self.0.borrow() {
            Written::NotYet | Written::Graceful => None,
            Written::Cause(lost) => Some(Arc::clone(lost)),
        }
    }

    /// The same, for whoever was told that the connection is closed when trying to send a request: the driver says so a few instructions
    /// before its task can write. Waits for that, so ask only about a connection that has ended.
    pub(crate) async fn last_cause(&self) -> Option<Arc<Lost>> {
        let _ = self.0.subscribe().wait_for(|written| !matches!(written, Written::NotYet)).await;
        self.cause()
    }

    /// `None` if it ended in peace. The first word is the last.
    pub(crate) fn write(&self, lost: Option<Lost>) {
        self.0.send_if_modified(|written| {
            let is_first = matches!(written, Written::NotYet);
            if is_first {
                *written = lost.map_or(Written::Graceful, |lost| Written::Cause(Arc::new(lost)));
            }
            is_first
        });
    }
}

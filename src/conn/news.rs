//! What a connection has noticed that concerns the pool as a whole.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Lost;

#[derive(Debug, Clone)]
pub(crate) enum News {
    /// A dial begins: there is a runtime.
    Dials,
    /// A dial has led to this address, and this is the server's role, if that is known.
    Dialed {
        took: Duration,
        address: Arc<str>,
        is_read_only: Option<bool>,
    },
    DialFailed,
    /// A connection was lost, through no doing of ours.
    Lost {
        cause: Arc<Lost>,
    },
    /// The server takes no writes where they are wanted: it has been replaced.
    WrongHost,
    /// A connection could not be made fit for the next caller, and is closed.
    SettleFailed,
}

/// Who is told. Called wherever something is noticed, by many at once, never under a lock; returns at once.
pub(crate) type Tell = Arc<dyn Fn(News) + Send + Sync>;

//! What a connection has noticed that concerns the pool as a whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use crate::error::Lost;

#[derive(Debug, Clone)]
pub(crate) enum ConnectionEvent {
    /// A dial begins: there is a runtime.
    Dials,
    /// A dial has led to this address, and this is the server's role, if that is known.
    Dialed {
        took: Duration,
        address: Arc<str>,
        is_read_only: Option<bool>,
    },
    DialFailed,
    /// A host or an address cannot be used, and others are tried before it.
    AddressAvoided {
        address: String,
        reason: String,
    },
    /// It can be used again, after so long.
    AddressRestored {
        address: String,
        lasted: Duration,
    },
    /// A connection was lost, through no doing of ours.
    Lost {
        cause: Arc<Lost>,
    },
    /// The server takes no writes where they are wanted, on a session that was dialed as this: it may have been replaced.
    WrongHost {
        dialed_as: Role,
    },
    /// Until then at least, a reader that is far behind the server holds this connection; `None` takes that back.
    HeldUp {
        connection: u64,
        until: Option<Instant>,
    },
    /// The server warned of a statement.
    Warned {
        /// Fit for one line of a log.
        message: String,
        sqlstate: SqlState,
    },
    /// A connection could not be made fit for the next caller, and is closed.
    SettleFailed,
}

/// What the server said of itself when a session was dialed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It took writes, or did not say.
    Primary,
    Standby,
    /// It is no standby, but a setting of the server, the database or the role makes its sessions read only.
    ReadOnly,
}

/// Who is told. Called wherever something is noticed, by many at once, never under a lock; returns at once.
pub(crate) type Tell = Arc<dyn Fn(ConnectionEvent) + Send + Sync>;

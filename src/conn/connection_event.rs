//! The events that a connection reports to the pool's maintenance.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use crate::error::Lost;

#[derive(Debug, Clone)]
pub(crate) enum ConnectionEvent {
    /// A dial begins, so there is a runtime.
    Dials,
    /// A dial has reached this address. `is_read_only` is the server's role, if it is known.
    Dialed {
        took: Duration,
        address: Arc<str>,
        is_read_only: Option<bool>,
    },
    DialFailed,
    /// A host or an address cannot be used. From now on the pool tries others first.
    AddressAvoided {
        address: String,
        reason: String,
    },
    /// The host or address can be used again. It could not be for `lasted`.
    AddressRestored {
        address: String,
        lasted: Duration,
    },
    /// A connection was lost, and the pool did not cause that.
    Lost {
        cause: Arc<Lost>,
    },
    /// The server refuses writes on a session that needs them. The server may have been replaced since the session was
    /// dialed.
    WrongHost {
        dialed_as: Role,
    },
    /// A reader that is far behind the server holds this connection, at least until `until`. `None` withdraws that.
    HeldUp {
        connection: u64,
        until: Option<Instant>,
    },
    /// The server has sent a warning.
    Warned {
        /// One line.
        message: String,
        sqlstate: SqlState,
    },
    /// The pool could not settle a connection, and closes it.
    SettleFailed,
}

/// The role of the server when a session was dialed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It accepted writes, or did not report its role.
    Primary,
    Standby,
    /// It was no standby, but a setting of the server, the database or the role made its sessions read-only.
    ReadOnly,
}

/// The receiver of the events. Many threads call it at once, never under a lock. It returns at once.
pub(crate) type EventReceiver = Arc<dyn Fn(ConnectionEvent) + Send + Sync>;

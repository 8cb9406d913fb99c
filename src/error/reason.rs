//! Why a transaction was not committed, and why a call could not begin on its connection.

use std::fmt;

use tokio_postgres::error::SqlState;

use super::outside::one_line;

/// Why a transaction was rolled back although it was to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AbortReason {
    /// A statement in it had failed, and the error was not passed on.
    #[non_exhaustive]
    Failed {
        /// What the server had answered; `None` if the statement had timed out.
        sqlstate: Option<SqlState>,
    },
    /// A clone of its handle, or a stream of its rows, was still there.
    InUse,
    /// The server answered COMMIT with ROLLBACK.
    RolledBack,
    /// A statement in it was a COMMIT or a ROLLBACK of its own: what came before was ended there, and is not known to the pool.
    EndedByHand,
}

/// Why a call could not begin on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BusyReason {
    /// An earlier statement had timed out or was dropped, and was still being stopped when the time of this call was up.
    Stopping,
    /// The COPY had ended before this step of it: it was finished or aborted.
    CopyEnded,
}

impl fmt::Display for BusyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopping => "an earlier statement on the connection is still being stopped",
            Self::CopyEnded => {
                "the COPY has ended, because it was finished, or a step of it failed or was dropped; begin another COPY \
                 with copy_in"
            }
        })
    }
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { sqlstate: Some(state) } => {
                write!(f, "a statement in it had failed ({}), and the error was not passed on", one_line(state.code()))
            }
            Self::Failed { sqlstate: None } => {
                f.write_str("a statement in it had timed out, and the error was not passed on")
            }
            Self::InUse => f.write_str("a clone of its handle or a stream of its rows was still there"),
            Self::EndedByHand => {
                f.write_str("it had been ended by a statement in it; what came before may be committed")
            }
            Self::RolledBack => f.write_str("the server answered COMMIT with ROLLBACK"),
        }
    }
}

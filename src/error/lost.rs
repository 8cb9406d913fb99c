//! Why a connection was lost.

use std::error::Error as StdError;
use std::fmt;

use tokio_postgres::error::SqlState;

/// Why a connection was lost, as far as it is known.
#[derive(Debug)]
pub struct Lost {
    sqlstate: Option<SqlState>,
    reason: &'static str,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Lost {
    #[cfg(test)]
    pub(crate) fn for_test(sqlstate: Option<SqlState>, reason: &'static str) -> Self {
        Self { sqlstate, reason, source: None }
    }

    /// The SQLSTATE of the server's last words on the connection.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        self.sqlstate.as_ref()
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl StdError for Lost {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

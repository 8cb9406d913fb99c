//! What a caller asks its pool for.

use std::time::Duration;

use crate::terms::HOLD;

/// How long a report holds its connection.
pub(crate) const REPORT: Duration = Duration::from_millis(200);
/// For how long a slow client reads nothing.
pub(crate) const PAUSE: Duration = Duration::from_secs(3);

/// More rows than the buffers between server and client take: 20 MB.
pub(crate) const MANY_ROWS: &str = "SELECT repeat('x', 1000) FROM generate_series(1, 20000)";

/// What a caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// A query that holds its connection for this long: the usual work, which is measured.
    Query(Duration),
    /// A transaction that changes the hot row, and keeps its lock for [`HOLD`].
    HotRow,
    /// A query of [`REPORT`], which is not urgent.
    Report,
    /// A stream of many rows, whose reader takes the first row, pauses for [`PAUSE`] and goes away.
    Unread,
}

impl Work {
    /// The statements, in one message.
    pub(crate) fn sql(self) -> String {
        match self {
            Self::Query(hold) => format!("SELECT pg_sleep({})", hold.as_secs_f64()),
            // Statements in one message are one transaction.
            Self::HotRow => format!("UPDATE hot SET sold = sold + 1; SELECT pg_sleep({})", HOLD.as_secs_f64()),
            Self::Report => format!("SELECT pg_sleep({})", REPORT.as_secs_f64()),
            Self::Unread => MANY_ROWS.to_owned(),
        }
    }

    /// Whether this is the work that the figures are about.
    pub(crate) fn is_usual(self) -> bool {
        matches!(self, Self::Query(_))
    }

    /// The name of the operation, which a pool may limit.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::Query(_) => "query",
            Self::HotRow => "buy",
            Self::Report => "report",
            Self::Unread => "export",
        }
    }
}

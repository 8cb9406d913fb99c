//! What a service reads from the server's answer, to map it to an answer of its own: which rule was violated, and the
//! names of the constraint, the table and the column. Names only, never values.

use tokio_postgres::error::DbError;

use super::{Error, ErrorKind};
use crate::policy::{Objection, is_data_exception};

/// What the server objected to.
///
/// Each method returns `true` only if the server returned that SQLSTATE to this very call: to a statement, to a step of
/// a `COPY`, or to a COMMIT, which checks deferred constraints. It never depends on the server's language. For a failed
/// dial, and for a transaction that went on after the error, all of them return `false`.
impl Error {
    /// The server's answer, if the server refused the call.
    fn answer(&self) -> Option<&DbError> {
        match self {
            Self::Postgres { source, .. } => source.as_db_error(),
            _ => None,
        }
    }

    fn is(&self, objection: Objection) -> bool {
        self.answer().and_then(|answer| Objection::of(answer.code().code())) == Some(objection)
    }

    /// Returns whether a row with the same key exists already (23505). A service usually answers 409.
    ///
    /// ```
    /// use failfast::Error;
    ///
    /// fn status(error: &Error) -> u16 {
    ///     match error.constraint() {
    ///         Some("users_email_key") if error.is_unique_violation() => 409,
    ///         _ => error.http_status(),
    ///     }
    /// }
    /// # assert_eq!(status(&Error::Closed), 503);
    /// ```
    pub fn is_unique_violation(&self) -> bool {
        self.is(Objection::Unique)
    }

    /// Returns whether a foreign key was violated (23503; 23001 for `RESTRICT` since PostgreSQL 18): the row refers to
    /// one that does not exist, or other rows still refer to it.
    pub fn is_foreign_key_violation(&self) -> bool {
        self.is(Objection::ForeignKey)
    }

    /// Returns whether a `CHECK` constraint was violated (23514).
    pub fn is_check_violation(&self) -> bool {
        self.is(Objection::Check)
    }

    /// Returns whether a column that must have a value got `NULL` (23502). [`column`](Self::column) names it.
    pub fn is_not_null_violation(&self) -> bool {
        self.is(Objection::NotNull)
    }

    /// Returns whether an `EXCLUDE` constraint was violated (23P01), as by two bookings of one room that overlap.
    pub fn is_exclusion_violation(&self) -> bool {
        self.is(Objection::Exclusion)
    }

    /// Returns whether a text is too long for its column (22001).
    pub fn is_value_too_long(&self) -> bool {
        self.is(Objection::TooLong)
    }

    /// Returns whether a number (22003), or a date or time (22008), is beyond the range of its type.
    pub fn is_value_out_of_range(&self) -> bool {
        self.is(Objection::OutOfRange)
    }

    /// Returns whether a text cannot be read as a value of its type: not a number or a UUID (22P02), not a date
    /// (22007), or with a character that the database cannot store, such as NUL (22021, 22P05).
    pub fn is_invalid_text(&self) -> bool {
        self.is(Objection::InvalidText)
    }

    /// Returns whether the data do not fit the statement or the columns (SQLSTATE class 22, data exception). These are
    /// the three above, and everything else in the class: a line of a `COPY` with too few columns (22P04), JSON that is
    /// not valid, a division by zero. A service usually answers 422 if the data are the client's.
    pub fn is_data_exception(&self) -> bool {
        self.answer().is_some_and(|answer| is_data_exception(answer.code().code()))
    }

    /// Returns whether the role lacks a privilege for the statement, or a policy of row-level security refused the row
    /// (42501).
    pub fn is_insufficient_privilege(&self) -> bool {
        self.is(Objection::Privilege)
    }

    /// Returns whether a lock was not free (55P03): after `NOWAIT`, or after `lock_timeout`.
    pub fn is_lock_not_available(&self) -> bool {
        self.is(Objection::LockTaken)
    }

    /// Returns whether another transaction was in the way (40001). The transaction may succeed if it runs again as a
    /// whole; [`Pool::transaction`](crate::Pool::transaction) has done so, up to its number of attempts.
    pub fn is_serialization_failure(&self) -> bool {
        self.is(Objection::Serialization)
    }

    /// Returns whether the server ended the transaction to resolve a deadlock (40P01). Like a [serialization
    /// failure](Self::is_serialization_failure) it may run again.
    pub fn is_deadlock(&self) -> bool {
        self.is(Objection::Deadlock)
    }

    /// The name of the violated constraint or unique index, exactly as in the database. `None` if the server named
    /// none, as for a `NOT NULL`.
    pub fn constraint(&self) -> Option<&str> {
        self.answer()?.constraint()
    }

    /// The name of the table that the error is about, without its schema. `None` if the server named none.
    pub fn table(&self) -> Option<&str> {
        self.answer()?.table()
    }

    /// The name of the column that the error is about. The server names it for a [`NOT
    /// NULL`](Self::is_not_null_violation), but not for other constraints.
    pub fn column(&self) -> Option<&str> {
        self.answer()?.column()
    }

    /// Returns whether a handler should log this error.
    ///
    /// `false` for the errors of a call that got no connection: [`Shed`](Self::Shed),
    /// [`CircuitOpen`](Self::CircuitOpen), [`AcquireTimeout`](Self::AcquireTimeout), [`Connect`](Self::Connect),
    /// [`Closed`](Self::Closed), and those of a `Cluster` without a host that fits. In an incident there are thousands
    /// of them in a second. The pool counts each in its [metrics](crate#features), and reports their cause as an
    /// [event](crate::Event), again every 30 s. `true` for all others: each says something about one statement.
    ///
    /// ```
    /// # fn handle(error: failfast::Error) -> u16 {
    /// if error.is_worth_logging() {
    ///     eprintln!("list_items: {error}");
    /// }
    /// error.http_status()
    /// # }
    /// # assert_eq!(handle(failfast::Error::Closed), 503);
    /// ```
    pub fn is_worth_logging(&self) -> bool {
        match self.kind() {
            ErrorKind::Shed
            | ErrorKind::CircuitOpen
            | ErrorKind::AcquireTimeout
            | ErrorKind::Connect
            | ErrorKind::NoPrimary
            | ErrorKind::TwoPrimaries
            | ErrorKind::TwoSystems
            | ErrorKind::NoFreshReplica
            | ErrorKind::Closed => false,
            ErrorKind::QueryTimeout
            | ErrorKind::StreamIdle
            | ErrorKind::Busy
            | ErrorKind::TransactionAborted
            | ErrorKind::CommitUnknown
            | ErrorKind::GaveWay
            | ErrorKind::Postgres => true,
        }
    }
}

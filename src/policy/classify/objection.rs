//! The errors of the server for which a service usually has an answer of its own.

/// What the server objected to in a statement, or what was in the way of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Objection {
    Unique,
    ForeignKey,
    Check,
    NotNull,
    Exclusion,
    TooLong,
    OutOfRange,
    InvalidText,
    Privilege,
    LockTaken,
    Serialization,
    Deadlock,
}

impl Objection {
    /// Returns `None` for all SQLSTATEs that services seldom tell apart.
    pub(crate) fn of(state: &str) -> Option<Self> {
        match state {
            "23505" => Some(Self::Unique),
            // Since PostgreSQL 18, ON DELETE RESTRICT and ON UPDATE RESTRICT have a code of their own.
            "23503" | "23001" => Some(Self::ForeignKey),
            "23514" => Some(Self::Check),
            "23502" => Some(Self::NotNull),
            "23P01" => Some(Self::Exclusion),
            "22001" => Some(Self::TooLong),
            "22003" | "22008" => Some(Self::OutOfRange),
            "22P02" | "22007" | "22021" | "22P05" => Some(Self::InvalidText),
            "42501" => Some(Self::Privilege),
            "55P03" => Some(Self::LockTaken),
            "40001" => Some(Self::Serialization),
            "40P01" => Some(Self::Deadlock),
            _ => None,
        }
    }
}

/// Returns whether this SQLSTATE says that the data do not fit: class 22, data exception.
pub(crate) fn is_data_exception(state: &str) -> bool {
    state.starts_with("22")
}

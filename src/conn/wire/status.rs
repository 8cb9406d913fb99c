//! What the server says at the end of a command: its tag, and whether a transaction is open.

/// The state of the session, as of the last ReadyForQuery.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransactionStatus {
    #[default]
    Idle,
    Open,
    Failed,
}

/// The last command that was completed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    #[default]
    Other,
    Begin,
    Commit,
    /// Also of ROLLBACK TO SAVEPOINT, and of a COMMIT that rolled back.
    Rollback,
    Savepoint,
    Release,
}

impl TransactionStatus {
    pub(super) const ALL: [Self; 3] = [Self::Idle, Self::Open, Self::Failed];

    /// An unknown state is not taken to be idle.
    pub(super) fn of(byte: Option<u8>) -> Self {
        match byte {
            Some(b'I') => Self::Idle,
            Some(b'T') => Self::Open,
            _ => Self::Failed,
        }
    }
}

impl Tag {
    pub(super) const ALL: [Self; 6] =
        [Self::Other, Self::Begin, Self::Commit, Self::Rollback, Self::Savepoint, Self::Release];

    pub(super) fn of(tag: &[u8]) -> Self {
        match tag {
            b"BEGIN" | b"START TRANSACTION" => Self::Begin,
            b"COMMIT" => Self::Commit,
            b"ROLLBACK" => Self::Rollback,
            b"SAVEPOINT" => Self::Savepoint,
            b"RELEASE" => Self::Release,
            _ => Self::Other,
        }
    }
}

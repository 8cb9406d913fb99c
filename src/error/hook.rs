//! What the `after_connect` hook may leave on a connection that no caller may get then.

/// What the hook has left on the connection, although it succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HookLeft {
    OpenTransaction,
    FailedTransaction,
    /// A request that the hook did not wait for, and its answer is an error.
    FailedRequest,
}

impl HookLeft {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::OpenTransaction => "left a transaction open: end it with COMMIT",
            Self::FailedTransaction => "left a failed transaction: end it with ROLLBACK, and return its error",
            Self::FailedRequest => "did not wait for a request, which failed: finish each COPY, and await each request",
        }
    }
}

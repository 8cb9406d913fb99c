//! How a pool treats its connections, from the dial to the end.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::Semaphore;

use super::cancel::MOST_CANCELS;
use super::hooks::Hooks;

/// What is done about a session's state before another caller gets the connection: settings, `LISTEN`, cursors, temporary tables,
/// sequences' `currval`, advisory locks.
///
/// A reset runs what deadpool's `RecyclingMethod::Clean` runs, in one round trip in the background, and then
/// [`after_connect`](crate::PoolBuilder::after_connect). Prepared statements stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Reset {
    /// Nothing: for services that never change a session.
    Never,
    /// A reset when a change was seen, or may have been missed: a `SET`, `LISTEN`, `DECLARE` or `CREATE` was completed, the server told of a
    /// changed parameter, or the connection was used through the deref. The default. It costs nothing otherwise.
    ///
    /// What functions do within a tracked statement is not seen: `set_config()` of a parameter that the server does not report,
    /// `pg_advisory_lock()`, `nextval()`, nor a temporary table made by `SELECT INTO`. (`SET LOCAL` and `pg_advisory_xact_lock()` end with their
    /// transaction, and need no reset.)
    #[default]
    WhenSeen,
    /// A reset after every lease: one round trip in the background, during which the connection serves nobody.
    Always,
}

#[derive(Debug, Clone)]
pub(crate) struct Handling {
    pub(super) hooks: Hooks,
    pub(super) reset: Reset,
    /// How many statements each connection keeps prepared.
    pub(super) statements: usize,
    /// Counts the migrations noticed.
    pub(super) epoch: Arc<AtomicU64>,
    /// For cancels: few at once.
    pub(super) cancels: Arc<Semaphore>,
}

impl Handling {
    pub(crate) fn new(hooks: Hooks, reset: Reset, statements: usize) -> Self {
        let cancels = Arc::new(Semaphore::new(MOST_CANCELS));
        Self { hooks, reset, statements, epoch: Arc::default(), cancels }
    }
}

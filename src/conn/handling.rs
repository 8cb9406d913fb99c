//! How a pool treats its connections, from the dial to the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::calls::watcher::ReadingLimits;
use super::cancel::MOST_CANCELS;
use super::dial::hooks::Hooks;
use super::dial::server_timeouts::ServerTimeouts;
use super::lease_registry::LeaseRegistry;
use super::outcome_recorder::OutcomeRecorder;
use crate::telemetry::{Meter, Tracer};

/// What is done about a session's state before another caller gets the connection: settings, `LISTEN`, cursors, temporary tables,
/// sequences' `currval`, advisory locks.
///
/// A reset runs what deadpool's `RecyclingMethod::Clean` runs, in one round trip in the background, and then
/// [`after_connect`](crate::PoolBuilder::after_connect). Statements that were prepared by SQL are dropped with it, in one round trip more. The
/// pool's own prepared statements stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Reset {
    /// The pool never resets a session: for services that never change one.
    Never,
    /// The pool resets a session that a request may have changed. The default. It costs nothing otherwise, also if the connection was used through
    /// the deref.
    ///
    /// The pool looks once through the text of each request, tracked or not, for:
    ///
    /// - `SET`, `RESET`, `LISTEN`, `UNLISTEN`, `DISCARD`, `LOAD`, `PREPARE`, and cursors `WITH HOLD`;
    /// - temporary tables, views and sequences, and the schema `pg_temp`;
    /// - `DO` and `CALL`, because whatever they run is not seen;
    /// - the functions `set_config`, `pg_advisory_lock`, `pg_try_advisory_lock`, `dblink_connect` and `setseed`;
    /// - a text of more than 64 KB, and one whose quotes cannot be told apart.
    ///
    /// A parameter that the server reports, such as `TimeZone`, is seen wherever it was set. What a transaction takes back by itself is no change:
    /// `SET LOCAL`, `SET TRANSACTION`, `SET CONSTRAINTS`, `set_config(..., true)`, `pg_advisory_xact_lock`, a cursor without `HOLD`.
    ///
    /// The pool does not see what a function of yours does when a query calls it, nor the `currval` that `nextval` leaves: for those,
    /// [`Always`](Self::Always).
    #[default]
    WhenSeen,
    /// The pool resets the session after every lease: one round trip in the background, during which the connection serves nobody.
    Always,
}

/// Who is told what happens on connections.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) recorder: Arc<OutcomeRecorder>,
    pub(crate) registry: Arc<LeaseRegistry>,
    pub(crate) tracer: Tracer,
    pub(crate) meter: Meter,
}

#[derive(Debug, Clone)]
pub(crate) struct Handling {
    pub(super) hooks: Hooks,
    pub(super) reset: Reset,
    /// How many statements each connection keeps prepared.
    pub(super) statements: usize,
    /// Counts changes of the schema: see [`Statements`](super::Statements).
    pub(super) epoch: Arc<AtomicU64>,
    pub(super) recorder: Arc<OutcomeRecorder>,
    pub(super) registry: Arc<LeaseRegistry>,
    pub(super) tracer: Tracer,
    pub(super) meter: Meter,
    /// For cancels: few at once.
    pub(super) cancels: Arc<Semaphore>,
    server_timeouts: Option<ServerTimeouts>,
    query_timeout: Duration,
    pub(super) connect_timeout: Duration,
    /// What the readers of streams may take.
    pub(super) reading: ReadingLimits,
    /// The server's major version, as an earlier dial told it; 0 before.
    version: Arc<AtomicU32>,
}

impl Handling {
    /// Everything that connections have learned of the schema is to be learned anew.
    pub(super) fn begin_epoch(&self) {
        self.epoch.fetch_add(1, Relaxed);
    }

    pub(crate) fn new(
        hooks: Hooks,
        reset: Reset,
        statements: usize,
        server_timeouts: Option<ServerTimeouts>,
        (connect_timeout, query_timeout): (Duration, Duration),
        reading: ReadingLimits,
        listeners: Listeners,
    ) -> Self {
        let cancels = Arc::new(Semaphore::new(MOST_CANCELS));
        let (epoch, version) = (Arc::default(), Arc::default());
        let Listeners { recorder, registry, tracer, meter } = listeners;
        Self {
            hooks,
            reset,
            statements,
            epoch,
            recorder,
            registry,
            tracer,
            meter,
            cancels,
            server_timeouts,
            query_timeout,
            connect_timeout,
            reading,
            version,
        }
    }

    /// After which the server stops a statement of a session that began with these options. `None` if it is not the pool that has set it.
    pub(super) fn statement_timeout(&self, options: &str) -> Option<Duration> {
        let is_set_once = options.matches("statement_timeout").count() == 1;
        self.server_timeouts.as_ref().filter(|_| is_set_once).map(|timeouts| timeouts.statement(self.query_timeout))
    }

    pub(super) fn has_server_timeouts(&self) -> bool {
        self.server_timeouts.is_some()
    }

    /// The options that a new session begins with, besides the connection string's, which count more.
    pub(super) fn options(&self) -> String {
        let version = Some(self.version.load(Relaxed)).filter(|version| *version > 0);
        self.server_timeouts.as_ref().map(|timeouts| timeouts.options(self.query_timeout, version)).unwrap_or_default()
    }

    /// What a server says of its version; `None` if it could not be dialed with the options of an earlier one.
    pub(super) fn learn_version(&self, told: Option<&str>) {
        let digits =
            |version: &str| version.split(|c: char| !c.is_ascii_digit()).next().and_then(|major| major.parse().ok());
        self.version.store(told.and_then(digits).unwrap_or(0), Relaxed);
    }
}

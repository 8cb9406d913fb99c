//! The data that all connections of one pool share: how the pool treats them, and where they report.

use std::sync::Arc;
#[cfg(feature = "fleet")]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::calls::watcher::ReadingLimits;
use super::cancel::MOST_CANCELS;
use super::dial::hooks::Hooks;
use super::dial::server_timeouts::ServerTimeouts;
use super::lease_registry::LeaseRegistry;
use super::outcome_recorder::OutcomeRecorder;
#[cfg(feature = "testing")]
use crate::pretend::Pretences;
use crate::telemetry::{Meter, Tracer};

/// The server ends a session whose client has vanished after about 20 s instead of two hours.
#[cfg(feature = "fleet")]
const KEEPALIVES: &str = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=3 -c tcp_keepalives_count=3 \
                          -c tcp_user_timeout=20000 ";

/// When the pool resets a session before another caller gets the connection. Default: [`WhenSeen`](Self::WhenSeen).
///
/// The state of a session is its settings, `LISTEN`, cursors, temporary tables, `currval` of sequences and advisory
/// locks. A reset runs what deadpool's `RecyclingMethod::Clean` runs and `RESET ROLE`, in one round trip in the
/// background, and then [`after_connect`](crate::PoolBuilder::after_connect). If statements were prepared by SQL, one
/// more round trip drops them. The pool's own prepared statements stay. So do the role and the settings with which the
/// session began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Reset {
    /// The pool never resets a session. For services that never change one.
    Never,
    /// The pool resets a session that a request may have changed. Other sessions cost nothing, even if the connection
    /// was used through the deref. The default.
    ///
    /// The pool looks once through the text of each request, tracked or not, for:
    ///
    /// - `SET`, `RESET`, `LISTEN`, `UNLISTEN`, `DISCARD`, `LOAD`, `PREPARE`, and cursors `WITH HOLD`;
    /// - temporary tables, views and sequences, and the schema `pg_temp`;
    /// - `DO` and `CALL`, because the pool does not see what they run;
    /// - the functions `set_config`, `pg_advisory_lock`, `pg_try_advisory_lock`, `dblink_connect` and `setseed`;
    /// - a text of more than 64 KB, a text with a backslash in quotes, and a text in which the pool cannot match the
    ///   quotes.
    ///
    /// The server reports some parameters, such as `TimeZone`. The pool sees these wherever they were set. The end of a
    /// transaction undoes some changes, which therefore do not count: `SET LOCAL`, `SET TRANSACTION`, `SET
    /// CONSTRAINTS`, `set_config(..., true)`, `pg_advisory_xact_lock`, a cursor without `HOLD`.
    ///
    /// The pool does not see what your own functions do when a query calls them, nor the `currval` that `nextval`
    /// leaves. If these matter, choose [`Always`](Self::Always).
    #[default]
    WhenSeen,
    /// The pool resets the session after every lease. During that round trip in the background, the connection serves
    /// no caller.
    Always,
}

/// Where the connections of a pool report.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) recorder: Arc<OutcomeRecorder>,
    pub(crate) registry: Arc<LeaseRegistry>,
    pub(crate) tracer: Tracer,
    pub(crate) meter: Meter,
}

/// How the pool treats its connections. Its connections share one.
#[derive(Debug, Clone)]
pub(crate) struct Handling {
    pub(super) hooks: Hooks,
    pub(super) reset: Reset,
    /// How many statements each connection keeps prepared.
    pub(super) statements: usize,
    /// Counts changes of the schema, for the connections' caches of prepared statements.
    pub(super) epoch: Arc<AtomicU64>,
    pub(super) recorder: Arc<OutcomeRecorder>,
    pub(super) registry: Arc<LeaseRegistry>,
    pub(super) tracer: Tracer,
    pub(super) meter: Meter,
    /// Limits how many cancels are under way at a time.
    pub(super) cancels: Arc<Semaphore>,
    server_timeouts: Option<ServerTimeouts>,
    query_timeout: Duration,
    pub(super) connect_timeout: Duration,
    /// How long the readers of streams may pause.
    pub(super) reading: ReadingLimits,
    /// The server's major version, as the latest dial learned it. 0 before the first.
    version: Arc<AtomicU32>,
    /// Whether sessions begin with keepalives, so that the server notices a client that has vanished.
    #[cfg(feature = "fleet")]
    keepalives: Arc<AtomicBool>,
    /// What calls come to in a test.
    #[cfg(feature = "testing")]
    pub(crate) pretences: Arc<Pretences>,
}

impl Handling {
    /// Makes all connections forget what they have learned about the schema.
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
            #[cfg(feature = "fleet")]
            keepalives: Arc::default(),
            #[cfg(feature = "testing")]
            pretences: Arc::default(),
        }
    }

    /// Returns the `statement_timeout` of a session that began with these options. `None` if the pool has not set it.
    pub(super) fn statement_timeout(&self, options: &str) -> Option<Duration> {
        let is_set_once = options.matches("statement_timeout").count() == 1;
        self.server_timeouts.as_ref().filter(|_| is_set_once).map(|timeouts| timeouts.statement(self.query_timeout))
    }

    pub(super) fn has_server_timeouts(&self) -> bool {
        self.server_timeouts.is_some()
    }

    /// Returns the options for a new session. Those of the connection string override them.
    pub(super) fn options(&self) -> String {
        let version = Some(self.version.load(Relaxed)).filter(|version| *version > 0);
        let timeouts = self.server_timeouts.as_ref();
        let options = timeouts.map(|timeouts| timeouts.options(self.query_timeout, version)).unwrap_or_default();
        #[cfg(feature = "fleet")]
        if self.keepalives.load(Relaxed) {
            return format!("{KEEPALIVES}{options}");
        }
        options
    }

    /// Sets whether sessions begin with keepalives. Returns whether that is a change.
    #[cfg(feature = "fleet")]
    pub(crate) fn set_keepalives(&self, are_sent: bool) -> bool {
        self.keepalives.swap(are_sent, Relaxed) != are_sent
    }

    /// Remembers the version that a server has reported. `None` if the server refused the options for the version that
    /// was remembered.
    pub(super) fn learn_version(&self, reported: Option<&str>) {
        let digits =
            |version: &str| version.split(|c: char| !c.is_ascii_digit()).next().and_then(|major| major.parse().ok());
        self.version.store(reported.and_then(digits).unwrap_or(0), Relaxed);
    }
}

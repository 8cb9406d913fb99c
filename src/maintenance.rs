//! The work that the pool does by itself, in one background task: it looks after idle connections, reports events and
//! metrics, and asks the server whether it is back while the circuit is open.
//!
//! The task starts when the pool is built within a runtime, otherwise with the first dial. If its runtime ends, the
//! next dial starts it again. It holds no strong reference to the pool, and ends when the pool is dropped.
//!
//! Connections report here what they notice ([`ConnectionEvent`]). If one notices that the server shuts down or was
//! replaced, the pool replaces all connections.

mod readiness;
mod reports;
mod server;
mod task;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use self::readiness::NotReady;
pub(crate) use self::reports::{Reports, Thresholds};
use self::server::ServerRole;
use crate::breaker::{State, Transition};
use crate::clock::now;
use crate::conn::{ConnectionEvent, Dialer, OutcomeRecorder};
use crate::event::EventKind;
use crate::slots::Slots;

/// The pause between the beginnings of two checks of the server.
pub(crate) const PACE: Duration = Duration::from_secs(1);

/// The state of the background task. It holds no strong reference to the pool.
#[derive(Debug)]
pub(crate) struct Maintenance {
    pool: OnceLock<(Weak<Slots<Dialer>>, Weak<OutcomeRecorder>)>,
    permitted_probes: usize,
    is_running: AtomicBool,
    /// Begins the next round at once: a connection was lost, or the pool was dropped.
    next_round: Notify,
    /// The circuit has opened.
    opened: Notify,
    /// When the task asks the server again while the circuit is open.
    next_check: Mutex<Option<Instant>>,
    server: ServerRole,
    pub(crate) reports: Reports,
    /// Whether a probe has asked since the last round if the pool is ready.
    is_wanted_ready: AtomicBool,
    /// While callers held all connections, the server did not answer the pool's own connection.
    is_found_silent: Arc<AtomicBool>,
    unready_after: Duration,
    /// Also bounds what the task asks on an idle connection.
    connect_timeout: Duration,
}

impl Maintenance {
    pub(crate) fn new(
        permitted_probes: usize,
        unready_after: Duration,
        connect_timeout: Duration,
        reports: Reports,
    ) -> Arc<Self> {
        Arc::new(Self {
            pool: OnceLock::new(),
            permitted_probes,
            is_running: AtomicBool::new(false),
            next_round: Notify::new(),
            opened: Notify::new(),
            next_check: Mutex::new(None),
            server: ServerRole::default(),
            reports,
            is_wanted_ready: AtomicBool::new(false),
            is_found_silent: Arc::default(),
            unready_after,
            connect_timeout,
        })
    }

    /// Connects the task to its pool, and starts it if there is a runtime.
    pub(crate) fn attach(self: &Arc<Self>, slots: &Arc<Slots<Dialer>>, recorder: &Arc<OutcomeRecorder>) {
        let _ = self.pool.set((Arc::downgrade(slots), Arc::downgrade(recorder)));
        self.begin(Handle::try_current().ok());
    }

    /// The pool was dropped.
    pub(crate) fn on_end(&self) {
        self.reports.on_end(self.pool().map(|(slots, _)| slots).as_deref());
        self.next_round.notify_one();
    }

    /// The circuit has changed its state.
    pub(crate) fn on_transition(self: &Arc<Self>, transition: &Transition) {
        let Some((slots, _)) = self.pool() else { return };
        let at_once = match transition.to {
            State::Open | State::ForcedOpen | State::ShutDown => Some(0),
            State::HalfOpen => Some(self.permitted_probes),
            State::Closed | State::Disabled | State::MetricsOnly => None,
        };
        slots.limit_dials(transition.number, at_once);
        self.reports.on_transition(transition, slots.counts().is_open);
        if transition.to == State::Open {
            self.opened.notify_one();
            self.begin(Handle::try_current().ok().or_else(|| slots.runtime()));
        }
    }

    /// A connection has noticed something.
    pub(crate) fn on_connection_event(self: &Arc<Self>, event: ConnectionEvent) {
        self.reports.on_connection_event(&event);
        match event {
            ConnectionEvent::Dials => self.begin(Handle::try_current().ok()),
            ConnectionEvent::Lost { cause } => {
                if self.server.on_lost(&cause, now()) {
                    self.flush();
                    self.reports.telemetry.emit(EventKind::ServerShuttingDown { lost: cause });
                }
                self.next_round.notify_one();
            }
            ConnectionEvent::WrongHost { dialed_as } => {
                if self.server.on_write_refused(now(), dialed_as) {
                    self.flush();
                }
            }
            ConnectionEvent::Dialed { address, is_read_only, .. } => {
                if let Some((from, to)) = self.server.on_dialed(address, is_read_only) {
                    self.reports.telemetry.emit(EventKind::PrimaryChanged {
                        from,
                        to: Some(to),
                        #[cfg(feature = "cluster")]
                        last: None,
                        #[cfg(feature = "cluster")]
                        first: None,
                    });
                }
            }
            ConnectionEvent::AddressAvoided { address, reason } => {
                self.reports.telemetry.emit(EventKind::AddressAvoided { address, reason });
            }
            ConnectionEvent::AddressRestored { address, lasted } => {
                self.reports.telemetry.emit(EventKind::AddressRestored { address, lasted });
            }
            ConnectionEvent::HeldUp { connection, until } => {
                if let Some((slots, _)) = self.pool() {
                    slots.set_slow_reader(connection, until);
                }
            }
            ConnectionEvent::DialFailed | ConnectionEvent::SettleFailed | ConnectionEvent::Warned { .. } => {}
        }
    }

    /// Replaces all connections: they are of no use, or soon will be.
    fn flush(&self) {
        if let Some((slots, _)) = self.pool() {
            slots.flush();
        }
    }

    /// The pool, if it was not dropped.
    fn pool(&self) -> Option<(Arc<Slots<Dialer>>, Arc<OutcomeRecorder>)> {
        let (slots, recorder) = self.pool.get()?;
        Some((slots.upgrade()?, recorder.upgrade()?))
    }

    /// The pool, if it is not closed.
    fn pool_unless_closed(&self) -> Option<(Arc<Slots<Dialer>>, Arc<OutcomeRecorder>)> {
        self.pool().filter(|(slots, _)| slots.counts().is_open)
    }
}

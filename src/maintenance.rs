//! What a pool does by itself, in one background task: the rounds over its idle connections, and the look at the server while its circuit breaker keeps
//! callers from it.
//!
//! The task begins where the pool is built within a runtime, or else with the first dial; when its runtime ends, the next dial begins it anew. It holds nothing
//! of the pool, and is gone when the pool is.
//!
//! What connections notice is heard here ([`ConnectionEvent`]), wherever it happens: a server that shuts down or has been replaced takes all its connections
//! with it, not only the one that noticed.

mod looks;
mod readiness;
mod refusals;
mod reports;
mod server;
mod task;
mod unreported;
mod waits;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use self::looks::PACE;
pub use self::readiness::NotReady;
pub(crate) use self::reports::{Reports, Thresholds};
use self::server::ServerRole;
use crate::breaker::{State, Transition};
use crate::clock::now;
use crate::conn::{ConnectionEvent, Dialer, OutcomeRecorder};
use crate::event::EventKind;
use crate::slots::Slots;

/// Holds nothing of the pool.
#[derive(Debug)]
pub(crate) struct Maintenance {
    pool: OnceLock<(Weak<Slots<Dialer>>, Weak<OutcomeRecorder>)>,
    permitted_probes: usize,
    is_running: AtomicBool,
    /// Ended connections were noticed, or the pool is gone.
    bell: Notify,
    opened: Notify,
    next_look: Mutex<Option<Instant>>,
    server: ServerRole,
    pub(crate) reports: Reports,
    /// Somebody has asked whether the pool is ready.
    is_wanted_ready: AtomicBool,
    /// While all connections were held, the server did not answer a look at it.
    is_found_silent: Arc<AtomicBool>,
    unready_after: Duration,
    /// What is asked on an idle connection may take as long.
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
            bell: Notify::new(),
            opened: Notify::new(),
            next_look: Mutex::new(None),
            server: ServerRole::default(),
            reports,
            is_wanted_ready: AtomicBool::new(false),
            is_found_silent: Arc::default(),
            unready_after,
            connect_timeout,
        })
    }

    /// What it keeps, known only now. Begins, if there is a runtime.
    pub(crate) fn keep(self: &Arc<Self>, slots: &Arc<Slots<Dialer>>, recorder: &Arc<OutcomeRecorder>) {
        let _ = self.pool.set((Arc::downgrade(slots), Arc::downgrade(recorder)));
        self.begin(Handle::try_current().ok());
    }

    /// The pool is gone.
    pub(crate) fn end(&self) {
        self.reports.end(self.pool().map(|(slots, _)| slots).as_deref());
        self.bell.notify_one();
    }

    /// The circuit has changed its state.
    pub(crate) fn follow(self: &Arc<Self>, transition: &Transition) {
        let Some((slots, _)) = self.pool() else { return };
        let at_once = match transition.to {
            State::Open | State::ForcedOpen | State::ShutDown => Some(0),
            State::HalfOpen => Some(self.permitted_probes),
            State::Closed | State::Disabled | State::MetricsOnly => None,
        };
        slots.hold_back(transition.number, at_once);
        self.reports.follow(transition, slots.counts().is_open);
        if transition.to == State::Open {
            self.opened.notify_one();
            self.begin(Handle::try_current().ok().or_else(|| slots.runtime()));
        }
    }

    /// What a connection has noticed.
    pub(crate) fn hear(self: &Arc<Self>, news: ConnectionEvent) {
        self.reports.hear(&news);
        match news {
            ConnectionEvent::Dials => self.begin(Handle::try_current().ok()),
            ConnectionEvent::Lost { cause } => {
                if self.server.on_lost(&cause, now()) {
                    self.flush();
                    self.reports.telemetry.emit(EventKind::ServerShuttingDown { lost: cause });
                }
                self.bell.notify_one();
            }
            ConnectionEvent::WrongHost { dialed_as } => {
                if self.server.on_write_refused(now(), dialed_as) {
                    self.flush();
                }
            }
            ConnectionEvent::Dialed { address, is_read_only, .. } => {
                if let Some((from, to)) = self.server.on_dialed(address, is_read_only) {
                    self.reports.telemetry.emit(EventKind::PrimaryChanged { from, to: Some(to) });
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
                    slots.hold_up(connection, until);
                }
            }
            ConnectionEvent::DialFailed | ConnectionEvent::SettleFailed | ConnectionEvent::Warned { .. } => {}
        }
    }

    /// All connections are of no use, or soon will be.
    fn flush(&self) {
        if let Some((slots, _)) = self.pool() {
            slots.flush();
        }
    }

    fn pool(&self) -> Option<(Arc<Slots<Dialer>>, Arc<OutcomeRecorder>)> {
        let (slots, recorder) = self.pool.get()?;
        Some((slots.upgrade()?, recorder.upgrade()?))
    }

    /// The pool, while it is open.
    fn open_pool(&self) -> Option<(Arc<Slots<Dialer>>, Arc<OutcomeRecorder>)> {
        self.pool().filter(|(slots, _)| slots.counts().is_open)
    }
}

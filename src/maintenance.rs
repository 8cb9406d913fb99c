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
mod unreported;
mod waits;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::future::select;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{self, Instant};

pub(crate) use self::looks::PACE;
use self::readiness::Asked;
pub use self::readiness::NotReady;
pub(crate) use self::reports::{Reports, Thresholds};
use self::server::ServerRole;
use crate::breaker::{State, Transition};
use crate::conn::{ConnectionEvent, Dialer, OutcomeRecorder};
use crate::event::EventKind;
use crate::slots::Slots;
use crate::telemetry::Telemetry;

/// Between two rounds.
const ROUND: Duration = Duration::from_millis(250);

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
                if self.server.stops(&cause, Instant::now()) {
                    self.flush();
                    self.reports.telemetry.emit(EventKind::ServerShuttingDown { lost: cause });
                }
                self.bell.notify_one();
            }
            ConnectionEvent::WrongHost { dialed_as } => {
                if self.server.refuses_writes(Instant::now(), dialed_as) {
                    self.flush();
                }
            }
            ConnectionEvent::Dialed { address, is_read_only, .. } => {
                if let Some((from, to)) = self.server.is_at(address, is_read_only) {
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

    fn begin(self: &Arc<Self>, runtime: Option<Handle>) {
        let Some(runtime) = runtime.filter(|_| !self.is_running.swap(true, SeqCst)) else { return };
        let running = Running(Arc::clone(self));
        runtime.spawn(async move {
            let rounds = running.0.go_round();
            select(pin!(rounds), pin!(running.0.look_out())).await;
        });
    }

    async fn go_round(&self) {
        let (mut asked, mut is_measured) = (Asked::default(), false);
        while let Some((slots, recorder)) = self.open_pool() {
            slots.sweep();
            slots.reap();
            slots.dial_what_is_wanted();
            self.reports.look(Instant::now().into_std(), &slots, &recorder);
            self.look_if_asked(&mut asked, &slots, &recorder);
            // Not with the only one, which somebody may want.
            if !is_measured && slots.counts().idle > 1 {
                is_measured = true;
                tokio::spawn(measure(Arc::clone(&slots), Arc::clone(&self.reports.telemetry), self.connect_timeout));
            }
            // One that is silent may have been forgotten by a firewall: of the server it says nothing, as the next dial will.
            for check in slots.begin_checks() {
                tokio::spawn(check.run());
            }
            drop((slots, recorder));
            select(pin!(self.bell.notified()), pin!(time::sleep(ROUND))).await;
        }
        // Once more: the pool may have ended while this looked at it.
        self.reports.end(self.pool().map(|(slots, _)| slots).as_deref());
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

/// Whether the server has as many connections left as the pool may open. If it cannot be told in time, nothing is.
async fn measure(slots: Arc<Slots<Dialer>>, telemetry: Arc<Telemetry>, within: Duration) {
    let Some(lease) = slots.borrow() else { return };
    match time::timeout(within, lease.connections_left()).await {
        Ok(left) => {
            drop(lease);
            let counts = slots.counts();
            let own = counts.idle + counts.in_use + counts.settling;
            let left = left.map(|left| usize::try_from(left).unwrap_or(0) + own);
            if let Some(left) = left.filter(|left| *left < counts.limit) {
                telemetry.emit(EventKind::TooLarge { max_size: counts.limit, left });
            }
        }
        Err(_) => lease.discard(),
    }
}

/// The right to be the pool's background task, of which there is one.
struct Running(Arc<Maintenance>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.is_running.store(false, SeqCst);
    }
}

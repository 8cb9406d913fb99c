//! Shows the pool to the controller, and does what it decides: sets the limit, caps operations, reports.
//!
//! The locks, in this order: the controller, the pool's limit, the slots. Observers are called under none of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use parking_lot::Mutex;

use super::limit::PoolLimit;
use crate::conn::{Dialer, LeaseRegistry};
use crate::event::EventKind;
use crate::holder::Holder;
use crate::policy::{Adaptive, AdaptiveFinding, Controller, EndedLease, Pooled, RefusalCounts, SizeTerms};
use crate::rates::OperationCaps;
use crate::slots::Slots;
use crate::status::{AdaptiveStatus, CappedOperation};
use crate::telemetry::Telemetry;

/// The limit of one pool, as the database can bear it.
pub(crate) struct AdaptiveLimit {
    mode: Adaptive,
    pub(super) controller: Mutex<Controller>,
    limit: Arc<PoolLimit>,
    caps: Arc<OperationCaps>,
    pub(super) registry: Arc<LeaseRegistry>,
    telemetry: Arc<Telemetry>,
    /// Whether the task that asks the server runs.
    pub(super) is_asking: AtomicBool,
    /// Why the server was last asked in vain.
    pub(super) trouble: Mutex<Option<String>>,
}

impl AdaptiveLimit {
    pub(crate) fn new(
        mode: Adaptive,
        terms: SizeTerms,
        limit: Arc<PoolLimit>,
        caps: Arc<OperationCaps>,
        registry: Arc<LeaseRegistry>,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        Self {
            mode,
            controller: Mutex::new(Controller::new(mode == Adaptive::Act, terms)),
            limit,
            caps,
            registry,
            telemetry,
            is_asking: AtomicBool::new(false),
            trouble: Mutex::new(None),
        }
    }

    /// One round: looks at the pool, and does what follows. `ended` are the leases that have ended since the last
    /// round, `holders` those that have not.
    pub(crate) fn look(
        &self,
        now: Instant,
        slots: &Arc<Slots<Dialer>>,
        refused: &RefusalCounts,
        ended: &[EndedLease],
        holders: &[Holder],
    ) {
        let counts = slots.counts();
        let held: Vec<_> = holders.iter().map(|holder| (holder.operation, holder.age)).collect();
        let pooled = Pooled {
            in_use: counts.in_use + counts.settling,
            waiting: counts.waiting,
            limit: counts.limit,
            arrivals: counts.arrivals,
            left: refused.total() + refused.timed_out,
            ended,
            held: &held,
        };
        let findings = {
            let mut controller = self.controller.lock();
            let findings = controller.look(now, &pooled);
            self.apply(&controller, slots);
            findings
        };
        findings.into_iter().for_each(|finding| self.telemetry.emit(event_of(finding)));
    }

    /// The owner has changed `max_size`. Returns the value before.
    pub(crate) fn resize(&self, slots: &Arc<Slots<Dialer>>, max_size: usize) -> usize {
        let mut controller = self.controller.lock();
        controller.resize(max_size);
        let before = self.limit.resize(slots, max_size);
        self.apply(&controller, slots);
        before
    }

    fn apply(&self, controller: &Controller, slots: &Arc<Slots<Dialer>>) {
        if let Some(limit) = controller.limit().filter(|limit| *limit != self.limit.adaptive()) {
            self.limit.set_adaptive(slots, limit);
        }
        self.caps.set(controller.caps());
    }

    pub(crate) fn status(&self, now: Instant) -> AdaptiveStatus {
        let controller = self.controller.lock();
        let capped = |(operation, most)| CappedOperation { operation, most };
        AdaptiveStatus {
            acts: self.mode == Adaptive::Act,
            limit: controller.limit().unwrap_or_else(|| self.limit.max_size()),
            max_size: self.limit.max_size(),
            inflation: controller.inflation(),
            advice: controller.advice(now),
            capped: controller.advised_caps().into_iter().map(capped).collect(),
            trouble: self.trouble.lock().as_deref().map(Arc::from),
        }
    }
}

fn event_of(finding: AdaptiveFinding) -> EventKind {
    match finding {
        AdaptiveFinding::Advised { advice, lasting } => EventKind::LimitAdvised { advice, lasting },
        AdaptiveFinding::Changed { advice } => EventKind::LimitChanged { advice },
        AdaptiveFinding::LockBound { advice, lasting } => EventKind::LockBound { advice, lasting },
        AdaptiveFinding::LockBoundEnded { lasted } => EventKind::LockBoundEnded { lasted },
        AdaptiveFinding::HeldByCaller { advice, lasting } => EventKind::HeldByCaller { advice, lasting },
        AdaptiveFinding::HeldByCallerEnded { lasted } => EventKind::HeldByCallerEnded { lasted },
    }
}

impl fmt::Debug for AdaptiveLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveLimit").field("mode", &self.mode).field("limit", &self.limit).finish_non_exhaustive()
    }
}

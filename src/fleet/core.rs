//! The budget of one pool: what its task and its owner share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::config::FleetConfig;
use super::reports::FleetReports;
use crate::adaptive::PoolLimit;
use crate::clock::now;
use crate::conn::Dialer;
use crate::policy::{Member, Terms};
use crate::slots::Slots;
use crate::status::FleetStatus;
use crate::telemetry::Telemetry;

/// The budget of one pool.
pub(crate) struct Fleet {
    pub(super) budget: String,
    pub(super) headroom: Option<usize>,
    pub(super) member: Mutex<Member>,
    /// What the pool may use, by all rules together.
    pub(crate) limit: Arc<PoolLimit>,
    pub(super) reports: Mutex<FleetReports>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) is_running: AtomicBool,
    /// Callers' demand in connections, as the bits of a number. The pool's rounds set it.
    pub(super) demand: AtomicU64,
    /// The owner has given an order: the beacon changes at once.
    pub(super) ordered: Notify,
    /// Why the latest reading failed, if it did.
    pub(super) trouble: Mutex<Option<String>>,
}

impl Fleet {
    pub(crate) fn new(config: &FleetConfig, max_size: usize, limit: Arc<PoolLimit>, telemetry: Arc<Telemetry>) -> Self {
        let id = (0..6).map(|_| char::from_digit(fastrand::u32(..36), 36).unwrap_or('0')).collect();
        let (budget, minimum) = (config.name.clone(), config.minimum);
        let terms = Terms { id, minimum, most: max_size };
        Self {
            budget,
            headroom: config.headroom,
            member: Mutex::new(Member::new(now(), terms)),
            limit,
            reports: Mutex::default(),
            telemetry,
            is_running: AtomicBool::new(false),
            demand: AtomicU64::new(0),
            ordered: Notify::new(),
            trouble: Mutex::default(),
        }
    }

    pub(crate) fn set_demand(&self, demand: Option<f64>) {
        self.demand.store(demand.unwrap_or_default().to_bits(), Relaxed);
    }

    /// The owner has changed `max_size`.
    pub(crate) fn resize(&self, slots: &Arc<Slots<Dialer>>, max_size: usize) {
        {
            let mut member = self.member.lock();
            member.resize(max_size);
            self.limit.set_budget(slots, member.limit());
        }
        self.ordered.notify_one();
    }

    /// The owner drains the pool: it wants nothing from now on.
    pub(crate) fn drain(&self) {
        self.member.lock().drain();
        self.ordered.notify_one();
    }

    pub(crate) fn status(&self) -> FleetStatus {
        let (member, now) = (self.member.lock(), now());
        let view = member.view();
        FleetStatus {
            name: self.budget.as_str().into(),
            state: member.state(now),
            granted: member.limit(),
            wanted: member.wanted(),
            minimum: member.minimum(),
            max_size: member.most(),
            members: view.map_or(0, |view| view.members),
            capacity: view.map(|view| view.capacity),
            strangers: view.map_or(0, |view| view.strangers),
            last_reading: view.map(|view| now.saturating_duration_since(view.at)),
        }
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("budget", &self.budget).field("member", &self.member).finish_non_exhaustive()
    }
}

//! Feature `fleet`: limits of single operations that the pool sets by itself, at run time
//! ([`Adaptive::Act`](crate::Adaptive::Act)). They bind newcomers: leases that run go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::RwLock;

use super::limiter::Limiter;
use super::rate::Rate;
use crate::clock::now;
use crate::operation::Operation;

/// The operations that are capped at present. None, mostly.
#[derive(Debug, Default)]
pub(crate) struct OperationCaps {
    has_any: AtomicBool,
    caps: RwLock<HashMap<Operation, (usize, Arc<Limiter>)>>,
}

impl OperationCaps {
    /// Whether an operation is capped.
    #[inline]
    pub(super) fn has_any(&self) -> bool {
        self.has_any.load(Relaxed)
    }

    pub(crate) fn is_capped(&self, operation: Operation) -> bool {
        self.has_any() && self.caps.read().contains_key(&operation)
    }

    pub(super) fn of(&self, operation: Operation) -> Option<Arc<Limiter>> {
        if !self.has_any() {
            return None;
        }
        self.caps.read().get(&operation).map(|(_, limiter)| Arc::clone(limiter))
    }

    /// From now on these operations may have so many calls under way, and all others as many as they like. A cap that
    /// stays the same goes on counting.
    pub(crate) fn set(&self, caps: Vec<(Operation, usize)>) {
        if caps.is_empty() && !self.has_any() {
            return;
        }
        let mut all = self.caps.write();
        all.retain(|operation, (most, _)| caps.contains(&(*operation, *most)));
        for (operation, most) in caps {
            let limiter = || Arc::new(Limiter::new(now(), Rate::new().concurrency(most)));
            all.entry(operation).or_insert_with(|| (most, limiter()));
        }
        self.has_any.store(!all.is_empty(), Relaxed);
    }
}

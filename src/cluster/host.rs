//! One host of a cluster: its pool, and how many calls of the cluster are at work on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::pool::Pool;

#[derive(Debug)]
pub(super) struct Host {
    /// Host and port.
    pub(super) label: Arc<str>,
    pub(super) pool: Pool,
    /// Calls that were sent here and have not ended.
    under_way: AtomicUsize,
}

/// A call is at work, until this is dropped.
#[derive(Debug)]
pub(super) struct UnderWay<'a>(&'a AtomicUsize);

impl Host {
    pub(super) fn new(label: Arc<str>, pool: Pool) -> Self {
        Self { label, pool, under_way: AtomicUsize::new(0) }
    }

    pub(super) fn begin(&self) -> UnderWay<'_> {
        UnderWay::new(&self.under_way)
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Relaxed)
    }
}

impl<'a> UnderWay<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }

    /// Counts one more, unless there are as many already.
    pub(super) fn below(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let more = |under_way| (under_way < most).then_some(under_way + 1);
        count.fetch_update(Relaxed, Relaxed, more).ok().map(|_| Self(count))
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

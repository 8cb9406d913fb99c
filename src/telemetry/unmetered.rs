//! Replaces `metered` without the feature `metrics`: the same names, which do nothing.

use std::sync::Arc;
use std::time::Duration;

use super::{Fault, Observer};
use crate::policy::{RefusalCounts, Transition};
use crate::status::Status;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Given(());

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stamp(());

#[derive(Debug, Clone)]
pub(crate) struct Meter(());

// They take no memory in a call, a statement or a connection.
const _: () = assert!(size_of::<(Meter, Stamp)>() == 0);

impl Meter {
    #[inline]
    pub(crate) fn new(_: Arc<str>, _: usize, _: Given) -> Self {
        Self(())
    }

    #[inline]
    pub(crate) fn start(&self) -> Stamp {
        Stamp(())
    }

    #[inline]
    pub(crate) fn waited(&self, _: impl FnOnce() -> Duration) {}

    #[inline]
    pub(crate) fn used(&self, _: Stamp) {}

    #[inline]
    pub(crate) fn connected(&self, _: Duration) {}

    #[inline]
    pub(crate) fn connect_failed(&self) {}

    #[inline]
    pub(crate) fn lost(&self) {}

    #[inline]
    pub(crate) fn settle_failed(&self) {}

    #[inline]
    pub(crate) fn is_recorded(&self) -> bool {
        false
    }

    #[inline]
    pub(crate) fn operated(&self, _: Option<&'static str>, _: Duration, _: Option<Fault>) {}

    #[inline]
    pub(crate) fn operated_since(&self, _: Stamp, _: Option<&'static str>, _: Option<Fault>) {}

    #[inline]
    pub(crate) fn fell_back(&self, _: Stamp, _: Option<&'static str>, _: Fault) {}

    #[inline]
    pub(crate) fn retried(&self, _: &str) {}

    #[inline]
    pub(crate) fn gave_up(&self) {}

    #[inline]
    pub(crate) fn follow(&self, _: &Transition, _: bool) {}

    #[inline]
    pub(crate) fn look(&self, _: &Status, _: impl FnOnce() -> (RefusalCounts, u64)) {}

    #[inline]
    pub(crate) fn end(&self, _: Option<impl FnOnce() -> (RefusalCounts, u64)>) {}

    #[inline]
    pub(crate) fn observer(&self) -> Option<Arc<dyn Observer>> {
        None
    }
}

#[cfg(feature = "cluster")]
#[derive(Debug)]
pub(crate) struct ClusterMeter(());

#[cfg(feature = "cluster")]
impl ClusterMeter {
    pub(crate) fn new(_: Arc<str>, _: Given) -> Self {
        Self(())
    }

    pub(crate) fn look_at(&self, _: &Arc<str>, _: bool, _: bool, _: bool, _: Option<Duration>) {}

    pub(crate) fn look(&self, _: usize, _: usize) {}

    pub(crate) fn observer(&self) -> Option<Arc<dyn Observer>> {
        None
    }

    pub(crate) fn read(&self, _: super::ReadRoute) {}

    pub(crate) fn refused(&self, _: crate::error::ErrorKind) {}

    pub(crate) fn fell_back(&self, _: Option<&'static str>, _: Fault) {}

    pub(crate) fn on_end<'a>(&self, _: impl Iterator<Item = &'a Arc<str>>) {}
}

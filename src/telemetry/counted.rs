//! What a pool counts of its callers, since it began.

use crate::policy::Refused;

#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "only metrics want to know"))]
pub(crate) struct Counted {
    pub(crate) refused: Refused,
    /// Who would not wait, and found nothing idle.
    pub(crate) none_idle: u64,
    /// By the open circuit.
    pub(crate) rejected: u64,
    /// Who found a connection idle.
    pub(crate) at_once: u64,
}

#[cfg(feature = "metrics")]
impl Counted {
    /// Who was shed, by reason.
    pub(super) fn shed(&self) -> [(&'static str, u64); 6] {
        use crate::error::ShedReason::{Hopeless, NoneIdle, Overloaded, QueueFull, TooLate, Unread};

        let Refused { queue_full, hopeless, too_late, overloaded, unread, .. } = self.refused;
        [
            (QueueFull.as_str(), queue_full),
            (Hopeless.as_str(), hopeless),
            (TooLate.as_str(), too_late),
            (Overloaded.as_str(), overloaded),
            (Unread.as_str(), unread),
            (NoneIdle.as_str(), self.none_idle),
        ]
    }
}

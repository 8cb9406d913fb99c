//! What an operator should know of the budget: that it is short, that strangers take much of it, that the member is
//! blind, or that a pooler makes it impossible.

use std::time::{Duration, Instant};

use crate::event::EventKind;
use crate::policy::{DueReport, FleetState, Lasting, Member, Sign};

/// A shorter shortage is usual when load has just moved.
const SHORT: Duration = Duration::from_secs(10);
/// Strangers that stay for less than this are not reported.
const STAYS: Duration = Duration::from_secs(5);
/// The end is reported when the condition has been absent for this long.
const CALM: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct FleetReports {
    short: Lasting,
    strangers: Lasting,
    blind: Lasting,
    off: Lasting,
}

impl Default for FleetReports {
    fn default() -> Self {
        Self {
            short: Lasting::new(SHORT, CALM),
            strangers: Lasting::new(STAYS, CALM),
            blind: Lasting::new(Duration::ZERO, Duration::ZERO),
            off: Lasting::new(Duration::ZERO, Duration::ZERO),
        }
    }
}

impl FleetReports {
    /// The events that are due. `trouble` is why the latest reading failed.
    pub(super) fn look(&mut self, now: Instant, member: &Member, trouble: Option<&str>) -> Vec<EventKind> {
        let state = member.state(now);
        let sign = |holds: bool| if holds { Sign::Yes } else { Sign::No };
        let off = self.off.look(now, sign(state == FleetState::Off)).map(|due| match due {
            DueReport::Lasts(lasting) => EventKind::FleetOff { lasting },
            DueReport::Ended(lasted) => EventKind::FleetOn { lasted },
        });
        let blind = self.blind.look(now, sign(state == FleetState::Blind)).map(|due| match due {
            DueReport::Lasts(lasting) => {
                let reason = trouble.unwrap_or("no reading yet").to_owned();
                EventKind::FleetBlind { granted: member.limit(), reason, lasting }
            }
            DueReport::Ended(lasted) => EventKind::FleetSees { lasted },
        });
        let Some(view) = member.view() else { return off.into_iter().chain(blind).collect() };
        let (granted, wanted, members) = (member.limit(), member.wanted(), view.members);
        let is_sharing = matches!(state, FleetState::Sharing | FleetState::Joining | FleetState::ServerFull);
        let is_short = is_sharing && (view.share < wanted || view.minimums > view.capacity);
        let capacity = view.capacity;
        let short = self.short.look(now, sign(is_short)).map(|due| match due {
            DueReport::Lasts(lasting) => {
                EventKind::FleetShort { granted, wanted, capacity, members, minimums: view.minimums, lasting }
            }
            DueReport::Ended(lasted) => EventKind::FleetSuffices { lasted },
        });
        let (count, headroom) = (view.strangers, view.headroom);
        let strangers = self.strangers.look(now, sign(is_sharing && count > headroom)).map(|due| match due {
            DueReport::Lasts(lasting) => EventKind::FleetStrangers { count, capacity, lasting },
            DueReport::Ended(lasted) => EventKind::FleetStrangersGone { lasted },
        });
        [off, blind, short, strangers].into_iter().flatten().collect()
    }
}

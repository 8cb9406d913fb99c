//! Events about what connections notice: lost connections, failed clean-ups, warnings of the server, failed dials.
//!
//! An event of a kind comes at most every [`REPEAT`]. It reports how many occurrences there were since the one before,
//! the latest of them, and how long ago that was.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use crate::clock;
use crate::conn::ConnectionEvent;
use crate::error::{ConnectError, Lost};
use crate::event::EventKind;
use crate::policy::{DueReport, Lasting, REPEAT, Sign};

#[derive(Debug)]
pub(super) struct ConnectionReports {
    lost: Limited<Arc<Lost>>,
    unsettled: Limited<()>,
    warned: Limited<(String, SqlState)>,
    /// Dials that failed since the last event about dials.
    failed_dials: u64,
    connecting: Lasting,
}

impl ConnectionReports {
    pub(super) fn new() -> Self {
        Self {
            lost: Limited::default(),
            unsettled: Limited::default(),
            warned: Limited::default(),
            failed_dials: 0,
            connecting: Lasting::new(Duration::ZERO, Duration::ZERO),
        }
    }

    /// Counts an occurrence for the next round.
    pub(super) fn on_connection_event(&mut self, event: &ConnectionEvent) {
        match event {
            ConnectionEvent::Lost { cause } => self.lost.add(Arc::clone(cause)),
            ConnectionEvent::SettleFailed => self.unsettled.add(()),
            ConnectionEvent::Warned { message, sqlstate } => self.warned.add((message.clone(), sqlstate.clone())),
            ConnectionEvent::DialFailed => self.failed_dials += 1,
            ConnectionEvent::Dials
            | ConnectionEvent::Dialed { .. }
            | ConnectionEvent::AddressAvoided { .. }
            | ConnectionEvent::AddressRestored { .. }
            | ConnectionEvent::WrongHost { .. }
            | ConnectionEvent::HeldUp { .. } => {}
        }
    }

    /// The events that are due. `error` is the error of the latest dial, if no dial has succeeded since.
    pub(super) fn look(&mut self, now: Instant, error: Option<ConnectError>) -> Vec<EventKind> {
        let lost = self.lost.take(now, |lost, count, ago| EventKind::ConnectionLost { lost, count, ago });
        let unsettled = self.unsettled.take(now, |(), count, ago| EventKind::SettleFailed { count, ago });
        let warned = self.warned.take(now, |(message, sqlstate), count, ago| EventKind::ServerWarning {
            message,
            sqlstate,
            count,
            ago,
        });
        [lost, unsettled, warned, self.dials(now, error)].into_iter().flatten().collect()
    }

    fn dials(&mut self, now: Instant, error: Option<ConnectError>) -> Option<EventKind> {
        // Without a dial since the last event, it is unknown whether dials still fail.
        let sign = match &error {
            None => Sign::No,
            Some(_) if self.connecting.is_reported() && self.failed_dials == 0 => Sign::Near,
            Some(_) => Sign::Yes,
        };
        match (self.connecting.look(now, sign), error) {
            (Some(DueReport::Lasts(lasting)), Some(error)) => {
                Some(EventKind::ConnectFailed { error, count: mem::take(&mut self.failed_dials), lasting })
            }
            (Some(DueReport::Ended(lasted)), _) => {
                self.failed_dials = 0;
                Some(EventKind::ConnectRecovered { lasted })
            }
            _ => None,
        }
    }
}

/// The occurrences of one kind, of which an event comes at most every [`REPEAT`].
#[derive(Debug)]
struct Limited<T> {
    reported: Option<Instant>,
    /// The occurrences that no event has reported.
    count: u64,
    /// The latest of these, and when it was.
    latest: Option<(T, Instant)>,
}

impl<T> Default for Limited<T> {
    fn default() -> Self {
        Self { reported: None, count: 0, latest: None }
    }
}

impl<T> Limited<T> {
    fn add(&mut self, latest: T) {
        self.count += 1;
        self.latest = Some((latest, clock::now()));
    }

    /// The event about the unreported occurrences, if there are any and an event is due.
    fn take(&mut self, now: Instant, event: impl FnOnce(T, u64, Duration) -> EventKind) -> Option<EventKind> {
        if self.reported.is_some_and(|reported| now.saturating_duration_since(reported) < REPEAT) {
            return None;
        }
        let (latest, at) = self.latest.take()?;
        self.reported = Some(now);
        Some(event(latest, mem::take(&mut self.count), now.saturating_duration_since(at)))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;
    use crate::conn::Dialer;
    use crate::slots::Dial as _;

    #[tokio::test(start_paused = true)]
    async fn a_late_event_says_how_long_ago_the_latest_occurrence_was() {
        let mut reports = ConnectionReports::new();
        let cause = Arc::new(Lost::sealed());
        let occur = |reports: &mut ConnectionReports| {
            reports.on_connection_event(&ConnectionEvent::Lost { cause: Arc::clone(&cause) });
            reports.on_connection_event(&ConnectionEvent::SettleFailed);
        };
        let look = |reports: &mut ConnectionReports| {
            let events = reports.look(clock::now(), None);
            events.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        occur(&mut reports);
        let both = [format!("lost 1 connection: {cause}"), "closed 1 connection: the clean-up failed".into()];
        assert_eq!(look(&mut reports), both);
        time::advance(Duration::from_secs(8)).await;
        occur(&mut reports);
        occur(&mut reports);
        assert!(look(&mut reports).is_empty());
        time::advance(Duration::from_secs(22)).await;
        let late = ", the last 22 s ago: ";
        assert_eq!(
            look(&mut reports),
            [format!("lost 2 connections{late}{cause}"), format!("closed 2 connections{late}the clean-up failed")]
        );
    }

    #[test]
    fn failed_dials_are_counted_by_outage_and_reported_again_only_after_further_ones() {
        let begun = Instant::now();
        let mut reports = ConnectionReports::new();
        let mut look = |seconds, failed: u64, is_failing: bool| {
            (0..failed).for_each(|_| reports.on_connection_event(&ConnectionEvent::DialFailed));
            let error = is_failing.then(Dialer::abandoned);
            let count = |event| match event {
                EventKind::ConnectFailed { count, .. } => Some(count),
                _ => None,
            };
            let events = reports.look(begun + Duration::from_secs(seconds), error);
            events.into_iter().map(count).collect::<Vec<_>>()
        };
        assert_eq!(look(0, 1, true), [Some(1)]);
        assert_eq!(look(40, 0, true), [], "no dial has begun since");
        assert_eq!(look(41, 3, true), [Some(3)]);
        assert_eq!(look(50, 20, true), []);
        assert_eq!(look(60, 0, false), [None], "the outage has ended");
        assert_eq!(look(100, 1, true), [Some(1)], "the count is of this outage");
    }
}

//! What is known of the server behind the pool's name: whether it is about to go, whether it has been replaced, and where it is.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::conn::Role;
use crate::error::Lost;

/// However many connections notice the same, it is acted upon once in so long.
const SAME: Duration = Duration::from_secs(1);
/// The pause doubles so often at most.
const MOST_IN_VAIN: u32 = 4;
/// What was done in vain so long ago says nothing of now.
const LONG_AGO: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct ServerRole(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    acted: Option<Instant>,
    /// When one of its processes was told to stop.
    stopped: Option<Instant>,
    /// Where the latest that takes writes is.
    primary: Option<Arc<str>>,
    /// That one takes no writes any more: the next that does may be another.
    is_doubted: bool,
    /// It was dialed since, and only read.
    is_demoted: bool,
    /// Looked for another so many times, and found none.
    in_vain: u32,
}

impl ServerRole {
    /// Whether a connection lost like this means that the others are, or will be, and nobody has acted on that yet. One process told to stop is an
    /// administrator's doing; two are a server that shuts down. One that crashes takes all of them along.
    pub(super) fn stops(&self, cause: &Lost, now: Instant) -> bool {
        let mut known = self.0.lock();
        let is_stop = cause.is_shutdown();
        let before = if is_stop { known.stopped.replace(now) } else { None };
        let is_another = before.is_some_and(|before| now - before <= SAME);
        (is_another || cause.is_crash()) && known.act(now)
    }

    /// The server refuses a write, on a session that was dialed as this. Whether all connections are to be made anew, because that may lead to
    /// another server.
    pub(super) fn refuses_writes(&self, now: Instant, dialed_as: Role) -> bool {
        let mut known = self.0.lock();
        let has_seen_primary = known.primary.is_some();
        // Somebody writes where one is meant to read.
        if dialed_as == Role::ReadOnly && !has_seen_primary {
            return false;
        }
        known.is_doubted = true;
        let since = known.acted.map(|acted| now - acted);
        if since.is_some_and(|since| since >= LONG_AGO) {
            known.in_vain = 0;
        }
        // Where nothing else is found, that is no reason to dial for ever; least of all if none was ever known.
        let doublings = match known.in_vain {
            1.. if dialed_as == Role::Standby && !has_seen_primary => MOST_IN_VAIN,
            in_vain => in_vain.min(MOST_IN_VAIN),
        };
        let is_due = since.is_none_or(|since| since >= SAME * 2u32.pow(doublings));
        if is_due {
            known.acted = Some(now);
            known.in_vain += 1;
        }
        is_due
    }

    /// A connection was made. If it leads to another primary than before: where that was, and where this one is.
    pub(super) fn is_at(&self, address: Arc<str>, is_read_only: Option<bool>) -> Option<(Option<String>, String)> {
        let mut known = self.0.lock();
        let is_there = known.primary.as_ref() == Some(&address);
        if is_read_only == Some(true) {
            known.is_demoted |= known.is_doubted && (is_there || known.primary.is_none());
            return None;
        }
        // Where the role is hidden, one that only reads looks like one that writes.
        if is_read_only.is_none() && known.is_doubted && is_there {
            return None;
        }
        let has_changed = known.is_doubted && (!is_there || known.is_demoted);
        (known.is_doubted, known.is_demoted) = (false, false);
        let before = known.primary.replace(Arc::clone(&address));
        if !has_changed {
            return None;
        }
        known.in_vain = 0;
        Some((before.map(|before| before.to_string()), address.to_string()))
    }
}

impl Known {
    fn act(&mut self, now: Instant) -> bool {
        let is_due = self.acted.is_none_or(|acted| now - acted >= SAME);
        if is_due {
            self.acted = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One pool, whose server refuses writes from the second `from` until `until`, once a second: when all connections are made anew.
    fn acted(server: &ServerRole, begun: Instant, dialed_as: Role, from: u64, until: u64) -> Vec<u64> {
        let due = |second: &u64| server.refuses_writes(begun + Duration::from_secs(*second), dialed_as);
        (from..until).filter(due).collect()
    }

    #[test]
    fn a_server_that_only_reads_is_left_ever_more_seldom_until_one_that_writes_is_found() {
        let (server, begun) = (ServerRole::default(), Instant::now());
        assert_eq!(acted(&server, begun, Role::Primary, 0, 60), [0, 2, 6, 14, 30, 46]);
        assert_eq!(server.is_at("10.0.0.1:5432".into(), Some(true)), None);
        assert_eq!(server.is_at("10.0.0.2:5432".into(), Some(false)), Some((None, "10.0.0.2:5432".to_owned())));
        assert_eq!(server.is_at("10.0.0.2:5432".into(), Some(false)), None, "told once");
        assert_eq!(acted(&server, begun, Role::Primary, 60, 64), [60, 62]);
    }

    #[test]
    fn a_session_that_only_read_when_it_was_dialed_says_nothing_new() {
        let (server, begun) = (ServerRole::default(), Instant::now());
        assert_eq!(server.is_at("10.0.0.1:5432".into(), Some(true)), None);
        assert_eq!(acted(&server, begun, Role::ReadOnly, 0, 60), [0; 0], "a setting says no");
        assert_eq!(acted(&server, begun, Role::Standby, 0, 60), [0, 16, 32, 48], "but a name may lead elsewhere now");
    }

    #[test]
    fn after_a_primary_was_lost_a_session_that_only_reads_is_a_reminder() {
        let (server, begun) = (ServerRole::default(), Instant::now());
        assert_eq!(server.is_at("10.0.0.1:5432".into(), Some(false)), None);
        assert_eq!(server.is_at("10.0.0.2:5432".into(), Some(true)), None);
        assert_eq!(acted(&server, begun, Role::Standby, 0, 20), [0, 2, 6, 14]);
    }

    #[test]
    fn where_the_role_is_hidden_nothing_is_told_of_the_same_place() {
        let (server, begun) = (ServerRole::default(), Instant::now());
        assert_eq!(server.is_at("10.0.0.1:5432".into(), None), None);
        for second in 0..60 {
            server.refuses_writes(begun + Duration::from_secs(second), Role::Primary);
            assert_eq!(server.is_at("10.0.0.1:5432".into(), None), None);
        }
        assert_eq!(acted(&server, begun, Role::Primary, 60, 63), [62], "the pause goes on");
    }

    #[test]
    fn where_the_role_is_hidden_another_place_is_told_though_the_same_was_seen_in_between() {
        let (server, begun) = (ServerRole::default(), Instant::now());
        assert_eq!(server.is_at("10.0.0.1:5432".into(), None), None);
        assert!(server.refuses_writes(begun, Role::Primary));
        assert_eq!(server.is_at("10.0.0.1:5432".into(), None), None);
        let (from, to) = (Some("10.0.0.1:5432".to_owned()), "10.0.0.2:5432".to_owned());
        assert_eq!(server.is_at("10.0.0.2:5432".into(), None), Some((from, to)));
    }

    /// Behind a relay that hides the role, somebody writes in a transaction that is to read only.
    #[test]
    fn a_primary_that_is_found_where_it_was_is_no_change_and_no_reason_for_haste() {
        let (server, begun) = (ServerRole::default(), Instant::now());
        assert_eq!(server.is_at("10.0.0.1:5432".into(), Some(false)), None);
        let due = |second: &u64| {
            let is_due = server.refuses_writes(begun + Duration::from_secs(*second), Role::Primary);
            assert_eq!(server.is_at("10.0.0.1:5432".into(), Some(false)), None);
            is_due
        };
        assert_eq!((0..20).filter(due).collect::<Vec<_>>(), [0, 2, 6, 14]);
    }

    #[test]
    fn one_that_was_demoted_and_takes_writes_again_has_changed() {
        let (server, begun) = (ServerRole::default(), Instant::now());
        let place = "10.0.0.1:5432";
        assert_eq!(server.is_at(place.into(), Some(false)), None);
        assert!(server.refuses_writes(begun, Role::Primary));
        assert_eq!(server.is_at(place.into(), Some(true)), None);
        let (from, to) = (Some(place.to_owned()), place.to_owned());
        assert_eq!(server.is_at(place.into(), Some(false)), Some((from, to)));
        assert_eq!(server.is_at(place.into(), Some(false)), None, "told once");
    }

    #[test]
    fn what_was_in_vain_long_ago_says_nothing_of_now() {
        let (server, begun) = (ServerRole::default(), Instant::now());
        assert_eq!(acted(&server, begun, Role::Primary, 0, 20), [0, 2, 6, 14]);
        assert_eq!(acted(&server, begun, Role::Primary, 100, 103), [100, 102]);
    }
}

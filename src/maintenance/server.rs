//! The server behind the pool's host name: does it shut down, was it replaced, and where is it?

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::conn::Role;
use crate::error::Lost;
use crate::policy::Terminations;

/// The pool replaces all connections at most once in this time, however many of them notice the same.
const AT_MOST_ONCE_IN: Duration = Duration::from_secs(1);
/// How often that time doubles at most, while the pool finds no server that accepts writes.
const MOST_IN_VAIN: u32 = 4;
/// After this time without a refused write, the time no longer doubles.
const LONG_AGO: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct ServerRole(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// When the pool last replaced all connections.
    acted: Option<Instant>,
    terminations: Terminations,
    /// The address of the latest server that accepted writes.
    primary: Option<Arc<str>>,
    trust: Trust,
    /// How often the pool has looked for another server and found none.
    in_vain: u32,
}

/// Whether the latest primary still is one.
#[derive(Debug, Default, PartialEq, Eq)]
enum Trust {
    #[default]
    Sure,
    /// It has refused a write, so the next server that accepts writes may be another one.
    Doubted,
    /// It was dialed since then, and was read-only.
    Demoted,
}

impl ServerRole {
    /// A connection was lost. Returns whether the pool has to replace all connections, because the server shuts down or
    /// has crashed. A process that crashes takes all sessions along.
    pub(super) fn on_lost(&self, cause: &Lost, now: Instant) -> bool {
        let mut known = self.0.lock();
        let shuts_down = cause.is_shutdown() && known.terminations.on_terminated(now);
        (shuts_down || cause.is_crash()) && known.act(now)
    }

    /// The server refused a write on a session that was dialed with this role. Returns whether the pool has to replace
    /// all connections, because that may lead to another server.
    pub(super) fn on_write_refused(&self, now: Instant, dialed_as: Role) -> bool {
        let mut known = self.0.lock();
        let has_seen_primary = known.primary.is_some();
        // A caller writes in a session that a setting has made read-only.
        if dialed_as == Role::ReadOnly && !has_seen_primary {
            return false;
        }
        if known.trust == Trust::Sure {
            known.trust = Trust::Doubted;
        }
        let since = known.acted.map(|acted| now.saturating_duration_since(acted));
        if since.is_some_and(|since| since >= LONG_AGO) {
            known.in_vain = 0;
        }
        // If the pool finds no other server, it dials less and less often; least often if it never knew a primary.
        let doublings = match known.in_vain {
            1.. if dialed_as == Role::Standby && !has_seen_primary => MOST_IN_VAIN,
            in_vain => in_vain.min(MOST_IN_VAIN),
        };
        let is_due = since.is_none_or(|since| since >= AT_MOST_ONCE_IN * 2u32.pow(doublings));
        if is_due {
            known.acted = Some(now);
            known.in_vain += 1;
        }
        is_due
    }

    /// A connection was made. If it leads to another primary than before, returns the addresses of both.
    pub(super) fn on_dialed(&self, address: Arc<str>, is_read_only: Option<bool>) -> Option<(Option<String>, String)> {
        let mut known = self.0.lock();
        let is_there = known.primary.as_ref() == Some(&address);
        if is_read_only == Some(true) {
            if known.trust == Trust::Doubted && (is_there || known.primary.is_none()) {
                known.trust = Trust::Demoted;
            }
            return None;
        }
        // If a relay hides the role, a read-only server looks like a primary.
        if is_read_only.is_none() && known.trust != Trust::Sure && is_there {
            return None;
        }
        let has_changed = match std::mem::take(&mut known.trust) {
            Trust::Sure => false,
            Trust::Doubted => !is_there,
            Trust::Demoted => true,
        };
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
        let is_due = self.acted.is_none_or(|acted| now.saturating_duration_since(acted) >= AT_MOST_ONCE_IN);
        if is_due {
            self.acted = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The server refuses a write each second from `from` until `until`. Returns in which seconds the pool replaces all
    /// connections.
    fn acted(server: &ServerRole, begun: Instant, dialed_as: Role, from: u64, until: u64) -> Vec<u64> {
        let due = |second: &u64| server.on_write_refused(begun + Duration::from_secs(*second), dialed_as);
        (from..until).filter(due).collect()
    }

    #[test]
    fn a_pool_on_a_read_only_server_dials_less_and_less_often_until_it_finds_a_primary() {
        let (server, begun) = (ServerRole::default(), Instant::now());
        assert_eq!(acted(&server, begun, Role::Primary, 0, 60), [0, 2, 6, 14, 30, 46]);
        assert_eq!(server.on_dialed("10.0.0.1:5432".into(), Some(true)), None);
        assert_eq!(server.on_dialed("10.0.0.2:5432".into(), Some(false)), Some((None, "10.0.0.2:5432".to_owned())));
        assert_eq!(server.on_dialed("10.0.0.2:5432".into(), Some(false)), None, "reported once");
        assert_eq!(acted(&server, begun, Role::Primary, 60, 64), [60, 62]);
    }

    #[test]
    fn a_session_that_was_dialed_read_only_says_nothing_new() {
        let (server, begun) = (ServerRole::default(), Instant::now());
        assert_eq!(server.on_dialed("10.0.0.1:5432".into(), Some(true)), None);
        assert_eq!(acted(&server, begun, Role::ReadOnly, 0, 60), [0; 0], "a setting makes it read-only");
        assert_eq!(acted(&server, begun, Role::Standby, 0, 60), [0, 16, 32, 48], "but the name may lead elsewhere now");
    }

    #[test]
    fn after_a_primary_a_refused_write_on_a_standby_counts_fully() {
        let (server, begun) = (ServerRole::default(), Instant::now());
        assert_eq!(server.on_dialed("10.0.0.1:5432".into(), Some(false)), None);
        assert_eq!(server.on_dialed("10.0.0.2:5432".into(), Some(true)), None);
        assert_eq!(acted(&server, begun, Role::Standby, 0, 20), [0, 2, 6, 14]);
    }

    #[test]
    fn with_a_hidden_role_the_same_address_is_no_change() {
        let (server, begun) = (ServerRole::default(), Instant::now());
        assert_eq!(server.on_dialed("10.0.0.1:5432".into(), None), None);
        for second in 0..60 {
            server.on_write_refused(begun + Duration::from_secs(second), Role::Primary);
            assert_eq!(server.on_dialed("10.0.0.1:5432".into(), None), None);
        }
        assert_eq!(acted(&server, begun, Role::Primary, 60, 63), [62], "the pause goes on");
    }

    #[test]
    fn with_a_hidden_role_another_address_is_a_change() {
        let (server, begun) = (ServerRole::default(), Instant::now());
        assert_eq!(server.on_dialed("10.0.0.1:5432".into(), None), None);
        assert!(server.on_write_refused(begun, Role::Primary));
        assert_eq!(server.on_dialed("10.0.0.1:5432".into(), None), None);
        let (from, to) = (Some("10.0.0.1:5432".to_owned()), "10.0.0.2:5432".to_owned());
        assert_eq!(server.on_dialed("10.0.0.2:5432".into(), None), Some((from, to)));
    }

    /// A caller writes in a read-only transaction behind a relay that hides the role.
    #[test]
    fn a_primary_at_the_same_address_is_no_change_and_the_pauses_grow() {
        let (server, begun) = (ServerRole::default(), Instant::now());
        assert_eq!(server.on_dialed("10.0.0.1:5432".into(), Some(false)), None);
        let due = |second: &u64| {
            let is_due = server.on_write_refused(begun + Duration::from_secs(*second), Role::Primary);
            assert_eq!(server.on_dialed("10.0.0.1:5432".into(), Some(false)), None);
            is_due
        };
        assert_eq!((0..20).filter(due).collect::<Vec<_>>(), [0, 2, 6, 14]);
    }

    #[test]
    fn a_server_that_was_demoted_and_accepts_writes_again_has_changed() {
        let (server, begun) = (ServerRole::default(), Instant::now());
        let place = "10.0.0.1:5432";
        assert_eq!(server.on_dialed(place.into(), Some(false)), None);
        assert!(server.on_write_refused(begun, Role::Primary));
        assert_eq!(server.on_dialed(place.into(), Some(true)), None);
        let (from, to) = (Some(place.to_owned()), place.to_owned());
        assert_eq!(server.on_dialed(place.into(), Some(false)), Some((from, to)));
        assert_eq!(server.on_dialed(place.into(), Some(false)), None, "reported once");
    }

    #[test]
    fn the_pauses_begin_anew_after_a_minute() {
        let (server, begun) = (ServerRole::default(), Instant::now());
        assert_eq!(acted(&server, begun, Role::Primary, 0, 20), [0, 2, 6, 14]);
        assert_eq!(acted(&server, begun, Role::Primary, 100, 103), [100, 102]);
    }
}

//! The statement that shows a beacon, and reads the limits, the counts and the beacons of the others.
//!
//! It calls the function behind `pg_stat_activity`, without the view's joins. Every role may see the name, the database
//! and the role of every session. It sees the kind of a session only for its own role. All others count as clients.

use crate::policy::{Beacon, FleetReading, Peer, Scope};
use crate::slots::MOST_CONNECTIONS;

/// Asks for the process that answers.
pub(super) const WHO: &str = "SELECT pg_catalog.pg_backend_pid()";

/// The server ends a session whose client has vanished after about 20 s. Set on the session that shows the beacon.
pub(super) const KEEPALIVES: &str = "SELECT pg_catalog.set_config('tcp_keepalives_idle', '10', false), \
                                     pg_catalog.set_config('tcp_keepalives_interval', '3', false), \
                                     pg_catalog.set_config('tcp_keepalives_count', '3', false)";

/// Shows a beacon. Its text has no quotes.
pub(super) fn show(beacon: &str) -> String {
    format!("SELECT pg_catalog.set_config('application_name', '{beacon}', false)")
}

/// Shows a beacon, and reads.
pub(super) fn read(beacon: &str, budget: &str) -> String {
    let prefix = Beacon::prefix(budget);
    format!(
        "WITH seen AS MATERIALIZED (SELECT pid, datid, usesysid, application_name \
         FROM pg_catalog.pg_stat_get_activity(NULL) WHERE datid IS NOT NULL AND usesysid IS NOT NULL \
         AND coalesce(backend_type, 'client backend') = 'client backend'), \
         own AS MATERIALIZED (SELECT d.oid AS database, r.oid AS role, \
         CASE WHEN r.rolsuper THEN -1 ELSE d.datconnlimit END AS of_database, \
         CASE WHEN r.rolsuper THEN -1 ELSE r.rolconnlimit END AS of_role \
         FROM pg_catalog.pg_database d, pg_catalog.pg_roles r \
         WHERE d.datname = pg_catalog.current_database() AND r.rolname = session_user) \
         SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('max_connections')::int \
         - pg_catalog.current_setting('superuser_reserved_connections')::int \
         - coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::int, \
         (SELECT count(*) FROM seen), of_database, (SELECT count(*) FROM seen WHERE datid = database), \
         of_role, (SELECT count(*) FROM seen WHERE usesysid = role), \
         (SELECT pg_catalog.string_agg(pg_catalog.concat_ws('|', pid, (datid = database)::int, (usesysid = role)::int, \
         application_name), pg_catalog.chr(10)) FROM seen \
         WHERE pg_catalog.starts_with(application_name, '{prefix}')), \
         pg_catalog.set_config('application_name', '{beacon}', false) FROM own"
    )
}

/// Reads the answer. Returns `None` if it makes no sense.
pub(super) fn answer(row: &[Option<String>], budget: &str, headroom: Option<usize>) -> Option<FleetReading> {
    let number = |column: usize| row.get(column)?.as_deref()?.parse::<i64>().ok();
    let scope = |limit: i64, connections: usize| {
        let (limit, connections) = (usize::try_from(limit).ok()?, usize::try_from(number(connections)?).ok()?);
        Some(Scope { limit, headroom, connections })
    };
    // The owner has chosen the headroom for the server. A part of the server may be smaller than that.
    let part = |limit: i64, connections: usize| {
        let scope = scope(limit, connections)?;
        Some(Scope { headroom: headroom.map(|headroom| headroom.min(scope.limit / 2)), ..scope })
    };
    let process = u32::try_from(number(0)?).ok()?;
    let beacons = row.get(7)?.as_deref().unwrap_or_default();
    let peers = beacons.lines().filter_map(|line| peer(line, budget)).collect();
    // A negative limit is none.
    let scopes = [Some(scope(number(1)?, 2)?), part(number(3)?, 4), part(number(5)?, 6)];
    Some(FleetReading { process, peers, scopes })
}

/// Reads one line. A line that is no beacon is a stranger's.
fn peer(line: &str, budget: &str) -> Option<Peer> {
    let mut parts = line.splitn(4, '|');
    let process = parts.next()?.parse().ok()?;
    let is_within = [parts.next()? == "1", parts.next()? == "1"];
    let beacon = Beacon::read(parts.next()?, budget, MOST_CONNECTIONS)?;
    Some(Peer { process, beacon, is_within })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &[&str]) -> Vec<Option<String>> {
        columns.iter().map(|text| Some((*text).to_owned()).filter(|text| text != "NULL")).collect()
    }

    #[test]
    fn an_answer_has_limits_counts_and_beacons() {
        let beacons = "7|1|0|ff1 shop abc w3 g2 h1 m1\n8|1|1|ff1 shop nonsense\n9|x";
        let answer = answer(&row(&["7", "97", "30", "-1", "20", "25", "10", beacons, "x"]), "shop", Some(4)).unwrap();
        assert_eq!((answer.process, answer.peers.len(), answer.peers[0].is_within), (7, 1, [true, false]));
        let limits = answer.scopes.map(|scope| scope.map(|scope| (scope.limit, scope.connections)));
        assert_eq!(limits, [Some((97, 30)), None, Some((25, 10))]);
    }

    #[test]
    fn a_limit_of_the_role_keeps_at_most_half_of_itself_free() {
        for (headroom, server, role) in
            [(None, None, None), (Some(4), Some(4), Some(4)), (Some(29), Some(29), Some(12))]
        {
            let answer =
                answer(&row(&["7", "97", "30", "-1", "20", "25", "10", "NULL", "x"]), "shop", headroom).unwrap();
            let [all, _, of_role] = answer.scopes.map(|scope| scope.and_then(|scope| scope.headroom));
            assert_eq!((all, of_role), (server, role));
        }
    }

    #[test]
    fn strange_answers_are_none() {
        for columns in [&[][..], &["7"], &["x", "97", "30", "-1", "20", "25", "10", "NULL"], &["7", "-3", "30", "-1"]] {
            assert!(answer(&row(columns), "shop", None).is_none(), "{columns:?}");
        }
        assert!(answer(&row(&["7", "97", "30", "-1", "0", "-1", "0", "NULL"]), "shop", None).is_some());
    }
}

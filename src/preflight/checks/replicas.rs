//! Do the replicas keep up?
//!
//! `replay_lag` alone is not enough: it does not grow while a replica answers nothing, and it says how old the newest
//! replayed change is, not how much there is to replay. So the age of the last answer counts if the replica is behind,
//! and the bytes count. A replica that is lost has no row at all:
//! [`Plan::replicas`](crate::preflight::Plan::replicas).

use crate::human::HumanDuration;
use crate::preflight::asking::{count, is_true, number, seconds};
use crate::preflight::plan::Plan;
use crate::preflight::report::{Check, Finding, Grade};

const CHECK: Check = Check::ReplicaLag;

pub(super) fn question(_: &Plan) -> String {
    // On a replica, the functions of a primary fail, so each is named in one branch only.
    "WITH behind AS (SELECT state IS NULL AS is_hidden, replay_lag, clock_timestamp() - reply_time AS silent, \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL \
     ELSE pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), replay_lsn) END AS bytes \
     FROM pg_catalog.pg_stat_replication WHERE state IS DISTINCT FROM 'backup'), \
     here AS (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_wal_lsn_diff(\
     pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn()) END AS bytes, \
     clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp() AS age) \
     SELECT pg_catalog.pg_is_in_recovery(), (SELECT count(*) FROM behind), \
     (SELECT count(*) FROM behind WHERE is_hidden), \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN (SELECT extract(epoch FROM CASE WHEN bytes > 0 THEN age END) FROM here) \
     ELSE (SELECT max(extract(epoch FROM greatest(replay_lag, CASE WHEN bytes > 0 THEN silent END))) FROM behind) END, \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN (SELECT bytes FROM here) ELSE (SELECT max(bytes) FROM behind) END, \
     (SELECT count(*) FROM pg_catalog.pg_stat_wal_receiver)"
        .to_owned()
}

pub(super) fn judge(row: &[Option<String>], plan: &Plan) -> Option<Finding> {
    let (replicas, hidden) = (count(row, 1)?, count(row, 2)?);
    let (is_replica, receivers) = (is_true(row, 0), count(row, 5)?);
    let limit = format!("{}, {} MiB", HumanDuration(plan.replica_lag), plan.replica_lag_bytes >> 20);
    let advice = "find out what the replica waits for, or leave it out of the traffic";
    if is_replica && receivers == 0 {
        return Some(Finding::not_known(CHECK, "this server is a replica, and receives nothing by streaming"));
    }
    if let Some(expected) = plan.replicas.filter(|expected| !is_replica && replicas < *expected as i64) {
        let finding =
            Finding::new(CHECK, Grade::Critical, format!("{replicas} replicas"), format!("{expected} replicas"));
        return Some(finding.advise("bring the lost replica back first"));
    }
    if hidden > 0 {
        return Some(Finding::not_known(CHECK, "the lag of replicas is hidden; GRANT pg_read_all_stats TO this role"));
    }
    if !is_replica && replicas == 0 {
        return Some(Finding::new(CHECK, Grade::Ok, "no replica", limit));
    }
    let (lag, bytes) = (seconds(row, 3).unwrap_or_default(), number(row, 4).unwrap_or_default().max(0.0));
    let is_late = lag > plan.replica_lag || bytes > plan.replica_lag_bytes as f64;
    let grade = if is_late { Grade::Critical } else { Grade::Ok };
    let value = format!("{}, {:.0} MiB behind", HumanDuration(lag), bytes / f64::from(1 << 20));
    Some(Finding::new(CHECK, grade, value, limit).advise(advice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::asking::row;

    fn grade(plan: &Plan, texts: [&str; 6]) -> Grade {
        judge(&row(&texts), plan).unwrap().severity
    }

    #[test]
    fn time_and_bytes_both_count() {
        let plan = Plan::new();
        assert_eq!(grade(&plan, ["f", "0", "0", "NULL", "NULL", "0"]), Grade::Ok);
        assert_eq!(grade(&plan, ["f", "2", "0", "NULL", "0", "0"]), Grade::Ok);
        assert_eq!(grade(&plan, ["f", "2", "0", "10.5", "9", "0"]), Grade::Critical);
        assert_eq!(grade(&plan, ["f", "2", "0", "0.001", "300000000", "0"]), Grade::Critical);
    }

    #[test]
    fn a_lost_replica_is_missed_only_if_it_was_expected() {
        let one_left = ["f", "1", "0", "0.1", "0", "0"];
        assert_eq!(grade(&Plan::new(), one_left), Grade::Ok);
        assert_eq!(grade(&Plan::new().replicas(2), one_left), Grade::Critical);
    }

    #[test]
    fn what_is_hidden_is_not_well() {
        assert_eq!(grade(&Plan::new(), ["f", "1", "1", "NULL", "NULL", "0"]), Grade::NotKnown);
        assert_eq!(grade(&Plan::new(), ["t", "0", "0", "NULL", "NULL", "0"]), Grade::NotKnown);
        assert_eq!(grade(&Plan::new(), ["t", "0", "0", "11", "5", "1"]), Grade::Critical);
    }
}

//! Is anybody waiting for a lock? A change of the schema would join the queue, and the rest would join behind it.
//!
//! With tables, those sessions count that have or want a lock on one of them. Needs no rights.

use super::tables::{MISSING, missing, touched};
use crate::human::HumanDuration;
use crate::preflight::asking::{count, seconds};
use crate::preflight::plan::Plan;
use crate::preflight::report::{Check, Finding, Grade};

const CHECK: Check = Check::LockQueue;

pub(super) fn question(plan: &Plan) -> String {
    let here = "database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())";
    let of_tables = if plan.tables.is_empty() {
        String::new()
    } else {
        format!("AND {here} AND relation IN (SELECT relid FROM touched)")
    };
    // A wait for another transaction names no database. The session has a lock in its own.
    format!(
        "WITH {}, locks AS MATERIALIZED (SELECT * FROM pg_catalog.pg_locks), \
         waiting AS (SELECT clock_timestamp() - waitstart AS waited FROM locks other \
         WHERE NOT granted AND locktype <> 'advisory' \
         AND EXISTS (SELECT FROM locks WHERE pid = other.pid AND {here} {of_tables})) \
         SELECT {MISSING}, count(*), coalesce(extract(epoch FROM max(waited)), 0) FROM waiting",
        touched(plan)
    )
}

pub(super) fn judge(row: &[Option<String>], plan: &Plan) -> Option<Finding> {
    let (sessions, longest) = (count(row, 1)?, seconds(row, 2)?);
    let grade = if sessions > 0 && longest > plan.longest_lock_wait { Grade::Critical } else { Grade::Ok };
    if grade == Grade::Ok {
        if let Some(missing) = missing(CHECK, row, 0) {
            return Some(missing);
        }
    }
    let value = match sessions {
        0 => "nobody waits".to_owned(),
        _ => format!("{sessions} sessions wait, the first for {}", HumanDuration(longest)),
    };
    let finding = Finding::new(CHECK, grade, value, HumanDuration(plan.longest_lock_wait).to_string());
    Some(finding.advise("find the first holder with pg_blocking_pids, and wait for it or end it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::asking::row;

    #[test]
    fn a_short_wait_is_usual_and_a_long_one_is_not() {
        let grade = |texts: [&str; 3]| judge(&row(&texts), &Plan::new()).unwrap().severity;
        assert_eq!(grade(["NULL", "0", "0"]), Grade::Ok);
        assert_eq!(grade(["NULL", "9", "0.9"]), Grade::Ok);
        assert_eq!(grade(["NULL", "1", "1.1"]), Grade::Critical);
        assert_eq!(grade(["ordres", "0", "0"]), Grade::NotKnown);
    }
}

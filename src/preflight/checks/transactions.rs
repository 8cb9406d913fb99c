//! How old is the oldest transaction in the way?
//!
//! With tables: the oldest that has a lock on one of them, with prepared transactions. Every role sees who has locks,
//! but only members of `pg_read_all_stats` see when the transactions of others began. Without tables: the oldest in the
//! database.

use super::tables::{MISSING, missing, touched};
use crate::human::HumanDuration;
use crate::preflight::asking::{count, seconds, text};
use crate::preflight::plan::Plan;
use crate::preflight::report::{Check, Finding, Grade};

const CHECK: Check = Check::OldestTransaction;

pub(super) fn question(plan: &Plan) -> String {
    let locked = "SELECT pid, virtualtransaction FROM pg_catalog.pg_locks WHERE locktype = 'relation' AND granted \
         AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) \
         AND relation IN (SELECT relid FROM touched)";
    let (sessions, prepared) = if plan.tables.is_empty() {
        ("other.datname = current_database()".to_owned(), "database = current_database()".to_owned())
    } else {
        (
            format!("other.pid IN (SELECT pid FROM ({locked}) locked)"),
            // The locks of a prepared transaction have no process. One of them is on its own number.
            format!(
                "EXISTS (SELECT FROM pg_catalog.pg_locks whole JOIN ({locked}) locked USING (virtualtransaction) \
                 WHERE whole.pid IS NULL AND locked.pid IS NULL AND whole.transactionid = transaction)"
            ),
        )
    };
    // A session without a user is one of the server's own. It gives way, unless it prevents a wraparound.
    format!(
        "WITH {}, found AS (SELECT 'process ' || other.pid AS who, clock_timestamp() - other.xact_start AS age, \
         other.backend_type IS NULL AS is_hidden FROM pg_catalog.pg_stat_activity other \
         WHERE other.pid <> pg_catalog.pg_backend_pid() AND other.usesysid IS NOT NULL AND {sessions} \
         UNION ALL SELECT 'prepared transaction ' || gid, clock_timestamp() - prepared, false \
         FROM pg_catalog.pg_prepared_xacts WHERE {prepared}) \
         SELECT {MISSING}, (SELECT count(*) FROM found WHERE is_hidden), \
         (SELECT extract(epoch FROM max(age)) FROM found), \
         (SELECT who FROM found WHERE age IS NOT NULL ORDER BY age DESC LIMIT 1)",
        touched(plan)
    )
}

pub(super) fn judge(row: &[Option<String>], plan: &Plan) -> Option<Finding> {
    let hidden = count(row, 1)?;
    let limit = HumanDuration(plan.oldest_transaction).to_string();
    let advice = "wait until it ends, or end it with pg_terminate_backend or ROLLBACK PREPARED";
    if let (Some(age), Some(who)) = (seconds(row, 2), text(row, 3)) {
        let value = format!("{} ({who})", HumanDuration(age));
        if age > plan.oldest_transaction {
            return Some(Finding::new(CHECK, Grade::Critical, value, limit).advise(advice));
        }
        if hidden == 0 {
            return missing(CHECK, row, 0).or(Some(Finding::new(CHECK, Grade::Ok, value, limit)));
        }
    }
    if hidden > 0 {
        let why = format!("{hidden} sessions of other roles are hidden; GRANT pg_read_all_stats TO this role");
        return Some(Finding::not_known(CHECK, why));
    }
    missing(CHECK, row, 0).or(Some(Finding::new(CHECK, Grade::Ok, "no transaction", limit)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::asking::row;

    fn grade(texts: [&str; 4]) -> Grade {
        judge(&row(&texts), &Plan::new()).unwrap().severity
    }

    #[test]
    fn age_decides_and_what_is_hidden_is_not_well() {
        assert_eq!(grade(["NULL", "0", "NULL", "NULL"]), Grade::Ok);
        assert_eq!(grade(["NULL", "0", "59.5", "process 7"]), Grade::Ok);
        assert_eq!(grade(["NULL", "0", "60.5", "process 7"]), Grade::Critical);
        assert_eq!(grade(["NULL", "1", "59.5", "process 7"]), Grade::NotKnown);
        assert_eq!(grade(["NULL", "1", "60.5", "process 7"]), Grade::Critical);
    }

    #[test]
    fn a_name_without_a_table_is_not_known() {
        assert_eq!(grade(["ordres", "0", "NULL", "NULL"]), Grade::NotKnown);
        assert_eq!(grade(["ordres", "0", "99", "process 7"]), Grade::Critical);
    }
}

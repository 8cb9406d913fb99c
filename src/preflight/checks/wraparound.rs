//! Does an autovacuum to prevent wraparound run? Any other autovacuum gives way to a change of the schema. This one
//! does not, so the change waits for it, and everybody else for the change.
//!
//! Every role sees the age of a table, and that a process without a user has the lock of a vacuum on it. Once the table
//! is older than `autovacuum_freeze_max_age`, that is such an autovacuum.

use super::tables::{MISSING, missing, touched};
use crate::preflight::asking::{is_true, number, text};
use crate::preflight::plan::Plan;
use crate::preflight::report::{Check, Finding, Grade};

const CHECK: Check = Check::Wraparound;

pub(super) fn question(plan: &Plan) -> String {
    let of_tables = if plan.tables.is_empty() {
        "true"
    } else {
        "(class.oid IN (SELECT relid FROM touched) OR class.oid IN \
         (SELECT reltoastrelid FROM pg_catalog.pg_class owner, touched WHERE owner.oid = touched.relid))"
    };
    let option = |name: &str| {
        format!(
            "least(current_setting('{name}')::float8, (SELECT option_value::float8 FROM \
             pg_catalog.pg_options_to_table(class.reloptions) WHERE option_name = '{name}'))"
        )
    };
    format!(
        "WITH {}, tables AS (SELECT class.oid::regclass::text AS name, \
         greatest(age(class.relfrozenxid) / {}, mxid_age(class.relminmxid) / {}) AS share, \
         EXISTS (SELECT FROM pg_catalog.pg_locks held JOIN pg_catalog.pg_stat_activity worker USING (pid) \
         WHERE held.granted AND held.relation = class.oid AND held.mode = 'ShareUpdateExclusiveLock' \
         AND held.database = worker.datid AND worker.usesysid IS NULL \
         AND worker.datname = current_database()) AS is_running \
         FROM pg_catalog.pg_class class WHERE class.relkind IN ('r', 'm', 't') AND {of_tables}), \
         worst AS (SELECT * FROM tables ORDER BY is_running AND share >= 1 DESC, share DESC LIMIT 1) \
         SELECT {MISSING}, (SELECT name FROM worst), (SELECT share FROM worst), (SELECT is_running FROM worst)",
        touched(plan),
        option("autovacuum_freeze_max_age"),
        option("autovacuum_multixact_freeze_max_age"),
    )
}

pub(super) fn judge(row: &[Option<String>], _: &Plan) -> Option<Finding> {
    if let Some(missing) = missing(CHECK, row, 0) {
        return Some(missing);
    }
    let limit = "100% of autovacuum_freeze_max_age";
    let Some(table) = text(row, 1) else { return Some(Finding::new(CHECK, Grade::Ok, "no table", limit)) };
    let (share, is_running) = (number(row, 2)?, is_true(row, 3));
    let (grade, state) = match (share >= 1.0, is_running) {
        (true, true) => (Grade::Critical, ", autovacuum to prevent wraparound is running"),
        (true, false) => (Grade::Warning, ", autovacuum to prevent wraparound is due"),
        (false, _) => (Grade::Ok, ""),
    };
    let finding = Finding::new(CHECK, grade, format!("{table} at {:.0}%{state}", share * 100.0), limit);
    Some(finding.advise("let it finish, or run VACUUM (FREEZE) by hand at a quiet time"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::asking::row;

    #[test]
    fn only_a_vacuum_of_a_table_that_is_too_old_does_not_give_way() {
        let grade = |texts: [&str; 4]| judge(&row(&texts), &Plan::new()).unwrap().severity;
        assert_eq!(grade(["NULL", "orders", "0.4", "f"]), Grade::Ok);
        assert_eq!(grade(["NULL", "orders", "0.4", "t"]), Grade::Ok);
        assert_eq!(grade(["NULL", "orders", "1.1", "f"]), Grade::Warning);
        assert_eq!(grade(["NULL", "orders", "1.1", "t"]), Grade::Critical);
        assert_eq!(grade(["ordres", "NULL", "NULL", "NULL"]), Grade::NotKnown);
    }
}

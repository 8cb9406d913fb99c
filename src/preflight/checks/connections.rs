//! Is there room on the server for all instances, and do they have connections to spare?
//!
//! One question for four checks. Other sessions keep their slots; those of the fleet are replaced. A session that the
//! role may not look at counts as a client. So the result is never too good.

use crate::preflight::asking::{count, is_true, literal};
use crate::preflight::plan::Plan;
use crate::preflight::report::{Check, Finding, Grade};

/// What this pool knows of itself.
pub(super) struct Own {
    pub(super) max_size: usize,
    /// Its demand, as a share of its connections.
    pub(super) demand: Option<f64>,
}

type Judgement = fn(&[Option<String>], &Plan, &Own) -> Option<Finding>;

pub(super) const CHECKS: [(Check, Judgement); 4] = [
    (Check::FreeSlots, free_slots),
    (Check::RoleLimit, role_limit),
    (Check::DatabaseLimit, database_limit),
    (Check::DemandHeadroom, headroom),
];

/// From this share of the free slots on, there is a warning.
const TIGHT: f64 = 0.9;

pub(super) fn question(plan: &Plan) -> String {
    let is_of_fleet = match &plan.fleet {
        Some(name) => format!("starts_with(other.application_name, {})", literal(name)),
        None => "other.application_name = me.application_name".to_owned(),
    };
    // The columns that every role may see of every session: pid, datid, usesysid, application_name.
    format!(
        "WITH me AS MATERIALIZED (SELECT * FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()), \
         others AS MATERIALIZED (SELECT other.datid = me.datid AS of_database, other.usesysid = me.usesysid AS of_role, \
         other.datid = me.datid AND other.usesysid = me.usesysid AND {is_of_fleet} AS of_fleet, \
         other.state IS DISTINCT FROM 'idle' AS is_busy \
         FROM pg_catalog.pg_stat_activity other, me WHERE other.pid <> me.pid AND other.datid IS NOT NULL \
         AND other.usesysid IS NOT NULL AND coalesce(other.backend_type, 'client backend') = 'client backend') \
         SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int \
         - coalesce(current_setting('reserved_connections', true)::int, 0), \
         (SELECT count(*) FROM others WHERE NOT of_fleet), \
         (SELECT count(*) FROM others WHERE of_role AND NOT of_fleet), \
         (SELECT count(*) FROM others WHERE of_database AND NOT of_fleet), \
         (SELECT count(*) FROM others WHERE of_fleet), \
         (SELECT count(*) FROM others WHERE of_fleet AND is_busy), \
         (SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = session_user), \
         (SELECT datconnlimit FROM pg_catalog.pg_database WHERE datname = current_database()), \
         (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user)"
    )
}

/// The finding if the server had no slot even for the question.
pub(super) fn full() -> Finding {
    let finding = Finding::new(Check::FreeSlots, Grade::Critical, "no free slot at all", "1 or more");
    finding.advise("end sessions, or raise max_connections")
}

fn peak(plan: &Plan, own: &Own) -> f64 {
    (plan.instances + plan.surge) as f64 * own.max_size as f64
}

/// Judges whether the peak fits beside the `others`.
fn fits(check: Check, total: i64, others: i64, plan: &Plan, own: &Own) -> Finding {
    let (peak, free) = (peak(plan, own), total - others);
    let grade = match free as f64 {
        free if peak > free => Grade::Critical,
        free if peak > free * TIGHT => Grade::Warning,
        _ => Grade::Ok,
    };
    let (instances, max_size) = (plan.instances + plan.surge, own.max_size);
    let value = format!("{instances} instances x {max_size} = {peak} connections");
    let finding = Finding::new(check, grade, value, format!("{free}: {total} less {others} of others"));
    finding.advise("a smaller max_size, less surge, or a pooler")
}

fn free_slots(row: &[Option<String>], plan: &Plan, own: &Own) -> Option<Finding> {
    Some(fits(Check::FreeSlots, count(row, 0)?, count(row, 1)?, plan, own))
}

/// A limit of -1 is none, and superusers have none.
fn limited(check: Check, limit: i64, others: i64, row: &[Option<String>], plan: &Plan, own: &Own) -> Finding {
    if limit < 0 || is_true(row, 8) {
        return Finding::new(check, Grade::Ok, "no limit", "-");
    }
    fits(check, limit, others, plan, own)
}

fn role_limit(row: &[Option<String>], plan: &Plan, own: &Own) -> Option<Finding> {
    Some(limited(Check::RoleLimit, count(row, 6)?, count(row, 2)?, row, plan, own))
}

fn database_limit(row: &[Option<String>], plan: &Plan, own: &Own) -> Option<Finding> {
    Some(limited(Check::DatabaseLimit, count(row, 7)?, count(row, 3)?, row, plan, own))
}

fn headroom(row: &[Option<String>], plan: &Plan, own: &Own) -> Option<Finding> {
    let (sessions, busy) = (count(row, 4)?, count(row, 5)?);
    let check = Check::DemandHeadroom;
    if sessions == 0 && own.demand.is_none() {
        return Some(Finding::not_known(check, "no session of the fleet is there, and this pool knows no demand yet"));
    }
    let of_fleet = busy as f64 / (plan.instances as f64 * own.max_size as f64);
    let headroom = 1.0 - of_fleet.max(own.demand.unwrap_or_default());
    let grade = if headroom < plan.headroom { Grade::Critical } else { Grade::Ok };
    let value = format!("{:.0}% free, {busy} sessions of the fleet are busy", headroom.max(0.0) * 100.0);
    let finding = Finding::new(check, grade, value, format!("at least {:.0}%", plan.headroom * 100.0));
    Some(finding.advise("wait for less traffic, or add instances first"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::asking::row;

    /// 100 slots, 30 of others (20 of the role, 25 in the database), 40 of the fleet, 20 of them busy.
    const ROW: [&str; 9] = ["100", "30", "20", "25", "40", "20", "-1", "-1", "f"];

    fn own(max_size: usize, demand: Option<f64>) -> Own {
        Own { max_size, demand }
    }

    fn with(column: usize, text: &'static str) -> Vec<Option<String>> {
        let mut texts = ROW;
        texts[column] = text;
        row(&texts)
    }

    #[test]
    fn surge_counts_against_the_free_slots() {
        let plan = Plan::new().instances(6);
        let grade = |plan: &Plan| free_slots(&row(&ROW), plan, &own(10, None)).unwrap().severity;
        assert_eq!(grade(&plan), Grade::Ok, "60 of 70");
        assert_eq!(grade(&plan.clone().surge(1)), Grade::Warning, "70 of 70");
        assert_eq!(grade(&plan.surge(2)), Grade::Critical, "80 of 70");
    }

    #[test]
    fn limits_of_role_and_database_count_unless_there_is_none() {
        let (plan, own) = (Plan::new().instances(6), own(10, None));
        let of_role = |row: &[Option<String>]| role_limit(row, &plan, &own).unwrap().severity;
        assert_eq!(of_role(&row(&ROW)), Grade::Ok);
        assert_eq!(of_role(&with(6, "79")), Grade::Critical, "79 less 20");
        assert_eq!(of_role(&with(6, "90")), Grade::Ok);
        let of_database = |row: &[Option<String>]| database_limit(row, &plan, &own).unwrap().severity;
        assert_eq!(of_database(&with(7, "84")), Grade::Critical, "84 less 25");
        let mut superuser = with(7, "84");
        superuser[8] = Some("t".to_owned());
        assert_eq!(of_database(&superuser), Grade::Ok);
    }

    #[test]
    fn the_larger_demand_decides() {
        let plan = Plan::new().instances(4);
        let grade = |row: &[Option<String>], demand| headroom(row, &plan, &own(10, demand)).unwrap().severity;
        assert_eq!(grade(&row(&ROW), None), Grade::Ok, "half is busy");
        assert_eq!(grade(&with(5, "31"), None), Grade::Critical);
        assert_eq!(grade(&row(&ROW), Some(0.76)), Grade::Critical);
        assert_eq!(grade(&row(&ROW), Some(0.74)), Grade::Ok);
    }

    #[test]
    fn without_a_fleet_and_without_a_demand_nothing_is_known() {
        let nobody = with(4, "0");
        assert_eq!(headroom(&nobody, &Plan::new(), &own(10, None)).unwrap().severity, Grade::NotKnown);
        assert_eq!(headroom(&nobody, &Plan::new(), &own(100, Some(0.1))).unwrap().severity, Grade::Ok);
    }
}

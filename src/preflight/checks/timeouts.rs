//! Do the pool's sessions have the two timeouts that the server keeps by itself? Without them, a process that froze
//! holds its locks for ever.

use std::time::Duration;

use crate::human::HumanDuration;
use crate::preflight::asking::text;
use crate::preflight::plan::Plan;
use crate::preflight::report::{Check, Finding, Grade};

const NAMES: [&str; 2] = ["statement_timeout", "idle_in_transaction_session_timeout"];

pub(super) fn question(_: &Plan) -> String {
    // With which value the session began. What is set now is the question's own.
    let value = |name| format!("(SELECT reset_val FROM pg_catalog.pg_settings WHERE name = '{name}')");
    format!("SELECT {}", NAMES.map(value).join(", "))
}

pub(super) fn judge(row: &[Option<String>], _: &Plan) -> Option<Finding> {
    let mut are_set = true;
    let mut values = Vec::new();
    for (column, name) in NAMES.iter().enumerate() {
        let millis: u64 = text(row, column)?.parse().ok()?;
        are_set &= millis > 0;
        values.push(match millis {
            0 => format!("{name} is not set"),
            millis => format!("{name} {}", HumanDuration(Duration::from_millis(millis))),
        });
    }
    let grade = if are_set { Grade::Ok } else { Grade::Critical };
    let finding = Finding::new(Check::Timeouts, grade, values.join(", "), "both set");
    Some(finding.advise("PoolBuilder::server_timeouts sets both, or ALTER ROLE ... SET"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::asking::row;

    #[test]
    fn both_have_to_be_set() {
        let found = |texts: [&str; 2]| judge(&row(&texts), &Plan::new());
        assert_eq!(found(["5000", "60000"]).unwrap().severity, Grade::Ok);
        let finding = found(["5000", "0"]).unwrap();
        assert_eq!(finding.severity, Grade::Critical);
        assert_eq!(finding.value, "statement_timeout 5 s, idle_in_transaction_session_timeout is not set");
        assert_eq!(found(["0", "60000"]).unwrap().severity, Grade::Critical);
        assert_eq!(found(["NULL", "60000"]), None);
    }
}

//! The tables that the plan touches, as a part of questions.

use crate::preflight::asking::{literal, text};
use crate::preflight::plan::Plan;
use crate::preflight::report::{Check, Finding};

/// A common table expression `touched(relid)`: the tables of the plan, their partitions, and the tables at the other
/// end of their foreign keys. And `named(name, relid)`, which also has the names that lead to no table.
pub(super) fn touched(plan: &Plan) -> String {
    let names: Vec<_> = plan.tables.iter().map(|table| literal(table)).collect();
    format!(
        "named(name, relid) AS MATERIALIZED (SELECT name, pg_catalog.to_regclass(name)::oid \
         FROM pg_catalog.unnest(ARRAY[{}]::text[]) name), \
         family(relid) AS MATERIALIZED (SELECT relid FROM named WHERE relid IS NOT NULL \
         UNION SELECT tree.relid::oid FROM named, LATERAL pg_catalog.pg_partition_tree(named.relid) tree), \
         touched(relid) AS MATERIALIZED (SELECT relid FROM family \
         UNION SELECT confrelid FROM pg_catalog.pg_constraint, family WHERE contype = 'f' AND conrelid = relid \
         UNION SELECT conrelid FROM pg_catalog.pg_constraint, family WHERE contype = 'f' AND confrelid = relid)",
        names.join(", ")
    )
}

/// The names of the plan that lead to no table, as an expression.
pub(super) const MISSING: &str = "(SELECT pg_catalog.string_agg(name, ', ') FROM named WHERE relid IS NULL)";

/// The finding for names that lead to no table.
pub(super) fn missing(check: Check, row: &[Option<String>], column: usize) -> Option<Finding> {
    let names = text(row, column)?;
    Some(Finding::not_known(check, format!("there is no table {names} in the search path of this role")))
}

//! Runs the checks, in the order of their list. Each file here has the question and the judgement of one check, or of a
//! few that share a question.

mod connections;
mod locks;
mod pooler;
mod replicas;
mod tables;
mod timeouts;
mod transactions;
mod wraparound;

use super::asking::{Asking, Row};
use super::plan::Plan;
use super::report::{Check, Finding, Grade, Report};
use crate::error::ConnectError;
use crate::pool::Pool;

pub(super) async fn run(pool: &Pool, plan: &Plan) -> Report {
    let mut asking = Asking::new(pool.shared.slots.dialer(), plan.question_timeout);
    let status = pool.status();
    let own = connections::Own {
        max_size: plan.max_size.unwrap_or(status.max_size),
        demand: status.demand.map(|demand| demand / status.max_size as f64),
    };
    let mut findings = Vec::with_capacity(Check::ALL.len());

    let answer = asking.ask(&connections::question(plan)).await;
    if asking.connect_error().is_some_and(ConnectError::is_full) {
        findings.push(connections::full());
    }
    for (check, judge) in connections::CHECKS {
        findings.push(concluded(check, &answer, |row| judge(row, plan, &own)));
    }
    for (check, question, judge) in CHECKS {
        if !plan.skipped.contains(&check) {
            let answer = asking.ask(&question(plan)).await;
            findings.push(concluded(check, &answer, |row| judge(row, plan)));
        }
    }
    if !plan.skipped.contains(&Check::Pooler) {
        findings.push(pooler::check(&mut asking, pool.shared.slots.dialer(), plan).await);
    }
    Report { findings: Check::ALL.iter().map(|check| of(*check, &findings, plan)).collect() }
}

/// The checks that have a question of their own, which has one answer.
type Question = fn(&Plan) -> String;
type Judgement = fn(&[Option<String>], &Plan) -> Option<Finding>;

const CHECKS: [(Check, Question, Judgement); 5] = [
    (Check::OldestTransaction, transactions::question, transactions::judge),
    (Check::LockQueue, locks::question, locks::judge),
    (Check::Wraparound, wraparound::question, wraparound::judge),
    (Check::ReplicaLag, replicas::question, replicas::judge),
    (Check::Timeouts, timeouts::question, timeouts::judge),
];

/// The first finding of a check.
fn of(check: Check, findings: &[Finding], plan: &Plan) -> Finding {
    if plan.skipped.contains(&check) {
        return Finding::new(check, Grade::Skipped, "left out by the plan", "-");
    }
    let found = findings.iter().find(|finding| finding.check == check);
    found.cloned().unwrap_or_else(|| Finding::not_known(check, "not asked"))
}

fn concluded(
    check: Check,
    answer: &Result<Row, String>,
    judge: impl FnOnce(&[Option<String>]) -> Option<Finding>,
) -> Finding {
    match answer {
        Ok(row) => judge(row).unwrap_or_else(|| Finding::not_known(check, "the server's answer makes no sense")),
        Err(why) => Finding::not_known(check, why.as_str()),
    }
}

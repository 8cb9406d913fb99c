//! Is there a pooler in front of the server, and how does it share connections?
//!
//! A pooler tells the driver a process of its own, so the server knows another one. If a second connection reaches the
//! same process while the first is still there, they share it: each transaction may have another. A pooler gives out
//! the connection that was used last. Others may take it in between, so a few rounds are made.

use crate::conn::Dialer;
use crate::preflight::asking::{Asking, count};
use crate::preflight::plan::{Plan, PoolerMode};
use crate::preflight::report::{Check, Finding, Grade};

const QUESTION: &str = "SELECT pg_catalog.pg_backend_pid()";
const ROUNDS: usize = 3;

/// The processes of one round: what the driver was told, what the server said on the first connection, and on a second
/// one.
#[derive(Debug, Clone, Copy)]
struct Round {
    told: Option<i64>,
    first: i64,
    second: i64,
}

/// Returns the mode that the rounds show.
fn mode(rounds: &[Round]) -> PoolerMode {
    let is_shared = rounds.iter().any(|round| round.first == round.second);
    // On one connection, the process changed.
    let has_changed = rounds.windows(2).any(|pair| pair[0].first != pair[1].first);
    if is_shared || has_changed {
        PoolerMode::Transaction
    } else if rounds.iter().any(|round| round.told != Some(round.first)) {
        PoolerMode::Session
    } else {
        PoolerMode::None
    }
}

pub(super) async fn check(asking: &mut Asking<'_>, dialer: &Dialer, plan: &Plan) -> Finding {
    match rounds(asking, dialer, plan).await {
        Ok(rounds) => judge(mode(&rounds), plan),
        Err(why) => Finding::not_known(Check::Pooler, why),
    }
}

async fn rounds(asking: &mut Asking<'_>, dialer: &Dialer, plan: &Plan) -> Result<Vec<Round>, String> {
    let told = asking.process().await?.map(i64::from);
    let mut other = Asking::new(dialer, plan.question_timeout);
    // Connect first, so that nothing is between the two questions.
    other.process().await?;
    let mut rounds = Vec::with_capacity(ROUNDS);
    let no_sense = || "the server's answer makes no sense".to_owned();
    while rounds.len() < ROUNDS {
        let first = count(&asking.ask(QUESTION).await?, 0).ok_or_else(no_sense)?;
        let second = count(&other.ask(QUESTION).await?, 0).ok_or_else(no_sense)?;
        rounds.push(Round { told, first, second });
        if mode(&rounds) == PoolerMode::None {
            break;
        }
    }
    Ok(rounds)
}

fn judge(mode: PoolerMode, plan: &Plan) -> Finding {
    let name = |mode| match mode {
        PoolerMode::None => "no pooler",
        PoolerMode::Session => "a pooler in session mode",
        PoolerMode::Transaction => "a pooler in transaction mode",
    };
    let grade = if mode > plan.pooler { Grade::Critical } else { Grade::Ok };
    let finding = Finding::new(Check::Pooler, grade, name(mode), name(plan.pooler));
    finding.advise("connect to the server itself for migrations; what works behind it is in the guide, PgBouncer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(told: i64, first: i64, second: i64) -> Round {
        Round { told: Some(told), first, second }
    }

    #[test]
    fn the_processes_show_the_mode() {
        assert_eq!(mode(&[round(7, 7, 8)]), PoolerMode::None);
        assert_eq!(mode(&[round(99, 7, 8), round(99, 7, 8)]), PoolerMode::Session);
        assert_eq!(mode(&[round(99, 7, 8), round(99, 7, 7)]), PoolerMode::Transaction);
        assert_eq!(mode(&[round(99, 7, 8), round(99, 9, 10)]), PoolerMode::Transaction);
        assert_eq!(mode(&[Round { told: None, first: 7, second: 8 }]), PoolerMode::Session);
    }

    #[test]
    fn a_looser_mode_than_expected_is_critical() {
        let plan = Plan::new();
        assert_eq!(judge(PoolerMode::Session, &plan).severity, Grade::Ok);
        assert_eq!(judge(PoolerMode::Transaction, &plan).severity, Grade::Critical);
        assert_eq!(judge(PoolerMode::Transaction, &plan.pooler(PoolerMode::Transaction)).severity, Grade::Ok);
        assert_eq!(judge(PoolerMode::Session, &Plan::new().pooler(PoolerMode::None)).severity, Grade::Critical);
    }
}

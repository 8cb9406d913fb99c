//! The table of all rounds: how each subject fared in each kind of fault.

use std::fmt;
use std::time::Duration;

use super::ledger::{self, Verdict};
use super::{Calls, Fault, Truth, Write};
use crate::support::patroni::{Patroni, Writable, connect};

/// One fault, and what it did to each subject.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) fault: Fault,
    /// From the begin of the fault.
    pub(super) writable_after: Duration,
    pub(super) primary: Writable,
    /// Since when each node accepts writes on each timeline.
    pub(super) seen: Vec<Writable>,
    pub(super) parts: Vec<Part>,
}

/// What one fault did to one subject.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) calls: Calls,
    /// How many changes of the primary the subject reported, if it reports them.
    pub(super) changes: Option<u64>,
}

impl Part {
    fn first_after(&self, primary: Writable) -> Duration {
        ledger::first_after(&self.calls.writes, primary).expect("the round waited for it")
    }
}

impl Round {
    /// Returns what is known before the comparison with the server.
    pub(super) fn line(&self, names: &[&str]) -> String {
        let mut line = format!("{:?}: writable after {:.1?}", self.fault, self.writable_after);
        for (name, part) in names.iter().zip(&self.parts) {
            let (first, gap) = (part.first_after(self.primary), ledger::longest_gap(&part.calls.writes));
            let Calls { reads, failed_reads, why, .. } = &part.calls;
            line += &format!("\n    {name}: first write {first:.1?} later, longest gap {gap:.1?}, ");
            line += &format!("{failed_reads} of {reads} reads failed, writes: {why:?}");
        }
        line
    }
}

/// One line of the table for each subject and fault.
#[derive(Debug)]
pub(super) struct Report {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    subject: String,
    fault: Fault,
    verdict: Verdict,
    /// From the new primary's first write to the subject's.
    firsts: Vec<Duration>,
    gaps: Vec<Duration>,
    reads: u64,
    failed_reads: u64,
    /// How many changes of the primary the subject reported in each round, if it reports them.
    changes: Option<Vec<u64>>,
}

/// Compares all rounds with the table on the present primary.
pub(super) async fn compare(cluster: &Patroni, names: &[&str], rounds: &[Round]) -> Report {
    let (leader, _) = cluster.leader().await.expect("a primary");
    let primary = connect(cluster.node_config(leader)).await.expect("the primary serves");
    let mut lines: Vec<Line> = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let truth = Truth::of(&primary, name).await;
        for round in rounds {
            let all: Vec<Write> = round.parts.iter().flat_map(|part| part.calls.writes.clone()).collect();
            let part = &round.parts[number];
            let verdict = Verdict::of(&part.calls.writes, &all, &truth, &round.seen);
            let is_same = |line: &&mut Line| line.subject == *name && line.fault == round.fault;
            let line = match lines.iter_mut().find(is_same) {
                Some(line) => line,
                None => {
                    lines.push(Line::new(name, round.fault));
                    lines.last_mut().expect("just pushed")
                }
            };
            line.verdict.add(&verdict);
            line.firsts.push(part.first_after(round.primary));
            line.gaps.push(ledger::longest_gap(&part.calls.writes));
            line.reads += part.calls.reads;
            line.failed_reads += part.calls.failed_reads;
            if let Some(changes) = part.changes {
                line.changes.get_or_insert_default().push(changes);
            }
        }
    }
    Report { lines }
}

impl Line {
    fn new(subject: &str, fault: Fault) -> Line {
        Line {
            subject: subject.to_owned(),
            fault,
            verdict: Verdict::default(),
            firsts: Vec::new(),
            gaps: Vec::new(),
            reads: 0,
            failed_reads: 0,
            changes: None,
        }
    }
}

impl Report {
    pub(super) fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.lines.iter().map(|line| &line.verdict)
    }

    /// Panics unless the subjects with this name keep the promises of a cluster: after each fault they write within
    /// this time at the new primary and never again at the old one, and report the change once at most.
    #[cfg(feature = "cluster")]
    pub(super) fn check_cluster(&self, name: &str, within: Duration) {
        for line in self.lines.iter().filter(|line| line.subject.starts_with(name)) {
            let Line { subject, fault, verdict, firsts, changes, .. } = line;
            let what = format!("{subject}, {fault:?}");
            assert_eq!(verdict.after_newer, 0, "{what}: a write went to the old primary after the new one was seen");
            assert!(firsts.iter().all(|first| *first <= within), "{what}: the first writes came after {firsts:?}");
            let changes = changes.as_deref().unwrap_or_default();
            assert!(changes.iter().all(|count| *count <= 1), "{what}: {changes:?} changes were reported");
        }
    }

    pub(super) fn firsts(&self) -> impl Iterator<Item = Duration> {
        self.lines.iter().flat_map(|line| line.firsts.iter().copied())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "First: from the new primary's first write to the subject's. Gap: without an acknowledged write.")?;
        write!(
            f,
            "| subject | fault | rounds | first: median | max | gap: median | max | acknowledged | not applied "
        )?;
        writeln!(
            f,
            "| unknown | lost (async) | lost (other) | doubled | denied, applied | old timeline | after a newer one | failed reads \
             | events: all | most |"
        )?;
        writeln!(f, "|{}", "---|".repeat(19))?;
        for line in &self.lines {
            let (first, last) = middle_and_last(&line.firsts);
            let (gap, longest) = middle_and_last(&line.gaps);
            let (verdict, rounds) = (&line.verdict, line.firsts.len());
            write!(f, "| {} | {:?} | {rounds} | {first:.1?} | {last:.1?} ", line.subject, line.fault)?;
            write!(f, "| {gap:.1?} | {longest:.1?} | {} | {} ", verdict.acknowledged, verdict.not_applied)?;
            write!(f, "| {} | {} | {} ", verdict.unknown, verdict.lost_async, verdict.lost_other)?;
            write!(f, "| {} | {} ", verdict.doubled, verdict.denied_but_applied)?;
            let (failed, reads) = (line.failed_reads, line.reads);
            write!(f, "| {} | {} | {failed} of {reads} ", verdict.on_old_timeline, verdict.after_newer)?;
            match line.changes.as_deref() {
                Some(changes) => {
                    let (all, most) = (changes.iter().sum::<u64>(), changes.iter().max().unwrap_or(&0));
                    writeln!(f, "| {all} | {most} |")?;
                }
                None => writeln!(f, "| - | - |")?,
            }
        }
        Ok(())
    }
}

fn middle_and_last(durations: &[Duration]) -> (Duration, Duration) {
    let mut sorted = durations.to_vec();
    sorted.sort();
    (sorted[sorted.len() / 2], sorted[sorted.len() - 1])
}

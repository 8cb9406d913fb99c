//! A record of what each write was told, and the comparison with the table on the last primary.
//!
//! Replication is asynchronous, so a failover may lose acknowledged writes that no standby had received. No client can
//! prevent this. Such a write was committed behind the point at which the next timeline left its own. All other losses,
//! doubled writes, and denied writes that were applied are faults of the client.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use failfast::Effect;
use tokio_postgres::Client;

use super::subjects::Receipt;
use crate::support::patroni::Writable;

pub(crate) const TABLE: &str = "CREATE TABLE failfast_ledger
    (subject text, id bigint, timeline int, lsn pg_lsn, server inet, started timestamptz)";

/// One write, and what its caller was told.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) id: i64,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) told: Result<Receipt, Effect>,
}

/// What the last primary knows: how often it has each id, and its history.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    times: HashMap<i64, u64>,
    /// Each earlier timeline, and the position at which the next one left it.
    forks: BTreeMap<u32, u64>,
    timeline: u32,
}

impl Truth {
    pub(crate) async fn of(primary: &Client, subject: &str) -> Truth {
        let count = "SELECT id, count(*) FROM failfast_ledger WHERE subject = $1 GROUP BY id";
        let rows = primary.query(count, &[&subject]).await.expect("the primary serves");
        let times = rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1).unsigned_abs())).collect();
        let file = "SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)";
        let file: String = primary.query_one(file, &[]).await.expect("the primary serves").get(0);
        let timeline = u32::from_str_radix(&file, 16).expect("eight hexadecimal digits");
        let mut forks = BTreeMap::new();
        if timeline > 1 {
            let path = format!("pg_wal/{file}.history");
            let history = primary.query_one("SELECT pg_read_file($1)", &[&path]).await.expect("a history");
            forks = history.get::<_, String>(0).lines().filter_map(fork).collect();
        }
        Truth { times, forks, timeline }
    }

    /// Returns how often the primary has the write with this id.
    #[cfg(feature = "cluster")]
    pub(crate) fn times(&self, id: i64) -> u64 {
        self.times.get(&id).copied().unwrap_or(0)
    }
}

/// Reads a line of a history file: timeline, position and reason, with tabs between them.
fn fork(line: &str) -> Option<(u32, u64)> {
    let mut fields = line.split_whitespace();
    let timeline = fields.next()?.parse().ok()?;
    let (high, low) = fields.next()?.split_once('/')?;
    let half = |digits| u64::from_str_radix(digits, 16).ok();
    Some((timeline, half(high)? << 32 | half(low)?))
}

/// How the writes of one subject ended, in one or several rounds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) acknowledged: u64,
    pub(crate) not_applied: u64,
    pub(crate) unknown: u64,
    /// Acknowledged, and lost because no standby had received them.
    pub(crate) lost_async: u64,
    /// Acknowledged, and lost for another reason.
    pub(crate) lost_other: u64,
    pub(crate) doubled: u64,
    /// Said to be not applied, and found.
    pub(crate) denied_but_applied: u64,
    /// Acknowledged by an old primary, although they began when the new one accepted writes.
    pub(crate) on_old_timeline: u64,
    /// Acknowledged on an old timeline, although they began when an earlier write of the same subject had been
    /// acknowledged on a newer one. The subject had seen the new primary, and has written to the old one.
    pub(crate) after_newer: u64,
}

impl Verdict {
    /// `all` are the writes of all subjects, which share the positions. `primaries` says since when each timeline
    /// accepts writes.
    pub(crate) fn of(writes: &[Write], all: &[Write], truth: &Truth, primaries: &[Writable]) -> Verdict {
        let mut verdict = Verdict::default();
        // When this subject first heard from each timeline.
        let mut heard = BTreeMap::<u32, Instant>::new();
        for (write, receipt) in writes.iter().filter_map(|write| Some((write, write.told.ok()?))) {
            let first = heard.entry(receipt.timeline).or_insert(write.ended);
            *first = (*first).min(write.ended);
        }
        for write in writes {
            let times = truth.times.get(&write.id).copied().unwrap_or(0);
            verdict.doubled += u64::from(times > 1);
            match write.told {
                Ok(receipt) => {
                    verdict.acknowledged += 1;
                    let is_newer = |primary: &&Writable| primary.timeline > receipt.timeline;
                    let mut newer = primaries.iter().filter(is_newer);
                    verdict.on_old_timeline += u64::from(newer.any(|primary| primary.at <= write.begun));
                    let mut newer = heard.range(receipt.timeline + 1..);
                    verdict.after_newer += u64::from(newer.any(|(_, first)| *first <= write.begun));
                    if times == 0 && is_behind_fork(write, receipt, all, truth) {
                        verdict.lost_async += 1;
                    } else if times == 0 {
                        verdict.lost_other += 1;
                    }
                }
                Err(Effect::NotApplied) => {
                    verdict.not_applied += 1;
                    verdict.denied_but_applied += u64::from(times > 0);
                }
                Err(_) => verdict.unknown += 1,
            }
        }
        verdict
    }

    pub(crate) fn add(&mut self, other: &Verdict) {
        self.acknowledged += other.acknowledged;
        self.not_applied += other.not_applied;
        self.unknown += other.unknown;
        self.lost_async += other.lost_async;
        self.lost_other += other.lost_other;
        self.doubled += other.doubled;
        self.denied_but_applied += other.denied_but_applied;
        self.on_old_timeline += other.on_old_timeline;
        self.after_newer += other.after_newer;
    }

    /// Panics if the client is at fault for a row.
    pub(crate) fn check(&self, what: &str) {
        assert_eq!((self.lost_other, self.doubled, self.denied_but_applied), (0, 0, 0), "{what}: {self:?}");
        assert!(self.acknowledged > 0, "{what}: no write succeeded");
    }
}

/// Returns whether the commit may be behind the fork of its timeline. A write that began after this one's answer stands
/// behind its commit. So the first of those bounds the commit's position.
fn is_behind_fork(write: &Write, receipt: Receipt, all: &[Write], truth: &Truth) -> bool {
    // A timeline that is not in the history was left at once by all others.
    let Some(&fork) = truth.forks.get(&receipt.timeline) else { return receipt.timeline != truth.timeline };
    let later = all.iter().filter(|other| other.begun > write.ended).filter_map(|other| other.told.ok());
    let bound = later.filter(|other| other.timeline == receipt.timeline).map(|other| other.lsn).min();
    bound.is_none_or(|bound| bound > fork)
}

/// Returns the time from the new primary's first write to the first one of these.
pub(super) fn first_after(writes: &[Write], primary: Writable) -> Option<Duration> {
    let on_it = |write: &&Write| write.told.is_ok_and(|receipt| receipt.timeline >= primary.timeline);
    let first = writes.iter().filter(on_it).map(|write| write.ended).min()?;
    Some(first.saturating_duration_since(primary.at))
}

/// Returns the longest time without an acknowledged write.
pub(super) fn longest_gap(writes: &[Write]) -> Duration {
    let mut ends: Vec<_> = writes.iter().filter(|write| write.told.is_ok()).map(|write| write.ended).collect();
    ends.sort();
    ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[test]
fn losses_are_told_apart_by_the_fork() {
    let begun = Instant::now();
    let after = |millis| begun + Duration::from_millis(millis);
    let write = |id, millis, told| Write { id, begun: after(millis), ended: after(millis + 5), told };
    let on = |timeline, lsn| Ok(Receipt { timeline, lsn });
    let writes = [
        write(1, 0, on(1, 100)),               // found
        write(2, 10, on(1, 200)),              // lost, although a later write stands before the fork
        write(3, 20, on(1, 300)),              // lost; its commit may be behind the fork
        write(4, 30, on(1, 400)),              // lost behind the fork
        write(5, 40, on(3, 500)),              // found twice
        write(6, 50, on(3, 600)),              // lost on the last timeline
        write(7, 60, Err(Effect::NotApplied)), // found
        write(8, 70, Err(Effect::NotApplied)), // not found
        write(9, 80, Err(Effect::Unknown)),    // found
        write(10, 90, on(1, 900)),             // lost: an old primary still served
        write(11, 100, on(2, 310)),            // lost: the last primary's history lacks its timeline
    ];
    let times = [(1, 1), (5, 2), (7, 1), (9, 1)].into();
    let forks = [fork("1\t0/15E\tno recovery target specified").unwrap()].into();
    let truth = Truth { times, forks, timeline: 3 };
    let primaries = [Writable { node: 1, timeline: 3, at: after(35) }];
    let verdict = Verdict::of(&writes, &writes, &truth, &primaries);
    let expected = Verdict {
        acknowledged: 8,
        not_applied: 2,
        unknown: 1,
        lost_async: 4,
        lost_other: 2,
        doubled: 1,
        denied_but_applied: 1,
        on_old_timeline: 2,
        after_newer: 2,
    };
    assert_eq!(verdict, expected);
    assert_eq!(first_after(&writes, primaries[0]), Some(Duration::from_millis(10)));
    assert_eq!(longest_gap(&writes), Duration::from_millis(40));
}

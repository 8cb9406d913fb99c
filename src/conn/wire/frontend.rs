//! What the driver writes: where requests begin and end, and which of them are a COMMIT.

use std::mem;

use super::frames::Frames;
use super::ledger::{Group, Ledger};

/// So many prepared statements that are a COMMIT are known apart. A driver prepares one once.
const MOST_COMMITS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Frontend {
    frames: Frames,
    group: Group,
    /// The names of prepared statements that are a COMMIT.
    commits: Vec<Vec<u8>>,
}

impl Frontend {
    pub(super) fn feed(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        let (group, commits) = (&mut self.group, &mut self.commits);
        self.frames.feed(bytes, |kind, body| match kind {
            b'Q' if is_commit(body) => ledger.commit_written(),
            b'Q' | b'F' => ledger.query_written(),
            b'S' => ledger.sync_written(mem::take(group)),
            b'C' if matches!(group, Group::Empty | Group::Closes) => *group = Group::Closes,
            b'c' | b'f' => *group = Group::CopyEnd,
            b'H' | b'X' => {}
            b'P' => {
                parsed(commits, body);
                group.go_on();
            }
            b'B' if !commits.is_empty() && binds_one_of(commits, body) => *group = Group::Commit,
            _ => group.go_on(),
        });
        if self.frames.is_broken() {
            ledger.lose_track();
        }
    }
}

/// A Parse: name and SQL.
fn parsed(commits: &mut Vec<Vec<u8>>, body: &[u8]) {
    let Some((name, sql)) = split_at_nul(body) else { return };
    if is_commit(sql) && commits.len() < MOST_COMMITS {
        commits.push(name.to_vec());
    } else if !commits.is_empty() {
        commits.retain(|commit| commit != name);
    }
}

/// A Bind: portal, name and parameters.
fn binds_one_of(commits: &[Vec<u8>], body: &[u8]) -> bool {
    let name = split_at_nul(body).and_then(|(_, rest)| split_at_nul(rest));
    name.is_some_and(|(name, _)| commits.iter().any(|commit| commit == name))
}

fn split_at_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Whether SQL begins with COMMIT, or with its other name.
fn is_commit(sql: &[u8]) -> bool {
    let sql = sql.trim_ascii_start();
    let begins = |word: &[u8]| sql.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    begins(b"COMMIT") || begins(b"END")
}

//! What the driver writes: where requests begin and end.

use std::mem;

use super::frames::Frames;
use super::ledger::{Group, Ledger};

#[derive(Debug, Default)]
pub(super) struct Frontend {
    frames: Frames,
    group: Group,
}

impl Frontend {
    pub(super) fn feed(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        let group = &mut self.group;
        self.frames.feed(bytes, |kind, body| match kind {
            b'Q' if is_commit(body) => ledger.commit_written(),
            b'Q' | b'F' => ledger.query_written(),
            b'S' => ledger.sync_written(mem::take(group)),
            b'C' if matches!(group, Group::Empty | Group::Closes) => *group = Group::Closes,
            b'c' | b'f' => *group = Group::CopyEnd,
            b'H' | b'X' => {}
            _ => *group = Group::Other,
        });
        if self.frames.is_broken() {
            ledger.lose_track();
        }
    }
}

/// Whether a Query begins with COMMIT, or with its other name.
fn is_commit(sql: &[u8]) -> bool {
    let begins = |word: &[u8]| sql.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    begins(b"COMMIT") || begins(b"END")
}

//! What the driver writes: where requests begin and end, which of them are a COMMIT, and what they may leave in the session.

use std::mem;

use super::frames::{Frame, Frames};
use super::ledger::{Group, Ledger};
use super::traces::Traces;

/// So much of a text is looked through. A longer one counts as one that leaves something.
const KEPT: usize = 1 << 16;
/// Of what is not a text: two names.
const KEPT_OF_OTHERS: usize = 512;
/// So many prepared statements are known apart that are a COMMIT or leave something. A driver prepares one once.
const MOST: usize = 256;

#[derive(Debug)]
pub(super) struct Frontend {
    frames: Frames,
    group: Group,
    /// By name: the prepared statements that matter.
    prepared: Vec<(Vec<u8>, Matter)>,
    /// There were more of them than are kept.
    is_lost: bool,
    /// Of what was written since they were taken.
    traces: Traces,
}

/// What matters of a statement.
#[derive(Debug, Default, Clone, Copy)]
struct Matter {
    is_commit: bool,
    traces: Traces,
}

impl Default for Frontend {
    fn default() -> Self {
        let (frames, group, traces) = (Frames::new(kept), Group::default(), Traces::default());
        Self { frames, group, prepared: Vec::new(), is_lost: false, traces }
    }
}

impl Frontend {
    pub(super) fn feed(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        let Self { frames, group, prepared, is_lost, traces } = self;
        let mut seen = |kind, body: &[u8]| match kind {
            b'Q' => {
                let matter = Matter::of(body, body.len() >= KEPT);
                traces.add(matter.traces);
                if matter.is_commit { ledger.commit_written() } else { ledger.query_written() }
            }
            b'F' => {
                traces.add(Traces::UNKNOWN);
                ledger.query_written();
            }
            b'S' => ledger.sync_written(mem::take(group)),
            b'C' => {
                closed(prepared, body);
                if matches!(group, Group::Empty | Group::Closes) {
                    *group = Group::Closes;
                } else {
                    group.go_on();
                }
            }
            b'c' | b'f' => *group = Group::CopyEnd,
            b'H' | b'X' => {}
            b'P' => {
                *is_lost |= !parsed(prepared, body);
                group.go_on();
            }
            b'B' if *is_lost || !prepared.is_empty() => {
                let matter = bound(prepared, body);
                traces.add(matter.map_or(Traces::default(), |matter| matter.traces));
                if *is_lost && matter.is_none() {
                    traces.add(Traces::UNKNOWN);
                }
                if matter.is_some_and(|matter| matter.is_commit) {
                    *group = Group::Commit;
                } else {
                    group.go_on();
                }
            }
            _ => group.go_on(),
        };
        frames.feed(bytes, |frame| {
            if let Frame::Whole(kind, body) = frame {
                seen(kind, body);
            }
            true
        });
        if self.frames.is_broken() {
            ledger.lose_track();
        }
    }

    /// Whether a message was written whose Sync is still to come.
    pub(super) fn is_amid_group(&self) -> bool {
        self.group != Group::Empty
    }

    pub(super) fn take_traces(&mut self) -> Traces {
        mem::take(&mut self.traces)
    }
}

impl Matter {
    /// Of a text, which may have been cut.
    fn of(sql: &[u8], is_cut: bool) -> Self {
        let text = sql.split(|byte| *byte == 0).next().unwrap_or_default();
        let traces = if is_cut { Traces::UNKNOWN } else { Traces::of(text) };
        Self { is_commit: is_commit(text), traces }
    }
}

/// By type: a Query and a Parse have a text. Data of a COPY and parameters are not copied.
fn kept(kind: u8) -> usize {
    if matches!(kind, b'Q' | b'P') { KEPT } else { KEPT_OF_OTHERS }
}

/// A Parse: name and SQL. Returns `false` if the statement matters and cannot be kept.
fn parsed(prepared: &mut Vec<(Vec<u8>, Matter)>, body: &[u8]) -> bool {
    let Some((name, sql)) = split_at_nul(body) else { return true };
    prepared.retain(|(known, _)| known != name);
    let matter = Matter::of(sql, body.len() >= KEPT);
    if !matter.is_commit && matter.traces.is_none() {
        return true;
    }
    let has_room = prepared.len() < MOST;
    if has_room {
        prepared.push((name.to_vec(), matter));
    }
    has_room
}

/// A Bind: portal, name and parameters.
fn bound(prepared: &[(Vec<u8>, Matter)], body: &[u8]) -> Option<Matter> {
    let (name, _) = split_at_nul(body).and_then(|(_, rest)| split_at_nul(rest))?;
    prepared.iter().find(|(known, _)| known == name).map(|(_, matter)| *matter)
}

/// A Close: of a statement or a portal, and its name.
fn closed(prepared: &mut Vec<(Vec<u8>, Matter)>, body: &[u8]) {
    if let Some((name, _)) = body.strip_prefix(b"S").and_then(split_at_nul) {
        prepared.retain(|(known, _)| known != name);
    }
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

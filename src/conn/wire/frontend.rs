//! Reads what the driver writes: where requests begin and end, which of them are a COMMIT, and what they may leave in
//! the session.

use std::mem;

use super::frames::{Frame, Frames};
use super::ledger::{Group, Ledger};
use super::traces::Traces;

/// How many bytes of a text are searched. A longer text counts as one that leaves something in the session.
const KEPT: usize = 1 << 16;
/// How many bytes of other messages are kept: enough for two names.
const KEPT_OF_OTHERS: usize = 512;
/// The largest number of remembered prepared statements. Only those are remembered that are a COMMIT or leave
/// something.
const MOST: usize = 256;

#[derive(Debug)]
pub(super) struct Frontend {
    frames: Frames,
    group: Group,
    /// The prepared statements that matter, by name.
    prepared: Vec<(Vec<u8>, Matter)>,
    /// Whether there were more of them than can be kept.
    is_lost: bool,
    /// The traces of the messages written since the last [`take_traces`](Self::take_traces).
    traces: Traces,
    /// Whether the driver has prepared its look-up of types.
    has_look_up: bool,
}

/// How the driver's look-up of an unknown type begins.
const LOOK_UP: &[u8] = b"SELECT t.typname, t.typtype, t.typelem";

/// The facts about a statement that matter.
#[derive(Debug, Default, Clone, Copy)]
struct Matter {
    is_commit: bool,
    traces: Traces,
}

impl Default for Frontend {
    fn default() -> Self {
        let (frames, group, traces) = (Frames::new(kept), Group::default(), Traces::default());
        Self { frames, group, prepared: Vec::new(), is_lost: false, traces, has_look_up: false }
    }
}

impl Frontend {
    pub(super) fn feed(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        let Self { frames, group, prepared, is_lost, traces, has_look_up } = self;
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
                if let Some(name) = closed(body) {
                    prepared.retain(|(known, _)| known != name);
                    ledger.unused.remove(name);
                }
                if matches!(group, Group::Empty | Group::Closes) {
                    *group = Group::Closes;
                } else {
                    group.go_on();
                }
            }
            b'c' | b'f' => *group = Group::CopyEnd,
            b'H' | b'X' => {}
            b'P' => {
                *is_lost |= !on_parse(prepared, body);
                *has_look_up |= parsed(body).is_some_and(|(_, sql)| sql.starts_with(LOOK_UP));
                match parsed(body).filter(|(name, _)| !name.is_empty()) {
                    Some((name, _)) if *group == Group::Empty => {
                        *group = Group::Prepare;
                        ledger.unused.parse_written(name);
                    }
                    _ => group.go_on(),
                }
            }
            b'B' if *is_lost || !prepared.is_empty() || !ledger.unused.is_empty() => {
                let name = bound(body);
                if let Some(name) = name {
                    ledger.unused.remove(name);
                }
                let matter = name.and_then(|name| find(prepared, name));
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

    /// Returns whether a message was written whose Sync is still to come.
    pub(super) fn is_amid_group(&self) -> bool {
        self.group != Group::Empty
    }

    /// Returns whether the driver has prepared its look-up of types.
    pub(super) fn has_look_up(&self) -> bool {
        self.has_look_up
    }

    pub(super) fn take_traces(&mut self) -> Traces {
        mem::take(&mut self.traces)
    }
}

impl Matter {
    /// Examines a text. `is_cut`: its end is missing.
    fn of(sql: &[u8], is_cut: bool) -> Self {
        let text = sql.split(|byte| *byte == 0).next().unwrap_or_default();
        let traces = if is_cut { Traces::UNKNOWN } else { Traces::of(text) };
        Self { is_commit: is_commit(text), traces }
    }
}

/// Returns how many bytes of a message are kept. A Query and a Parse have a text. The data of a COPY and parameters are
/// not copied.
fn kept(kind: u8) -> usize {
    if matches!(kind, b'Q' | b'P') { KEPT } else { KEPT_OF_OTHERS }
}

/// Handles a Parse: name and SQL. Returns `false` if the statement matters and cannot be kept.
fn on_parse(prepared: &mut Vec<(Vec<u8>, Matter)>, body: &[u8]) -> bool {
    let Some((name, sql)) = parsed(body) else { return true };
    prepared.retain(|(known, _)| known != name);
    let matter = Matter::of(sql, body.len() >= KEPT);
    if !matter.is_commit && matter.traces.is_none() {
        return true;
    }
    let has_space = prepared.len() < MOST;
    if has_space {
        prepared.push((name.to_vec(), matter));
    }
    has_space
}

/// Returns what matters of a prepared statement.
fn find(prepared: &[(Vec<u8>, Matter)], name: &[u8]) -> Option<Matter> {
    prepared.iter().find(|(known, _)| known == name).map(|(_, matter)| *matter)
}

/// Returns the name and the SQL of a Parse.
fn parsed(body: &[u8]) -> Option<(&[u8], &[u8])> {
    split_at_nul(body)
}

/// Returns the name of the statement in a Bind, which comes after that of the portal.
fn bound(body: &[u8]) -> Option<&[u8]> {
    let (_portal, rest) = split_at_nul(body)?;
    split_at_nul(rest).map(|(name, _)| name)
}

/// Returns the name of the statement in a Close. `None` if it closes a portal.
fn closed(body: &[u8]) -> Option<&[u8]> {
    body.strip_prefix(b"S").and_then(split_at_nul).map(|(name, _)| name)
}

fn split_at_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Returns whether SQL begins with COMMIT or END.
fn is_commit(sql: &[u8]) -> bool {
    let sql = sql.trim_ascii_start();
    let begins = |word: &[u8]| sql.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    begins(b"COMMIT") || begins(b"END")
}

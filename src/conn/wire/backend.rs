//! Reads what the server sends, and keeps the facts that the pool needs.

use std::mem;

use tokio_postgres::error::SqlState;

use super::frames::{Frame, Frames};
use super::ledger::Ledger;
use super::limits::{Excess, Limits};
use super::reported::Reported;
use crate::policy::{Answer, Failure, Occurrence, ServerSeverity, StatementPhase};

/// How many bytes of a message's body are kept. Errors are the longest messages that matter.
const KEPT: usize = 512;

#[derive(Debug)]
pub(super) struct Backend {
    frames: Frames,
    limits: Limits,
    pub(super) heard: Heard,
}

/// The facts learned from all messages of the server.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Whether start-up is over: the first ReadyForQuery was read.
    pub(super) is_started: bool,
    pub(super) process_id: i32,
    pub(super) status: TransactionStatus,
    pub(super) tag: Tag,
    pub(super) errors: u64,
    /// The number of rows and pieces of COPY data.
    pub(super) items: u64,
    /// The number of commands that committed something.
    pub(super) commits: u64,
    /// The number of commands that changed types or tables, and of commits of such a command.
    pub(super) schema_changes: u64,
    /// Whether such a command may still have to be committed.
    is_schema_changing: bool,
    /// The number of commands that dropped all prepared statements.
    pub(super) deallocations: u64,
    /// The number of errors that report a lost or outdated prepared statement.
    pub(super) lost_statements: u64,
    /// The number of completed commands.
    pub(super) completed: u64,
    /// The SQLSTATE of the last error that does not only repeat an earlier one, until it is published.
    pub(super) error: Option<[u8; 5]>,
    pub(super) parameters: u64,
    /// The number of commands that set something for the session.
    pub(super) settings: u64,
    /// Whether a command may have left something in the session, until it is published.
    pub(super) touched_session: bool,
    /// The number of harmless commands whose answers are still to come: see [`Traces`](super::traces::Traces).
    pub(super) harmless: u32,
    /// The parameters of the session that the server reports.
    pub(super) reported: Reported,
    /// The reason for which the server is about to end the connection.
    pub(super) last_words: Option<(SqlState, String)>,
    /// Whether `last_words` has changed, until it is published.
    pub(super) last_words_changed: bool,
}

impl Default for Backend {
    fn default() -> Self {
        Self { frames: Frames::new(|_| KEPT), limits: Limits::default(), heard: Heard::default() }
    }
}

impl Backend {
    /// Reads bytes of the server. `is_amid_group`: a request was written in part, and may already have answers.
    pub(super) fn feed(&mut self, bytes: &[u8], ledger: &mut Ledger, is_amid_group: bool) {
        let Self { frames, limits, heard } = self;
        frames.feed(bytes, |frame| match frame {
            Frame::Begins(kind, length) => {
                let asked = ledger.in_flight() + usize::from(is_amid_group);
                limits.accepts(kind, length, heard.is_started.then_some(asked))
            }
            Frame::Whole(kind, body) => {
                heard.message(kind, body, ledger);
                limits.accepts_strangers(heard.reported.strangers())
            }
        });
        if self.frames.is_broken() {
            ledger.lose_track();
        }
    }

    /// The limit that the server has exceeded, if any.
    pub(super) fn excess(&self) -> Option<Excess> {
        self.limits.excess()
    }
}

impl Heard {
    fn message(&mut self, kind: u8, body: &[u8], ledger: &mut Ledger) {
        match kind {
            b'Z' => {
                self.is_started = true;
                self.status = TransactionStatus::of(body.first().copied());
                // The session goes on. So the last words came from a function that raised the same SQLSTATE.
                self.last_words_changed |= self.last_words.take().is_some();
                if self.status == TransactionStatus::Idle && mem::take(&mut self.is_schema_changing) {
                    self.schema_changes += 1;
                }
                ledger.ready_for_query_read();
                if ledger.in_flight() == 0 {
                    self.harmless = 0;
                }
            }
            b'C' => {
                let tag = body.split(|byte| *byte == 0).next().unwrap_or_default();
                self.tag = Tag::of(tag);
                self.on_completed(tag);
                if tag == b"ALTER TYPE" || tag == b"ALTER TABLE" {
                    self.schema_changes += 1;
                    self.is_schema_changing = true;
                }
                if tag == b"DEALLOCATE ALL" || tag == b"DISCARD ALL" {
                    self.deallocations += 1;
                    ledger.unused.clear();
                }
                self.settings += u64::from(tag == b"SET");
                self.commits += u64::from(tag.starts_with(b"COMMIT") || tag == b"PREPARE TRANSACTION");
                self.completed += 1;
                ledger.command_complete_read();
            }
            b'D' | b'd' => {
                self.items += 1;
                ledger.answer_read();
            }
            b'1' => ledger.parse_complete_read(),
            b'G' => ledger.copy_in_response_read(),
            b'E' => {
                self.errors += u64::from(self.is_started);
                self.lost_statements += u64::from(reports_lost_statement(body));
                if self.status != TransactionStatus::Failed {
                    self.error = field(body, b'C').and_then(|state| state.try_into().ok()).or(self.error);
                }
                // `S` is in the language of the messages. `V`, since version 9.6, is not.
                let severity = field(body, b'V').or_else(|| field(body, b'S'));
                if matches!(severity, Some(b"FATAL" | b"PANIC")) {
                    self.on_last_words(body);
                }
                ledger.answer_read();
            }
            // The server reports a crash and an immediate shutdown by a warning. Notices, parameters and notifications
            // come at any time and belong to no answer.
            b'N' => {
                if field(body, b'C').is_some_and(|code| code.starts_with(b"57P")) {
                    self.on_last_words(body);
                }
            }
            b'S' => {
                self.parameters += 1;
                self.reported.on_report(body, self.is_started);
            }
            b'A' => {}
            b'K' if !self.is_started => {
                self.process_id = body.first_chunk().map_or(0, |id| i32::from_be_bytes(*id));
            }
            _ => ledger.answer_read(),
        }
    }

    /// Records whether a completed command may have left something in the session.
    fn on_completed(&mut self, tag: &[u8]) {
        if !leaves_something(tag) {
            return;
        }
        let may_be_harmless = tag.starts_with(b"SET") || tag.starts_with(b"DECLARE");
        if may_be_harmless && self.harmless > 0 {
            self.harmless -= 1;
        } else {
            self.touched_session = true;
        }
    }

    fn on_last_words(&mut self, body: &[u8]) {
        let text = |name| String::from_utf8_lossy(field(body, name).unwrap_or_default()).into_owned();
        self.last_words = Some((SqlState::from_code(&text(b'C')), text(b'M')));
        self.last_words_changed = true;
    }
}

/// Returns whether a command with this tag may leave something in the session, or remove what the owner's hook had set.
///
/// [`Traces`](super::traces::Traces) usually finds that in the text of the request. This catches what it missed there.
fn leaves_something(tag: &[u8]) -> bool {
    let words = [&b"SET"[..], b"LISTEN", b"DECLARE", b"RESET", b"DISCARD", b"UNLISTEN", b"LOAD", b"DO", b"CALL"];
    words.iter().any(|word| tag.starts_with(word)) || tag == b"PREPARE"
}

/// Returns whether an error says that a prepared statement is lost or outdated.
fn reports_lost_statement(body: &[u8]) -> bool {
    let text = |name| field(body, name).and_then(|text| std::str::from_utf8(text).ok());
    let answer = Answer {
        severity: Some(ServerSeverity::Error),
        state: text(b'C').unwrap_or_default(),
        message: text(b'M').unwrap_or_default(),
        routine: text(b'R'),
        is_from_within: false,
    };
    let failure = Failure { phase: StatementPhase::Autocommit, event: Occurrence::Answer(answer) };
    failure.reprepare().is_some()
}

/// Returns a field of an ErrorResponse or NoticeResponse.
fn field(body: &[u8], name: u8) -> Option<&[u8]> {
    body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(&[name]))
}

/// The transaction status of the last ReadyForQuery.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransactionStatus {
    #[default]
    Idle,
    Open,
    Failed,
}

/// The tag of the last completed command.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    #[default]
    Other,
    Begin,
    Commit,
    /// Also the tag of ROLLBACK TO SAVEPOINT, and of a COMMIT that rolled back.
    Rollback,
    Savepoint,
    Release,
}

impl TransactionStatus {
    pub(super) const ALL: [Self; 3] = [Self::Idle, Self::Open, Self::Failed];

    /// An unknown status counts as failed, not as idle.
    pub(super) fn of(byte: Option<u8>) -> Self {
        match byte {
            Some(b'I') => Self::Idle,
            Some(b'T') => Self::Open,
            _ => Self::Failed,
        }
    }
}

impl Tag {
    pub(super) const ALL: [Self; 6] =
        [Self::Other, Self::Begin, Self::Commit, Self::Rollback, Self::Savepoint, Self::Release];

    pub(super) fn of(tag: &[u8]) -> Self {
        match tag {
            b"BEGIN" | b"START TRANSACTION" => Self::Begin,
            b"COMMIT" => Self::Commit,
            b"ROLLBACK" => Self::Rollback,
            b"SAVEPOINT" => Self::Savepoint,
            b"RELEASE" => Self::Release,
            _ => Self::Other,
        }
    }
}

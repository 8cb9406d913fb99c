//! Which requests have been written and not been answered.
//!
//! The server answers each Query and each Sync with one ReadyForQuery, in order, with one exception: while a COPY FROM STDIN waits
//! for data, it ignores a Sync. The driver sends one with the command and another at the end of the data, so usually one
//! ReadyForQuery answers both. But a copy may be refused before the server has come to ignore the first: without a CopyInResponse,
//! or after one (a view, a trigger). Then each Sync has its own answer, and which of the two happened shows only in what follows:
//! the answer to a Sync of its own at the end of a copy has nothing before its ReadyForQuery. As long as it may be due it counts as
//! due, because a connection on which it is overlooked gives one caller the answer of another.

use std::collections::VecDeque;
use std::mem;

/// More are not kept apart, and the connection is never again taken to be at rest. It bounds the memory, at one byte each.
const MOST: usize = 1 << 20;

/// What the messages since the last Sync were.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    #[default]
    Empty,
    /// Close messages and nothing else: the driver's housekeeping, when a statement or portal is dropped.
    Closes,
    /// They ended with CopyDone or CopyFail.
    CopyEnd,
    /// A COMMIT is among them.
    Commit,
    Other,
}

impl Group {
    /// With a message that says nothing of what the group is.
    pub(super) fn go_on(&mut self) {
        if *self != Self::Commit {
            *self = Self::Other;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Query,
    Commit,
    Sync,
    /// A Sync alone: its answer is a ReadyForQuery alone.
    Barrier,
    /// The Sync at the end of a copy: if it has an answer of its own, that is a ReadyForQuery alone.
    CopyEnd,
    Housekeeping,
}

/// What the request at the head has to do with a copy to the server.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Copy {
    #[default]
    None,
    /// The server waits for data, and ignores a Sync.
    Began,
    /// It has taken the data, and so has ignored the first Sync.
    Done,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    requests: VecDeque<Request>,
    /// How many of them are that.
    housekeeping: usize,
    commits: usize,
    copy: Copy,
    /// The `CopyEnd` at the head has not been written yet, but will be.
    owes_copy_end: bool,
    is_lost: bool,
}

impl Ledger {
    /// Whatever is due an answer, with the driver's housekeeping.
    pub(super) fn in_flight(&self) -> usize {
        // One ReadyForQuery is due for a copy and its end.
        let one_for_two = self.copy != Copy::None && self.requests.get(1) == Some(&Request::CopyEnd);
        let due = self.requests.len() - usize::from(one_for_two);
        due.max(usize::from(self.is_lost))
    }

    /// Whatever is due an answer that a caller may wait for.
    pub(super) fn unanswered(&self) -> usize {
        self.in_flight() - self.housekeeping
    }

    /// What was written or read can no longer be told apart: nothing is ever quiet again.
    pub(super) fn lose_track(&mut self) {
        *self = Self { is_lost: true, ..Self::default() };
    }

    pub(super) fn query_written(&mut self) {
        self.push(Request::Query);
    }

    pub(super) fn commit_written(&mut self) {
        self.push(Request::Commit);
    }

    /// Whether a COMMIT is due an answer.
    pub(super) fn is_committing(&self) -> bool {
        self.commits > 0
    }

    pub(super) fn sync_written(&mut self, group: Group) {
        match group {
            Group::Closes => self.push(Request::Housekeeping),
            Group::CopyEnd if mem::take(&mut self.owes_copy_end) => {}
            Group::CopyEnd => self.push(Request::CopyEnd),
            Group::Empty => self.push(Request::Barrier),
            Group::Commit => self.push(Request::Commit),
            Group::Other => self.push(Request::Sync),
        }
    }

    /// A part of an answer was read, other than its ReadyForQuery.
    pub(super) fn answer_read(&mut self) {
        // Not theirs. The end of a copy was answered together with it, and what was taken for its answer was a barrier's.
        while self.requests.len() > 1 && matches!(self.requests[0], Request::CopyEnd | Request::Barrier) {
            self.pop();
        }
    }

    pub(super) fn copy_in_response_read(&mut self) {
        self.answer_read();
        // A Query with a copy in it has no Sync.
        if self.requests.front() == Some(&Request::Sync) {
            self.copy = Copy::Began;
        }
    }

    pub(super) fn command_complete_read(&mut self) {
        self.answer_read();
        if self.copy == Copy::Began {
            self.copy = Copy::Done;
        }
    }

    pub(super) fn ready_for_query_read(&mut self) {
        let copy = mem::take(&mut self.copy);
        self.pop();
        let end_is_written = self.requests.front() == Some(&Request::CopyEnd);
        match copy {
            Copy::Done if end_is_written => self.pop(),
            Copy::Began if !end_is_written => {
                self.requests.push_front(Request::CopyEnd);
                self.owes_copy_end = true;
            }
            _ => {}
        }
    }

    fn push(&mut self, request: Request) {
        if self.requests.len() == MOST {
            self.lose_track();
        }
        if !self.is_lost {
            self.requests.push_back(request);
            self.housekeeping += usize::from(request == Request::Housekeeping);
            self.commits += usize::from(request == Request::Commit);
        }
    }

    /// A server that talks nonsense may answer what nobody asked.
    fn pop(&mut self) {
        match self.requests.pop_front() {
            Some(Request::Housekeeping) => self.housekeeping -= 1,
            Some(Request::Commit) => self.commits -= 1,
            Some(Request::CopyEnd) => self.owes_copy_end = false,
            _ => {}
        }
    }
}

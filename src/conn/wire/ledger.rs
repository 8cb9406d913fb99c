//! Counts the requests that were written and are not yet answered.
//!
//! The server answers each Query and each Sync with one ReadyForQuery, in order. There is one exception: while a COPY
//! FROM STDIN waits for data, the server ignores a Sync. The driver sends one Sync with the command and another at the
//! end of the data, so usually one ReadyForQuery answers both.
//!
//! But the server may refuse a copy before it ignores the first Sync: without a CopyInResponse, or after one (a view, a
//! trigger). Then each Sync has its own answer. Only the next messages show which of the two happened: nothing precedes
//! the ReadyForQuery that answers the second Sync alone. While this answer may be due, it counts as due. If the ledger
//! overlooked it, one caller would get the answer of another.

use std::collections::VecDeque;
use std::mem;

use super::unused::Unused;

/// The largest number of requests that are kept, at one byte each. Beyond it, the connection never counts as quiet
/// again.
const MOST: usize = 1 << 20;

/// The kind of the messages since the last Sync.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    #[default]
    Empty,
    /// Only Close messages: the driver's housekeeping when a statement or portal is dropped.
    Closes,
    /// The last one is CopyDone or CopyFail.
    CopyEnd,
    /// One of them is a COMMIT.
    Commit,
    /// The first one is the Parse of a named statement.
    Prepare,
    Other,
}

impl Group {
    /// Adds a message that does not decide the kind of the group.
    pub(super) fn go_on(&mut self) {
        if !matches!(self, Self::Commit | Self::Prepare) {
            *self = Self::Other;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Query,
    Commit,
    /// The Parse of a named statement, and its Sync.
    Prepare,
    Sync,
    /// A Sync alone. Its answer is a ReadyForQuery alone.
    Barrier,
    /// The Sync at the end of a copy. If it has an answer of its own, that is a ReadyForQuery alone.
    CopyEnd,
    Housekeeping,
}

/// The state of a copy to the server in the first request.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Copy {
    #[default]
    None,
    /// The server waits for data, and ignores a Sync.
    Began,
    /// The server has taken the data, so it has ignored the first Sync.
    Done,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    requests: VecDeque<Request>,
    /// How many of the requests are housekeeping.
    housekeeping: usize,
    /// How many of the requests are a COMMIT.
    commits: usize,
    copy: Copy,
    /// Whether the first request is a `CopyEnd` that the driver will still write.
    owes_copy_end: bool,
    is_lost: bool,
    /// The named statements that were prepared and not used since.
    pub(super) unused: Unused,
}

impl Ledger {
    /// The number of requests that are due an answer, with the driver's housekeeping.
    pub(super) fn in_flight(&self) -> usize {
        // One ReadyForQuery answers both a copy and its end.
        let one_for_two = self.copy != Copy::None && self.requests.get(1) == Some(&Request::CopyEnd);
        let due = self.requests.len() - usize::from(one_for_two);
        due.max(usize::from(self.is_lost))
    }

    /// The number of requests that are due an answer, without the driver's housekeeping.
    pub(super) fn unanswered(&self) -> usize {
        self.in_flight() - self.housekeeping
    }

    /// The messages can no longer be recognized: the connection never counts as quiet again.
    pub(super) fn lose_track(&mut self) {
        *self = Self { is_lost: true, ..Self::default() };
    }

    pub(super) fn query_written(&mut self) {
        self.push(Request::Query);
    }

    pub(super) fn commit_written(&mut self) {
        self.push(Request::Commit);
    }

    /// Returns whether a COMMIT is due an answer.
    pub(super) fn is_committing(&self) -> bool {
        self.commits > 0
    }

    pub(super) fn sync_written(&mut self, group: Group) {
        self.unused.sync_written(group == Group::Prepare && !self.is_lost);
        match group {
            Group::Closes => self.push(Request::Housekeeping),
            Group::CopyEnd if mem::take(&mut self.owes_copy_end) => {}
            Group::CopyEnd => self.push(Request::CopyEnd),
            Group::Empty => self.push(Request::Barrier),
            Group::Commit => self.push(Request::Commit),
            Group::Prepare => self.push(Request::Prepare),
            Group::Other => self.push(Request::Sync),
        }
    }

    /// A part of an answer was read that is not its ReadyForQuery.
    pub(super) fn answer_read(&mut self) {
        // The part belongs to neither of these. The copy and its end had one answer, and the other ReadyForQuery
        // answered a barrier.
        while self.requests.len() > 1 && matches!(self.requests[0], Request::CopyEnd | Request::Barrier) {
            self.pop();
        }
    }

    pub(super) fn parse_complete_read(&mut self) {
        self.answer_read();
        if self.requests.front() == Some(&Request::Prepare) {
            self.unused.parsed();
        }
    }

    pub(super) fn copy_in_response_read(&mut self) {
        self.answer_read();
        // A Query that copies has no Sync.
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

    /// Does nothing if no request is due: a faulty server may answer without a request.
    fn pop(&mut self) {
        match self.requests.pop_front() {
            Some(Request::Housekeeping) => self.housekeeping -= 1,
            Some(Request::Commit) => self.commits -= 1,
            Some(Request::Prepare) => self.unused.answered(),
            Some(Request::CopyEnd) => self.owes_copy_end = false,
            _ => {}
        }
    }
}

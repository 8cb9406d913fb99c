//! The named statements that were prepared and not used since.
//!
//! The driver closes a statement when its last handle is dropped. If a caller drops the call while the driver prepares
//! the statement, there is no handle yet, and nobody closes the statement. Such an orphan was never bound. The pool
//! drops it when it settles the connection.

use std::collections::VecDeque;
use std::mem;

/// The largest number of names that are kept. Beyond it, the oldest one is forgotten.
const MOST: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Unused {
    /// The statement whose Parse was written, and whose Sync is still to come.
    begun: Option<Box<[u8]>>,
    /// The statements that the server has not answered yet, in the order of the requests.
    asked: VecDeque<Asked>,
    names: VecDeque<Box<[u8]>>,
    has_changed: bool,
}

#[derive(Debug)]
struct Asked {
    /// `None` if the statement was used or closed before its request was answered as a whole.
    name: Option<Box<[u8]>>,
    /// Whether the server has the statement.
    is_parsed: bool,
}

impl Unused {
    pub(super) fn parse_written(&mut self, name: &[u8]) {
        self.begun = Some(name.into());
    }

    /// The Sync after a Parse was written. `is_request`: the ledger counts the two as a request of their own.
    pub(super) fn sync_written(&mut self, is_request: bool) {
        let begun = self.begun.take().filter(|_| is_request);
        if let Some(name) = begun {
            self.asked.push_back(Asked { name: Some(name), is_parsed: false });
        }
    }

    /// The server has parsed the statement of the first request.
    pub(super) fn parsed(&mut self) {
        if let Some(asked) = self.asked.front_mut() {
            asked.is_parsed = true;
        }
    }

    /// The first request is answered.
    pub(super) fn answered(&mut self) {
        let asked = self.asked.pop_front().filter(|asked| asked.is_parsed);
        if let Some(name) = asked.and_then(|asked| asked.name) {
            if self.names.len() == MOST {
                self.names.pop_front();
            }
            self.names.push_back(name);
            self.has_changed = true;
        }
    }

    /// Returns whether a Bind has to be looked at.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.asked.is_empty() && self.begun.is_none()
    }

    /// The statement is used or closed, so the driver has its handle.
    pub(super) fn remove(&mut self, name: &[u8]) {
        let known = self.names.len();
        self.names.retain(|other| **other != *name);
        self.has_changed |= self.names.len() != known;
        let asked = self.asked.iter_mut().find(|asked| asked.name.as_deref() == Some(name));
        if let Some(asked) = asked {
            asked.name = None;
        }
    }

    /// The server has dropped all statements that were answered.
    pub(super) fn clear(&mut self) {
        self.has_changed |= !self.names.is_empty();
        self.names.clear();
    }

    /// Returns the names if they have changed since the last call.
    pub(super) fn take_change(&mut self) -> Option<Vec<String>> {
        mem::take(&mut self.has_changed)
            .then(|| self.names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }
}

//! What a member shows to the others: one line of text, such as `ff1 shop k3f9aq w14 g9 h7 m2`.
//!
//! In this order: the version, the name of the budget, the id of the member, and then how many connections it wants,
//! has been granted, holds and needs at least. PostgreSQL keeps 63 bytes of it.

use std::fmt;

/// What every beacon begins with. Another version of the rules has another one, and counts as a stranger.
const VERSION: &str = "ff1";
/// The longest id.
const LONGEST_ID: usize = 8;

/// The line of one member, without the name of the budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beacon {
    pub(crate) id: String,
    pub(crate) wanted: usize,
    /// At most so many connections are in use or being made. A member never exceeds it, and raises it before it grows.
    pub(crate) granted: usize,
    /// So many connections there were when the line was written.
    pub(crate) held: usize,
    pub(crate) minimum: usize,
}

impl Beacon {
    /// What all beacons of this budget begin with.
    pub(crate) fn prefix(budget: &str) -> String {
        format!("{VERSION} {budget} ")
    }

    pub(crate) fn text(&self, budget: &str) -> String {
        format!("{}{self}", Self::prefix(budget))
    }

    /// Reads a line. Returns `None` if it is no beacon of this budget, or names a number above `most`, which no member
    /// can have. Such a connection is a stranger.
    pub(crate) fn read(text: &str, budget: &str, most: usize) -> Option<Self> {
        let mut words = text.strip_prefix(&Self::prefix(budget))?.split(' ');
        let id = words.next()?;
        let is_id = (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let mut number = |key: char| {
            let digits = words.next()?.strip_prefix(key)?;
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|number| is_number && *number <= most)
        };
        let (wanted, granted, held, minimum) = (number('w')?, number('g')?, number('h')?, number('m')?);
        let is_whole = is_id && words.next().is_none();
        is_whole.then(|| Self { id: id.to_owned(), wanted, granted, held, minimum })
    }

    /// How many connections no other member may take.
    pub(crate) fn claim(&self) -> usize {
        self.granted.max(self.held)
    }
}

impl fmt::Display for Beacon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, wanted, granted, held, minimum } = self;
        write!(f, "{id} w{wanted} g{granted} h{held} m{minimum}")
    }
}

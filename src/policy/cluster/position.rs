//! A place in the write-ahead log as one short text, for another process that has to read what was written.

use std::fmt;
use std::str::FromStr;

use super::Lsn;

/// The text of a position is never longer: three hexadecimal numbers of 16, 8 and 16 digits, and two dots.
const LONGEST: usize = 42;

/// A place in the write-ahead log of a database. A read after this position sees the transaction that committed there,
/// and everything committed before it.
///
/// [`Cluster::transaction_at`](crate::Cluster::transaction_at) returns it, and
/// [`ClusterCall::after`](crate::ClusterCall::after) takes it. `Display` writes it as a short text for a header or a
/// cookie: letters, digits and dots, at most 42 bytes. Parsing accepts exactly that text, and returns an equal
/// position.
///
/// **A forged position does no harm.** If it is of an unknown history, or the primary has not reached it, the read goes
/// to the primary, within the [spill budget](crate::ClusterBuilder::spill). If it is of a timeline before the
/// primary's, any replica that follows the primary serves it. The text shows how much the server has written, and
/// nothing else.
///
/// ```
/// use failfast::Position;
///
/// # fn main() -> Result<(), failfast::InvalidPosition> {
/// let position: Position = "6f1e3c2ab4d5e6f7.3.16b374d848".parse()?;
/// assert_eq!(position.to_string(), "6f1e3c2ab4d5e6f7.3.16b374d848");
/// assert!("6f1e3c2ab4d5e6f7.3.".parse::<Position>().is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The system identifier of the database cluster; 0 if the server does not show it.
    pub(crate) system: u64,
    pub(crate) timeline: u32,
    pub(crate) lsn: Lsn,
}

/// The text is not a [`Position`]. Read without a position, or on the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidPosition;

impl Position {
    /// The position of a transaction whose server did not say where it ended. Only the primary serves reads after it.
    pub(crate) const UNKNOWN: Self = Self { system: 0, timeline: u32::MAX, lsn: Lsn(u64::MAX) };

    pub(crate) fn new(system: Option<u64>, timeline: u32, lsn: Lsn) -> Self {
        Self { system: system.unwrap_or(0), timeline, lsn: lsn.rounded() }
    }

    /// Returns whether the server said where the transaction committed. If it did not, only the primary serves reads
    /// after this position.
    pub fn is_known(&self) -> bool {
        *self != Self::UNKNOWN
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}.{:x}", self.system, self.timeline, self.lsn.0)
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        if text.len() > LONGEST {
            return Err(InvalidPosition);
        }
        let mut parts = text.split('.');
        let mut next = || parts.next().and_then(number).ok_or(InvalidPosition);
        let (system, timeline, lsn) = (next()?, next()?, next()?);
        let timeline = u32::try_from(timeline).map_err(|_| InvalidPosition)?;
        if parts.next().is_some() {
            return Err(InvalidPosition);
        }
        Ok(Self { system, timeline, lsn: Lsn(lsn) })
    }
}

/// Reads a number as `Display` writes it: one text for each number.
fn number(text: &str) -> Option<u64> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_padded = text.len() > 1 && text.starts_with('0');
    if is_padded || !text.bytes().all(is_digit) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

impl fmt::Display for InvalidPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a position: three hexadecimal numbers with dots between them are expected")
    }
}

impl std::error::Error for InvalidPosition {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_text_is_accepted() {
        let position = Position { system: u64::MAX, timeline: u32::MAX, lsn: Lsn(u64::MAX) };
        assert_eq!(position.to_string().len(), LONGEST);
        assert_eq!(position.to_string().parse(), Ok(position));
    }

    #[test]
    fn only_the_text_that_is_written_is_read() {
        for text in ["", ".", "1.2", "1.2.3.4", "01.2.3", "A.2.3", "+1.2.3", "1.100000000.3", "1..3", "1.2.3 ", "x.2.3"]
        {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_position_survives_its_text(system: u64, timeline: u32, lsn: u64) {
            let position = Position { system, timeline, lsn: Lsn(lsn) };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        /// Whatever a client sends: it is refused, or it is exactly the text of what was read.
        #[test]
        fn each_text_is_refused_or_exact(text in "[0-9a-fA-F.+/ \\PC]{0,50}") {
            if let Ok(position) = text.parse::<Position>() {
                prop_assert_eq!(position.to_string(), text);
            }
        }

        #[test]
        fn bytes_of_any_kind_do_no_harm(bytes: Vec<u8>) {
            let _ = String::from_utf8_lossy(&bytes).parse::<Position>();
        }

        #[test]
        fn nearly_right_texts_are_refused_or_exact(
            text in "[0-9a-f]{0,18}\\.[0-9a-f]{0,10}\\.[0-9a-f]{0,18}",
        ) {
            if let Ok(position) = text.parse::<Position>() {
                prop_assert_eq!(position.to_string(), text);
            }
        }
    }
}

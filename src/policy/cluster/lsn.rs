//! A log sequence number: a place in the write-ahead log of a server.
//!
//! Servers write it as two hexadecimal numbers, `16/B374D848`. It is compared as a number, never as text.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// The size of a page of the log. Other sizes need a server that was compiled for them.
const PAGE: u64 = 8_192;
/// The sizes of a page's header: of most pages, and of the first page of a segment.
const HEADERS: [u64; 2] = [24, 40];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Lsn(pub(crate) u64);

impl Lsn {
    /// Returns this place, or the start of its page if it is just behind the page's header.
    ///
    /// The place at which a primary inserts next may be just behind a header. No record ends there, so the replay of an
    /// idle primary's log ends at the start of the page. A record that ends behind the header began on an earlier page,
    /// so a replay that has reached the start of the page has reached its end.
    pub(crate) fn rounded(self) -> Self {
        let offset = self.0 % PAGE;
        if HEADERS.contains(&offset) { Self(self.0 - offset) } else { self }
    }
}

/// The text is not a log sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoLsn;

impl From<ParseIntError> for NoLsn {
    fn from(_: ParseIntError) -> Self {
        Self
    }
}

impl FromStr for Lsn {
    type Err = NoLsn;

    fn from_str(text: &str) -> Result<Self, NoLsn> {
        let (high, low) = text.split_once('/').ok_or(NoLsn)?;
        // The parser of numbers takes a sign.
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'/') {
            return Err(NoLsn);
        }
        let (high, low) = (u32::from_str_radix(high, 16)?, u32::from_str_radix(low, 16)?);
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & u64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_place_is_compared_as_a_number() {
        let (earlier, later): (Lsn, Lsn) = ("9/FF".parse().unwrap(), "10/1".parse().unwrap());
        assert!(earlier < later, "as text it is the other way round");
        assert_eq!(later, Lsn(0x10_0000_0001));
        assert_eq!("0/03000110".parse(), Ok(Lsn(0x300_0110)), "newer servers pad with zeros");
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in ["", "/", "1", "1/", "/1", "+1/1", "1/-1", "1/2/3", "g/1", "1/123456789", " 1/1", "1/1\0"] {
            assert_eq!(text.parse::<Lsn>(), Err(NoLsn), "{text:?}");
        }
    }

    #[test]
    fn a_place_just_behind_a_header_is_rounded_down() {
        let page = 0x300_2000;
        for (offset, rounded) in [(0, 0), (8, 8), (24, 0), (25, 25), (40, 0), (48, 48), (8_191, 8_191)] {
            assert_eq!(Lsn(page + offset).rounded(), Lsn(page + rounded), "{offset}");
        }
    }

    proptest! {
        #[test]
        fn a_place_survives_its_text(place: u64) {
            prop_assert_eq!(Lsn(place).to_string().parse(), Ok(Lsn(place)));
        }
    }
}

//! Makes text from outside of this process safe for one line of a log.
//!
//! A server repeats text of its users: the name of a table or a database, a `RAISE`. So a user of the service can
//! choose a part of an error. A line break in it would forge a line in the log, and an escape code would rewrite a
//! terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The longest text that is kept, in characters. A message may quote a statement of any length.
const LONGEST: usize = 300;

/// Returns the first line of a text, with control characters escaped. `…` stands for the rest.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    let line = text.lines().next().unwrap_or_default();
    let line = line.char_indices().nth(LONGEST).map_or(line, |(end, _)| &line[..end]);
    let rest = if line.len() == text.len() { "" } else { "…" };
    if rest.is_empty() && !line.chars().any(is_harmful) {
        return line.into();
    }
    let mut shown = String::with_capacity(line.len() + rest.len());
    for char in line.chars() {
        if is_harmful(char) {
            let _ = write!(shown, "{}", char.escape_default());
        } else {
            shown.push(char);
        }
    }
    shown.push_str(rest);
    shown.into()
}

/// Returns whether the character controls a log or a terminal: a control character, a line separator, or a change of
/// the direction of text.
fn is_harmful(char: char) -> bool {
    let turns = ['\u{200e}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2066}'..='\u{2069}'];
    char.is_control() || char == '\u{61c}' || turns.iter().any(|range| range.contains(&char))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_returned_unchanged() {
        for text in
            ["", "relation \"orders\" does not exist", "Relation »Aufträge« existiert nicht", "表が存在しません"]
        {
            assert!(matches!(one_line(text), Cow::Borrowed(shown) if shown == text), "{text}");
        }
    }

    #[test]
    fn nothing_ends_the_line_or_moves_the_cursor() {
        let shown = one_line("no such user: a\rERROR root logged in\u{1b}[2J\u{9b}31m\u{202e}b\u{7}");
        assert_eq!(shown, "no such user: a\\rERROR root logged in\\u{1b}[2J\\u{9b}31m\\u{202e}b\\u{7}");
        assert_eq!(one_line("a\u{2028}b\u{85}c\tz\0"), "a\\u{2028}b\\u{85}c\\tz\\u{0}");
    }

    #[test]
    fn an_ellipsis_stands_for_the_rest() {
        assert_eq!(one_line("first\nsecond"), "first…");
        assert_eq!(one_line("first\n"), "first…");
        let long = one_line(&"é".repeat(10_000_000)).into_owned();
        assert_eq!((long.chars().count(), long.chars().last()), (LONGEST + 1, Some('…')));
    }
}

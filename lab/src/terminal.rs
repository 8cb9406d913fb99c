//! What the terminal shows, in 80 columns: the progress, a table and a chart for each scenario, and a summary.

pub(crate) mod chart;
pub(crate) mod progress;
pub(crate) mod summary;
pub(crate) mod table;

/// The width of a terminal that nobody has made larger.
pub(crate) const COLUMNS: usize = 80;

/// Breaks a text between words so that no line is longer than [`COLUMNS`]. Further lines begin with `indent`.
pub(crate) fn wrapped(text: &str, indent: &str) -> String {
    let (mut lines, mut line) = (String::new(), String::new());
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines += &format!("{line}\n");
            line = format!("{indent}{word}");
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_between_words() {
        let text = wrapped(&"word ".repeat(40), "    ");
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("    word")), "{text}");
        assert_eq!(text.matches("word").count(), 40);
        assert_eq!(wrapped("short", "  "), "short\n");
    }
}

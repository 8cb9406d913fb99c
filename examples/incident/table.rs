//! The figures of a scenario, a line for each pool.

use std::time::Duration;

use super::measure::{Figures, Spread};

const HEADS: [&str; 13] = [
    "",
    "offered",
    "goodput",
    "late",
    "refused",
    "errors",
    "waiting",
    "served p50, p99",
    "refused p50, p99",
    "recovered",
    "made",
    "warned",
    "1st error",
];

pub(crate) fn of(figures: &[Figures]) -> String {
    let mut rows = vec![HEADS.map(str::to_owned)];
    rows.extend(figures.iter().map(row));
    let mut text = aligned(&rows);
    for figures in figures {
        if let Some(warning) = &figures.warning {
            text.push_str(&format!("first warning: {warning}\n"));
        }
    }
    text
}

fn row(figures: &Figures) -> [String; 13] {
    let recovered = match figures.recovered {
        Some(after) => short(after),
        None => format!("> {}", short(figures.watched)),
    };
    [
        figures.peer.to_string(),
        figures.offered.to_string(),
        or_dash(figures.goodput.map(|share| format!("{:.1}%", share * 100.0))),
        figures.late.to_string(),
        figures.refused.to_string(),
        figures.failed.to_string(),
        figures.unanswered.to_string(),
        spread(figures.served_in),
        spread(figures.refused_in),
        recovered,
        figures.made.to_string(),
        or_dash(figures.warned.map(short)),
        or_dash(figures.first_error.map(short)),
    ]
}

/// The first column to the left, the others to the right.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let line = |row: &[String; N]| {
        let rest: String = (1..N).map(|column| format!("  {:>1$}", row[column], width(column))).collect();
        format!("{:<1$}{rest}\n", row[0], width(0))
    };
    rows.iter().map(line).collect()
}

fn spread(spread: Option<Spread>) -> String {
    or_dash(spread.map(|spread| format!("{}, {}", short(spread.p50), short(spread.p99))))
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// With about two digits.
pub(crate) fn short(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        ..0.995 => format!("{ms:.2} ms"),
        ..999.5 => format!("{ms:.0} ms"),
        _ => format!("{:.1} s", ms / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let shown =
            [0.004, 0.9949, 0.9951, 61.4, 999.4, 999.6, 12_345.0].map(|ms| short(Duration::from_secs_f64(ms / 1e3)));
        assert_eq!(shown, ["0.00 ms", "0.99 ms", "1 ms", "61 ms", "999 ms", "1.0 s", "12.3 s"]);
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["", "made"], ["failfast", "7"], ["bb8", "12345"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows), "           made\nfailfast      7\nbb8       12345\n");
    }
}

//! The figures of a scenario as a table with a row for each pool.

use std::time::Duration;

use super::measure::{Figures, Spread};

const HEADS: [&str; 12] = [
    "goodput",
    "late",
    "refused",
    "errors",
    "waiting",
    "served in",
    "refused in",
    "back in",
    "after",
    "made",
    "warned",
    "1st error",
];

/// The headings of the columns.
pub(crate) const LEGEND: &str = "\
goodput: served in time, as a share of what is possible. waiting: without an answer when it was over.
served in, refused in: the median, and what 99 of 100 do not exceed. made: connections made after the start.
back in: from the end of the incident until 95% are served in time, for a second.
after: callers without an answer in time who came later after the end of the incident than their deadline is long.
warned, 1st error: from its beginning to the pool's first warning, and to the first refusal or error.
ok, SHORT: what is promised of failfast, and whether this run kept it; on a busy machine it may not.";

/// If callers are sent later than this, the machine is too busy and its figures are worthless.
const LAG: Duration = Duration::from_millis(20);

pub(crate) fn of(figures: &[Figures]) -> String {
    let offered = figures.first().map_or(0, |figures| figures.offered);
    let mut rows = vec![[[format!("{offered} callers")].as_slice(), &HEADS.map(str::to_owned)].concat()];
    rows.extend(figures.iter().map(row));
    let mut text = aligned(&rows);
    for warning in figures.iter().filter_map(|figures| figures.warning.as_ref()) {
        text.push_str(&format!("first warning: {warning}\n"));
    }
    let lag = figures.iter().map(|figures| figures.lag).max().unwrap_or_default();
    if lag > LAG {
        text.push_str(&format!("the machine was busy: callers were sent up to {} late\n", short(lag)));
    }
    text
}

fn row(figures: &Figures) -> Vec<String> {
    let not_yet = || format!(">{}", short(figures.watched));
    vec![
        figures.peer.to_string(),
        or_dash(figures.goodput.map(|share| format!("{:.1}%", share * 100.0))),
        figures.late.to_string(),
        figures.refused.to_string(),
        figures.failed.to_string(),
        figures.unanswered.to_string(),
        spread(figures.served_in),
        spread(figures.refused_in),
        figures.recovered.map_or_else(not_yet, short),
        figures.unserved_after.to_string(),
        figures.made.to_string(),
        or_dash(figures.warned.map(short)),
        or_dash(figures.first_error.map(short)),
    ]
}

/// The first column to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let line = |row: &Vec<String>| {
        let others = row.iter().enumerate().skip(1);
        let others: String = others.map(|(column, cell)| format!("  {cell:>0$}", width(column))).collect();
        format!("{:<1$}{others}\n", row[0], width(0))
    };
    rows.iter().map(line).collect()
}

fn spread(spread: Option<Spread>) -> String {
    or_dash(spread.map(|spread| format!("{} {}", short(spread.p50), short(spread.p99))))
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// With about two digits.
pub(crate) fn short(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        ..0.995 => format!("{ms:.2}ms"),
        ..999.5 => format!("{ms:.0}ms"),
        _ => format!("{:.1}s", ms / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let shown =
            [0.004, 0.9949, 0.9951, 61.4, 999.4, 999.6, 12_345.0].map(|ms| short(Duration::from_secs_f64(ms / 1e3)));
        assert_eq!(shown, ["0.00ms", "0.99ms", "1ms", "61ms", "999ms", "1.0s", "12.3s"]);
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["", "made"], ["failfast", "7"], ["bb8", "12345"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "           made\nfailfast      7\nbb8       12345\n");
    }
}

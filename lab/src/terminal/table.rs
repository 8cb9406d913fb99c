//! The figures of a scenario as a table with a row for each pool: medians, if there are several seeds.

use super::wrapped;
use crate::peers::Peer;
use crate::scene::{Played, Scene, Stat};
use crate::text::{percent, seconds, short};

const HEADS: [&str; 8] = ["goodput", "late", "refused", "errors", "answer", "99%", "refusal", "again"];

/// The headings of the columns.
pub(crate) const LEGEND: &str = "\
goodput: answers in time, as a share of what is possible.
late: callers with a late answer or none. answer, 99%: the median, and what
99 of 100 answers do not exceed. refusal: the median time until a refusal or
an error. again: from the end of the incident until 95% are served in time.
";

pub(crate) fn of(scene: &Scene) -> String {
    let offered = scene.pools.first().and_then(|played| played.figures.first()).map_or(0, |figures| figures.offered);
    let mut rows = vec![[[format!("{offered} callers")].as_slice(), &HEADS.map(str::to_owned)].concat()];
    rows.extend(scene.pools.iter().map(row));
    let mut text = aligned(&rows);
    text += &wrapped(&format!("100% is {}", scene.scenario.whole()), "  ");
    text += &others(scene);
    let ours = scene.pool(Peer::Failfast).and_then(|played| played.figures.first());
    if let Some((after, warning)) = ours.and_then(|figures| figures.warned.zip(figures.warning.as_ref())) {
        text += &wrapped(&format!("first warning, after {}: {warning}", short(after)), "  ");
    }
    if scene.is_disturbed() {
        text += &format!("the machine was busy: callers were sent up to {} late\n", short(scene.lag()));
    }
    text
}

/// How many of the callers with other work each pool has served.
fn others(scene: &Scene) -> String {
    let served = |played: &Played| {
        let (came, served) = played.figures.first()?.others?;
        Some(format!("{} {served} of {came}", played.peer))
    };
    let served: Vec<_> = scene.pools.iter().filter_map(served).collect();
    if served.is_empty() { String::new() } else { wrapped(&format!("others served: {}", served.join(", ")), "  ") }
}

fn row(played: &Played) -> Vec<String> {
    let count = |value: fn(&crate::figures::Figures) -> usize| {
        played.stat(|figures| Some(value(figures) as f64)).map_or_else(String::new, |stat| stat.median.to_string())
    };
    let median = |stat: Option<Stat>, text: fn(f64) -> String| stat.map_or("-".to_owned(), |stat| text(stat.median));
    let again = match played.recovered() {
        Some(stat) if stat.median.is_infinite() => format!(">{}", short(played.watched())),
        again => median(again, seconds),
    };
    vec![
        played.peer.to_string(),
        median(played.goodput(), percent),
        count(|figures| figures.late + figures.unanswered),
        count(|figures| figures.refused),
        count(|figures| figures.failed),
        median(played.answer(), seconds),
        median(played.slowest(), seconds),
        median(played.refusal(), seconds),
        again,
    ]
}

/// The first column to the left, the others to the right.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let line = |row: &Vec<String>| {
        let others = row.iter().enumerate().skip(1);
        let others: String = others.map(|(column, cell)| format!("  {cell:>0$}", width(column))).collect();
        format!("{}\n", format!("{:<1$}{others}", row[0], width(0)).trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::COLUMNS;
    use super::*;
    use crate::scene::tests::scene;

    #[test]
    fn columns_are_aligned() {
        let rows = [["", "made"], ["failfast", "7"], ["bb8", "12345"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "           made\nfailfast      7\nbb8       12345\n");
    }

    #[test]
    fn a_table_fits_the_terminal_and_says_of_what_its_shares_are() {
        let mut scene = scene("surge-10x", 600);
        for played in &mut scene.pools {
            played.peer = Peer::DeadpoolTuned; // the longest name
            for figures in &mut played.figures {
                (figures.late, figures.refused, figures.failed) = (12_345, 12_345, 12_345);
            }
        }
        let text = of(&scene);
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert!(text.contains("100% is the most answers"), "{text}");
        assert!(LEGEND.lines().all(|line| line.chars().count() <= COLUMNS), "{LEGEND}");
    }

    #[test]
    fn who_does_not_recover_is_watched_to_the_end() {
        assert!(of(&scene("surge-3x", 600)).contains(">1.0s"), "{}", of(&scene("surge-3x", 600)));
    }
}

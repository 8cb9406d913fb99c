//! Writes the figures of a run into the README: the table between two marks, and the chart of the surge.

use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use crate::better;
use crate::page::{Setting, chart};
use crate::peers::Peer;
use crate::scene::{Played, Scene, Stat};
use crate::text::{counted, percent, seconds};

const BEGIN: &str = "<!-- figures: written by `./dev lab --seeds 5 --readme` -->\n";
const END: &str = "<!-- end of figures -->\n";
/// The pools of the table and the chart.
const PEERS: [Peer; 3] = [Peer::Failfast, Peer::DeadpoolTuned, Peer::Deadpool];

/// Replaces the figures in `README.md` of this folder, and `docs/img/surge.svg`.
pub(crate) fn write(root: &Path, scenes: &[Scene], setting: &Setting) -> io::Result<()> {
    let file = root.join("README.md");
    let readme = fs::read_to_string(&file)?;
    let Some(replaced) = replaced(&readme, &figures(scenes, setting)) else {
        return Err(io::Error::other(format!("README.md lacks the marks {}", BEGIN.trim_end())));
    };
    fs::write(file, replaced)?;
    if let Some(surge) = scenes.iter().find(|scene| scene.scenario.name == "surge-3x") {
        fs::write(root.join("docs/img/surge.svg"), chart::file(surge, &PEERS))?;
    }
    Ok(())
}

fn replaced(readme: &str, figures: &str) -> Option<String> {
    let (before, rest) = readme.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{figures}{END}{after}"))
}

/// The table, and the figures in which another pool is better.
fn figures(scenes: &[Scene], setting: &Setting) -> String {
    let seeds = scenes.first().map_or(0, |scene| scene.seeds.len());
    let mut text = format!(
        "\nMedians of {seeds} seeds, with ranges, of `{}` on {} with PostgreSQL {}.\n\n",
        setting.command,
        counted(setting.processors, "processor"),
        setting.postgres
    );
    text += "| incident | figure | failfast | deadpool, tuned | deadpool |\n|---|---|---|---|---|\n";
    for scene in scenes {
        let mut incident = format!("`{}`: {}", scene.scenario.name, scene.scenario.story);
        for (figure, value, show) in wanted(scene) {
            let cells = PEERS.map(|peer| {
                let stat = scene.pool(peer).and_then(value);
                stat.map_or("–".to_owned(), |stat| stat.show(show))
            });
            let _ = writeln!(text, "| {} | {figure} | {} |", std::mem::take(&mut incident), cells.join(" | "));
        }
    }
    text += "\nWhere another pool is better, by at least 1 point of goodput or a fifth of a time, and the ranges do not touch \
             (the best\nof the others):\n\n";
    let better = better::all(scenes);
    if better.is_empty() {
        text += "- nowhere in this run\n";
    }
    for better in better {
        let peer = better.peer.name().replace("-tuned", ", tuned");
        let line =
            format!("- {}: {peer} has {} {}; failfast {}", better.scenario, better.figure, better.theirs, better.ours);
        text += &line;
        text.push('\n');
    }
    text + "\n"
}

type Figure = (&'static str, fn(&Played) -> Option<Stat>, fn(f64) -> String);

/// What the table says of a scenario.
fn wanted(scene: &Scene) -> Vec<Figure> {
    let goodput: Figure = ("goodput", Played::goodput, percent);
    let answer: Figure = ("median answer", Played::answer, seconds);
    let again: Figure = ("served again after", Played::recovered, seconds);
    match scene.scenario.name {
        "surge-3x" => vec![
            goodput,
            answer,
            ("99% of the answers", Played::slowest, seconds),
            ("median refusal", Played::refusal, seconds),
        ],
        "surge-2x" | "surge-5x" | "surge-10x" | "bursty-20ms" | "bursty-50ms" => Vec::new(),
        _ if scene.is_about_recovery() => vec![again],
        _ => vec![goodput, answer],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::tests::scene;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let readme = format!("before\n{BEGIN}old\n{END}after\n");
        assert_eq!(replaced(&readme, "new\n").unwrap(), format!("before\n{BEGIN}new\n{END}after\n"));
        assert_eq!(replaced("no marks", "new\n"), None);
    }

    #[test]
    fn the_readme_has_the_marks() {
        let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
        assert!(replaced(&readme, "").is_some());
    }

    #[test]
    fn the_table_has_medians_and_says_where_another_pool_is_better() {
        let setting =
            Setting { postgres: "17.2".to_owned(), processors: 2, alone: false, command: "./dev lab".to_owned() };
        let text = figures(&[scene("surge-3x", 600), scene("outage", 10)], &setting);
        assert!(text.contains("|  | median answer | 40ms | – | 600ms |"), "{text}");
        assert!(
            text.contains(
                "| `outage`: the server is stopped, and started again | served again after | 40ms | – | 10ms |"
            ),
            "{text}"
        );
        assert!(text.contains("- outage: deadpool has median answer 10ms; failfast 40ms"), "{text}");
    }
}

//! The closing summary: failfast beside the best other pool and a deadpool with its defaults, in one table.

use super::table::aligned;
use super::wrapped;
use crate::better;
use crate::peers::Peer;
use crate::scene::{Played, Scene, Stat};
use crate::text::{percent, seconds};

pub(crate) fn of(scenes: &[Scene]) -> String {
    let mut text = String::new();
    let (faults, loads): (Vec<_>, Vec<_>) = scenes.iter().partition(|scene| scene.scenario.fault.is_outage());
    text += &part("goodput", &loads, Played::goodput, percent, |one, two| one > two);
    text += &part("served again", &faults, Played::recovered, seconds, |one, two| one < two);
    let better = better::all(scenes);
    if !better.is_empty() {
        text += "\nWhere another pool is better:\n";
    }
    for better in better {
        let line = format!(
            "  {}: {} {}: {}, failfast {}",
            better.scenario, better.peer, better.figure, better.theirs, better.ours
        );
        text += &wrapped(&line, "    ");
    }
    let (short, all) =
        scenes.iter().map(Scene::short_checks).fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
    if all > 0 {
        text += &format!("\n{} of {all} figures of failfast are within their limits.\n", all - short);
    }
    for scene in scenes {
        for check in scene.checks.iter().filter(|check| check.is_short()) {
            text += &wrapped(&format!("  {}: {check}", scene.scenario.name), "    ");
        }
    }
    let disturbed: Vec<_> =
        scenes.iter().filter(|scene| scene.is_disturbed()).map(|scene| scene.scenario.name).collect();
    if !disturbed.is_empty() {
        let names = disturbed.join(", ");
        text += &wrapped(
            &format!(
                "The machine was busy in {names}: figures of these say little. Run them again on an idle machine."
            ),
            "  ",
        );
    }
    text
}

fn part(
    head: &str,
    scenes: &[&Scene],
    value: fn(&Played) -> Option<Stat>,
    show: fn(f64) -> String,
    is_first: fn(f64, f64) -> bool,
) -> String {
    let mut rows = vec![["", "failfast", "deadpool", "best other pool", ""].map(str::to_owned).to_vec()];
    rows[0][0] = head.to_owned();
    for scene in scenes {
        let median = |peer| Some(value(scene.pool(peer)?)?.median);
        let text = |value: Option<f64>| value.map_or("-".to_owned(), show);
        let others = scene.pools.iter().filter(|played| played.peer != Peer::Failfast);
        let others = others.filter_map(|played| Some((played.peer, value(played)?.median)));
        let best = others.reduce(|best, next| if is_first(next.1, best.1) { next } else { best });
        let Some((best, theirs)) = best else { continue };
        let name = scene.scenario.name.to_owned();
        let row = [name, text(median(Peer::Failfast)), text(median(Peer::Deadpool)), show(theirs), best.to_string()];
        rows.push(row.to_vec());
    }
    if rows.len() == 1 { String::new() } else { format!("\n{}", aligned(&rows)) }
}

#[cfg(test)]
mod tests {
    use super::super::COLUMNS;
    use super::*;
    use crate::scene::tests::scene;

    #[test]
    fn it_is_short_and_complete() {
        let text = of(&[scene("surge-3x", 600), scene("slow-clients", 10), scene("outage", 10)]);
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert!(text.contains("surge-3x"), "{text}");
        assert!(text.contains("served again"), "{text}");
        assert!(text.contains("slow-clients: deadpool median answer: 10ms, failfast 40ms"), "{text}");
        assert!(text.contains("within their limits"), "{text}");
        let short = [scene("surge-3x", 600)].iter().map(|scene| scene.short_checks().0).sum::<usize>();
        assert!(short > 0 && text.matches("surge-3x: SHORT").count() == short, "{text}");
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        assert_eq!(of(&[]), "");
    }
}

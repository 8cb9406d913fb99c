//! The chart of a scenario for a terminal: a line of blocks for each pool.

use std::time::Duration;

use super::COLUMNS;
use crate::scene::{POINTS, Scene};
use crate::series::{Bin, place};
use crate::terms::DEADLINE;
use crate::text::short;

const NAMES: usize = 15;
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// A full block of latency.
const SLOWEST: Duration = Duration::from_secs(1);

const _: () = assert!(NAMES + POINTS + 2 <= COLUMNS, "a line fits");
const _: () = assert!(SLOWEST.as_millis() == 2 * DEADLINE.as_millis(), "half a block is the deadline");

pub(crate) fn of(scene: &Scene) -> String {
    let scenario = &scene.scenario;
    let width = scenario.length() / POINTS as u32;
    let lines = |value: fn(&Bin) -> f64| -> String {
        let lines = scene.pools.iter().map(|played| {
            let blocks: String = played.curve.iter().map(|bin| block(value(bin))).collect();
            format!("{:<NAMES$}▕{blocks}▏\n", played.peer)
        });
        lines.collect()
    };
    format!(
        "\nserved in time, over {}; a full block is all that the pool can do\n{}{}\
         median answer; a full block is {} or more, half of one is the deadline\n{}",
        short(scenario.length()),
        lines(|bin| bin.goodput),
        incident(place(scenario.begins(), width), place(scenario.ends(), width)),
        short(SLOWEST),
        lines(|bin| bin.answer.map_or(0.0, |answer| answer.as_secs_f64() / SLOWEST.as_secs_f64())),
    )
}

/// From empty to full, rounded. What is more than nothing is seen.
fn block(share: f64) -> char {
    let eighths = (share * 8.0).round() as usize;
    let least = usize::from(share > 0.0);
    BLOCKS[eighths.clamp(least, 8)]
}

/// A line that says from where to where the incident was.
fn incident(from: usize, to: usize) -> String {
    let inside = to.saturating_sub(from + 2);
    format!("{:1$}└{2:─^inside$}┘\n", "", NAMES + 1 + from, if inside > 10 { " incident " } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::tests::scene;

    #[test]
    fn blocks_are_rounded_and_nothing_is_lost() {
        let shown: String = [0.0, 0.001, 0.5, 0.93, 0.94, 1.0, 7.0].map(block).iter().collect();
        assert_eq!(shown, " ▁▄▇███");
    }

    #[test]
    fn the_incident_is_marked_where_it_is() {
        assert_eq!(incident(2, 6).trim_start_matches(' ').trim_end(), "└──┘");
        assert_eq!(incident(2, 6).find('└'), Some(NAMES + 3));
        assert!(incident(5, 40).contains(" incident "));
    }

    #[test]
    fn each_pool_has_a_line_in_each_part() {
        let text = of(&scene("surge-3x", 600));
        assert_eq!(text.matches("failfast ").count(), 2, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
    }
}

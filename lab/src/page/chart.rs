//! The chart of a scenario as SVG: a row for each pool, so that no curve hides another one. The columns are the
//! callers who were served in time, the times of answers and refusals, and the connections.

use std::fmt::Write;
use std::time::Duration;

use super::escaped;
use crate::peers::Peer;
use crate::scene::{Played, Scene};
use crate::series::Bin;
use crate::terms::{CONNECTIONS, DEADLINE};

const WIDTH: f64 = 960.0;
/// The names of the pools.
const NAMES: f64 = 112.0;
const PLOT: f64 = 224.0;
/// Between two plots, with the numbers of a scale.
const GAP: f64 = 54.0;
const HEAD: f64 = 44.0;
const ROW: f64 = 58.0;
const BETWEEN: f64 = 14.0;
const FOOT: f64 = 24.0;
/// The highest share that is drawn in the rows of the pools.
const HIGHEST: f64 = 1.2;
/// The scale of times, in powers of ten of a second.
const FASTEST: f64 = -4.0;
const SLOWEST: f64 = 1.0;

/// For a chart that is a file of its own. The page has the same names.
const COLOURS: &str = "svg{--ink:#1b1f24;--faint:#59636e;--line:#d8dee4;--shade:#8c959f26;--ours:#00734f;--answer:#0a5fb4;\
    --refusal:#b4470a;--offered:#8c959f66}@media(prefers-color-scheme:dark){svg{--ink:#e6edf3;--faint:#9da7b1;\
    --line:#30363d;--shade:#8c959f2e;--ours:#3ecf9b;--answer:#6cb6ff;--refusal:#f0883e;--offered:#8c959f59}}";

pub(super) const STYLE: &str = "svg text{font:11px system-ui,sans-serif;fill:var(--faint)}svg .n{font-size:12px;fill:var(--ink)}\
    svg .f{font-weight:600;fill:var(--ours)}svg .h{font-weight:600;fill:var(--ink)}svg .g{stroke:var(--line);stroke-width:1}\
    svg .i{fill:var(--shade)}svg .o{fill:var(--offered)}svg .s{fill:var(--ours);fill-opacity:.25;stroke:var(--ours);stroke-width:1.5}\
    svg .a,svg .r,svg .c{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}svg .a{stroke:var(--answer)}\
    svg .r{stroke:var(--refusal);stroke-dasharray:2 4}svg .c{stroke:var(--ink)}\
    svg .d{stroke:var(--faint);stroke-width:1;stroke-dasharray:6 3;fill:none}";

/// The chart for the page. `pools`: only these rows.
pub(super) fn of(scene: &Scene, pools: &[Peer]) -> String {
    draw(scene, pools, "")
}

/// The chart as a file.
pub(crate) fn file(scene: &Scene, pools: &[Peer]) -> String {
    draw(scene, pools, &format!("<style>{COLOURS}{STYLE}</style>"))
}

fn draw(scene: &Scene, pools: &[Peer], style: &str) -> String {
    let rows: Vec<_> = scene.pools.iter().filter(|played| pools.contains(&played.peer)).collect();
    let bottom = top_of(rows.len() + 1) - BETWEEN;
    let label = escaped(&format!("{}: {}", scene.scenario.name, scene.scenario.story));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{label}\">{style}<title>{label}</title>\n",
        bottom + FOOT
    );
    svg += &heads(&rows);
    if let Some(first) = rows.first() {
        svg += &offered(scene, first);
    }
    for (index, played) in rows.iter().enumerate() {
        svg += &row(scene, played, top_of(index + 1));
    }
    svg += &seconds(scene.scenario.length(), bottom);
    svg + "</svg>\n"
}

fn top_of(row: usize) -> f64 {
    HEAD + row as f64 * (ROW + BETWEEN)
}

fn left_of(column: usize) -> f64 {
    NAMES + column as f64 * (PLOT + GAP) + GAP
}

/// The titles of the columns and the legend.
fn heads(rows: &[&Played]) -> String {
    let mut svg = String::new();
    for (column, title) in ["callers: came, served in time", "time until the answer", "connections"].iter().enumerate()
    {
        let _ = writeln!(svg, "<text class=\"h\" x=\"{}\" y=\"14\">{title}</text>", left_of(column));
    }
    let (x, y) = (left_of(1), HEAD + 12.0);
    if !rows.is_empty() {
        for (index, (class, what)) in
            [("a", "median answer"), ("r", "median refusal or error"), ("d", "deadline")].iter().enumerate()
        {
            let y = y + 18.0 * index as f64;
            let _ = writeln!(
                svg,
                "<path class=\"{class}\" d=\"M{x} {:.1}h34\"/><text x=\"{}\" y=\"{y}\">{what}</text>",
                y - 4.0,
                x + 42.0
            );
        }
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{y}\">as the server counts them</text>", left_of(2));
    }
    svg
}

/// The row above the pools: all that is asked of each of them.
fn offered(scene: &Scene, first: &Played) -> String {
    let most = first.curve.iter().map(|bin| bin.offered).fold(1.0, f64::max);
    let top = top_of(0);
    let most_text = format!("{:.0}%", most * 100.0);
    let ticks = [(0.0, "0"), (1.0 / most, "100%"), (1.0, most_text.as_str())];
    let ticks = if most < 1.5 { &ticks[..2] } else { &ticks[..] };
    let mut svg = format!("<text class=\"n\" x=\"0\" y=\"{:.1}\">offered load</text>\n", top + 14.0);
    svg += &plot(scene, first, 0, top, ticks);
    svg + &area("o", &steps(&first.curve, 0, top, |bin| bin.offered / most))
}

fn row(scene: &Scene, played: &Played, top: f64) -> String {
    let class = if played.peer == Peer::Failfast { "n f" } else { "n" };
    let mut svg = format!("<text class=\"{class}\" x=\"0\" y=\"{:.1}\">{}</text>\n", top + 14.0, played.peer);
    if let Some(goodput) = played.figures.first().and_then(|figures| figures.goodput) {
        let _ = writeln!(svg, "<text x=\"0\" y=\"{:.1}\">{:.1}% in time</text>", top + 30.0, goodput * 100.0);
    }
    svg += &plot(scene, played, 0, top, &[(0.0, "0"), (1.0 / HIGHEST, "100%")]);
    svg += &area("o", &steps(&played.curve, 0, top, |bin| bin.offered / HIGHEST));
    svg += &area("s", &steps(&played.curve, 0, top, |bin| bin.goodput / HIGHEST));
    let times = [(0.001, "1 ms"), (0.1, "100 ms"), (10.0, "10 s")].map(|(at, name)| (on_log_scale(at), name));
    svg += &plot(scene, played, 1, top, &times);
    for deadline in scene.scenario.deadlines {
        let y = top + ROW * (1.0 - on_log_scale(deadline.as_secs_f64()));
        let _ = writeln!(svg, "<path class=\"d\" d=\"M{} {y:.1}h{PLOT}\"/>", left_of(1));
    }
    let on_scale = |time: Option<Duration>| time.map(|time| on_log_scale(time.as_secs_f64()));
    svg += &line("a", &played.curve, 1, top, |bin| on_scale(bin.answer));
    svg += &line("r", &played.curve, 1, top, |bin| on_scale(bin.refusal));
    let most = played.curve.iter().filter_map(|bin| bin.connections).fold(CONNECTIONS as f64, f64::max) * 1.2;
    let all = CONNECTIONS.to_string();
    svg += &plot(scene, played, 2, top, &[(0.0, "0"), (CONNECTIONS as f64 / most, all.as_str())]);
    svg + &line("c", &played.curve, 2, top, |bin| bin.connections.map(|connections| connections / most))
}

/// The background of one plot: its scale, and a shade during the incident.
fn plot(scene: &Scene, played: &Played, column: usize, top: f64, ticks: &[(f64, &str)]) -> String {
    let (left, length) = (left_of(column), scene.scenario.length());
    let (from, to) = (across(played.struck, length), across(played.back, length));
    let mut svg = format!(
        "<rect class=\"i\" x=\"{:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{ROW}\"/>\n",
        left + from,
        to - from
    );
    for (share, name) in ticks {
        let y = top + ROW * (1.0 - share);
        let _ = writeln!(
            svg,
            "<path class=\"g\" d=\"M{left} {y:.1}h{PLOT}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            left - 5.0,
            y + 4.0
        );
    }
    svg
}

/// The scale of time, below the last row of each column.
fn seconds(length: Duration, bottom: f64) -> String {
    let mut svg = String::new();
    let every = (length.as_secs() as usize).div_ceil(8).max(1);
    for column in 0..3 {
        for second in (0..=length.as_secs()).step_by(every) {
            let x = left_of(column) + across(Duration::from_secs(second), length);
            let _ =
                writeln!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{second} s</text>", bottom + 16.0);
        }
    }
    svg
}

/// The corners of a curve in steps, one for each bin.
fn steps(bins: &[Bin], column: usize, top: f64, share: impl Fn(&Bin) -> f64) -> String {
    let (left, width) = (left_of(column), PLOT / bins.len() as f64);
    let mut path = format!("M{left} {:.1}", top + ROW);
    for (index, bin) in bins.iter().enumerate() {
        let y = top + ROW * (1.0 - share(bin).clamp(0.0, 1.0));
        let _ = write!(path, "V{y:.1}H{:.1}", left + (index + 1) as f64 * width);
    }
    path + &format!("V{:.1}Z", top + ROW)
}

fn area(class: &str, path: &str) -> String {
    format!("<path class=\"{class}\" d=\"{path}\"/>\n")
}

/// One curve, interrupted where there is nothing to show.
fn line(class: &str, bins: &[Bin], column: usize, top: f64, share: impl Fn(&Bin) -> Option<f64>) -> String {
    let mut path = String::new();
    let mut is_drawing = false;
    for (index, bin) in bins.iter().enumerate() {
        let Some(share) = share(bin) else {
            is_drawing = false;
            continue;
        };
        let x = left_of(column) + PLOT * (index as f64 + 0.5) / bins.len() as f64;
        let y = top + ROW * (1.0 - share.clamp(0.0, 1.0));
        // A single point is a line of no length, which a round cap shows.
        let _ = write!(path, "{}{x:.1} {y:.1}", if is_drawing { "L" } else { "M" });
        if !is_drawing {
            path.push_str("h0");
        }
        is_drawing = true;
    }
    format!("<path class=\"{class}\" d=\"{path}\"/>\n")
}

fn across(at: Duration, length: Duration) -> f64 {
    PLOT * at.as_secs_f64() / length.as_secs_f64()
}

/// From 0 to 1.
fn on_log_scale(seconds: f64) -> f64 {
    ((seconds.log10() - FASTEST) / (SLOWEST - FASTEST)).clamp(0.0, 1.0)
}

const _: () = assert!(DEADLINE.as_millis() >= 1, "on the scale");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::tests::scene;

    #[test]
    fn every_element_is_closed_and_every_number_is_one() {
        let scene = scene("outage", 600);
        let svg = file(&scene, &Peer::ALL);
        let opened = svg.matches('<').count() - svg.matches("</").count();
        assert_eq!(opened, svg.matches("/>").count() + svg.matches("</").count());
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(svg.contains("failfast") && svg.contains("deadline"));
        assert!(svg.contains("prefers-color-scheme:dark"), "readable on both backgrounds");
    }

    #[test]
    fn no_curve_lies_on_another() {
        let scene = scene("outage", 40); // both pools are the same
        let svg = of(&scene, &Peer::ALL);
        let curves: Vec<_> = svg.lines().filter(|line| line.contains("class=\"a\" d=\"M") && line.len() > 60).collect();
        assert_eq!(curves.len(), 2 + 1, "one of each pool, and the legend: {curves:?}");
        assert_ne!(curves[1], curves[2]);
    }

    #[test]
    fn only_the_wanted_pools_have_rows() {
        let svg = of(&scene("outage", 600), &[Peer::Failfast]);
        assert!(svg.contains("failfast") && !svg.contains(">deadpool<"), "{svg}");
    }

    #[test]
    fn a_line_is_interrupted_where_there_is_nothing() {
        let bin = |answer: Option<u64>| Bin { answer: answer.map(Duration::from_millis), ..Bin::default() };
        let bins = [bin(Some(40)), bin(Some(50)), bin(None), bin(Some(40))];
        let line = line("a", &bins, 0, 0.0, |bin| bin.answer.map(|answer| answer.as_secs_f64()));
        assert_eq!((line.matches('M').count(), line.matches('L').count()), (2, 1));
    }

    #[test]
    fn the_scale_is_logarithmic_and_has_ends() {
        let fifth = on_log_scale(0.001);
        assert!((fifth - 1.0 / 5.0).abs() < 1e-9, "{fifth}");
        assert_eq!([0.0, 0.0001, 10.0, 60.0].map(on_log_scale), [0.0, 0.0, 1.0, 1.0]);
    }
}

//! The chart of a scenario as an SVG file: goodput and latency over time. It is readable on light and dark backgrounds.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use super::DEADLINE;
use super::peers::Peer;
use super::play::Trace;
use super::scenarios::Scenario;
use super::series::{Bin, bins};

const BINS: usize = 40;
const WIDTH: f64 = 760.0;
const LEFT: f64 = 64.0;
const PLOT: f64 = 682.0;
const HEIGHT: f64 = 130.0;
/// Where each of the two plots begins.
const GOODPUT: f64 = 64.0;
const LATENCY: f64 = 232.0;
const BOTTOM: f64 = 400.0;
/// The latency scale, in powers of ten of a second.
const FASTEST: f64 = -2.0;
const SLOWEST: f64 = 1.0;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#444}.h{font-weight:600;font-size:14px}.g{stroke:#8888;stroke-width:.5}\
    .d{stroke:#888;stroke-dasharray:2 3}.l{fill:none;stroke-width:1.6;stroke-linejoin:round;stroke-linecap:round}.i{fill:#8882}\
    @media(prefers-color-scheme:dark){text{fill:#ccc}}";

/// Writes `NAME.svg` into the folder, and creates the folder if necessary.
pub(crate) fn write(folder: &Path, scenario: &Scenario, traces: &[Trace]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(scenario.name).with_extension("svg"), draw(scenario, traces))
}

fn draw(scenario: &Scenario, traces: &[Trace]) -> String {
    let length = scenario.length();
    let mut series: Vec<_> = traces.iter().map(|trace| (trace.peer, bins(trace, BINS))).collect();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {BOTTOM}\"><style>{STYLE}</style>\n\
         <text class=\"h\" x=\"{LEFT}\" y=\"18\">{}: {}</text>\n",
        scenario.name, scenario.story
    );
    let mut x = LEFT;
    for (peer, _) in &series {
        svg += &format!(
            "<path class=\"l\" {} d=\"M{x} 36h22\"/><text x=\"{}\" y=\"40\">{peer}</text>\n",
            pen(*peer),
            x + 30.0
        );
        x += 56.0 + 7.0 * peer.name().len() as f64;
    }
    svg += &plot(GOODPUT, "served in time", scenario, &[(0.0, "0"), (0.5, "50%"), (1.0, "100%")]);
    let ticks =
        [(0.01, "10 ms"), (0.1, "100 ms"), (1.0, "1 s"), (10.0, "10 s")].map(|(at, name)| (on_log_scale(at), name));
    svg += &plot(LATENCY, "median answer", scenario, &ticks);
    let deadline = LATENCY + HEIGHT * (1.0 - on_log_scale(DEADLINE.as_secs_f64()));
    svg += &format!(
        "<path class=\"d\" d=\"M{LEFT} {deadline:.1}h{PLOT}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">deadline</text>\n",
        LEFT - 6.0,
        deadline + 4.0
    );
    // Solid lines are drawn below dashed ones, which they would hide. failfast, the first pool, is drawn last.
    series.rotate_left(1);
    for (peer, bins) in &series {
        svg += &line(*peer, GOODPUT, bins, |bin| Some(bin.goodput));
        svg += &line(*peer, LATENCY, bins, |bin| bin.latency.map(|latency| on_log_scale(latency.as_secs_f64())));
    }
    let seconds = length.as_secs();
    for second in (0..=seconds).step_by((seconds as usize).div_ceil(12).max(1)) {
        let x = across(Duration::from_secs(second), length);
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{second} s</text>",
            LATENCY + HEIGHT + 18.0
        );
    }
    svg + "</svg>\n"
}

/// The background of one plot: its title, its scale, and a shade during the incident.
fn plot(top: f64, title: &str, scenario: &Scenario, ticks: &[(f64, &str)]) -> String {
    let (from, to) = (across(scenario.begins(), scenario.length()), across(scenario.ends(), scenario.length()));
    let mut svg = format!(
        "<rect class=\"i\" x=\"{from:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{HEIGHT}\"/><text x=\"{LEFT}\" y=\"{}\">{title}</text>\n",
        to - from,
        top - 8.0
    );
    for (share, name) in ticks {
        let y = top + HEIGHT * (1.0 - share);
        let _ = writeln!(
            svg,
            "<path class=\"g\" d=\"M{LEFT} {y:.1}h{PLOT}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            LEFT - 6.0,
            y + 4.0
        );
    }
    svg
}

/// One pool's line, interrupted where there is nothing to show.
fn line(peer: Peer, top: f64, bins: &[Bin], share: fn(&Bin) -> Option<f64>) -> String {
    let mut path = String::new();
    let mut is_drawing = false;
    for (index, bin) in bins.iter().enumerate() {
        let Some(share) = share(bin) else {
            is_drawing = false;
            continue;
        };
        let x = LEFT + PLOT * (index as f64 + 0.5) / bins.len() as f64;
        let y = top + HEIGHT * (1.0 - share.clamp(0.0, 1.1));
        // A single point is a line of no length, which a round cap shows.
        let _ = write!(path, "{}{x:.1} {y:.1}", if is_drawing { "L" } else { "M" });
        is_drawing = true;
    }
    format!("<path class=\"l\" {} d=\"{path}\"/>\n", pen(peer))
}

fn across(at: Duration, length: Duration) -> f64 {
    LEFT + PLOT * at.as_secs_f64() / length.as_secs_f64()
}

/// From 0 to 1.
fn on_log_scale(seconds: f64) -> f64 {
    ((seconds.log10() - FASTEST) / (SLOWEST - FASTEST)).clamp(0.0, 1.0)
}

/// Colours that colour-blind people can distinguish and that are visible on light and dark backgrounds, with dashes for
/// print.
fn pen(peer: Peer) -> &'static str {
    match peer {
        Peer::Failfast => "stroke=\"#009e73\" style=\"stroke-width:3\"",
        Peer::Deadpool => "stroke=\"#d55e00\"",
        Peer::DeadpoolTuned => "stroke=\"#e69f00\" stroke-dasharray=\"7 3\"",
        Peer::Bb8 => "stroke=\"#0f7fc4\" stroke-dasharray=\"3 2\"",
        Peer::Sqlx => "stroke=\"#c06a9c\" stroke-dasharray=\"9 3 2 3\"",
    }
}

#[cfg(test)]
mod tests {
    use super::super::measure::tests::trace;
    use super::super::peers::Answer;
    use super::*;

    #[test]
    fn every_element_is_closed_and_every_number_is_one() {
        let trace = trace("outage", |due| (due > 3_000).then_some((40, Answer::Served)));
        let svg = draw(&trace.scenario.clone(), &[trace]);
        let opened = svg.matches('<').count() - svg.matches("</").count();
        assert_eq!(opened, svg.matches("/>").count() + svg.matches("</").count());
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(svg.contains("failfast") && svg.contains("deadline"));
    }

    #[test]
    fn a_line_is_interrupted_where_there_is_nothing() {
        let bin = |latency: Option<u64>| Bin { goodput: 0.0, latency: latency.map(Duration::from_millis) };
        let bins = [bin(Some(40)), bin(Some(50)), bin(None), bin(Some(40))];
        let line = line(Peer::Bb8, 0.0, &bins, |bin| bin.latency.map(|latency| latency.as_secs_f64()));
        assert_eq!((line.matches('M').count(), line.matches('L').count()), (2, 1));
    }

    #[test]
    fn the_scale_is_logarithmic_and_has_ends() {
        let third = on_log_scale(0.1);
        assert!((third - 1.0 / 3.0).abs() < 1e-9, "{third}");
        assert_eq!([0.0, 0.01, 10.0, 60.0].map(on_log_scale), [0.0, 0.0, 1.0, 1.0]);
    }
}

//! The report: one HTML page with everything in it, which needs no network and no script.

pub(crate) mod chart;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::better;
use crate::peers::Peer;
use crate::scene::{Played, Scene, Stat};
use crate::terms::{CONNECTIONS, DEADLINE, HOLD, capacity};
use crate::text::{counted, percent, seconds, short};

const CSS: &str = include_str!("page/style.css");

/// On which machine and with which arguments the scenarios were played.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// As the server names it.
    pub(crate) postgres: String,
    pub(crate) processors: usize,
    /// Whether each pool was played alone.
    pub(crate) alone: bool,
    /// How to play it again.
    pub(crate) command: String,
}

/// Writes `report.html` into the folder, and creates the folder if necessary.
pub(crate) fn write(folder: &Path, scenes: &[Scene], setting: &Setting) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let file = folder.join("report.html");
    fs::write(&file, html(scenes, setting))?;
    Ok(file)
}

fn html(scenes: &[Scene], setting: &Setting) -> String {
    let style = format!("{CSS}{}", chart::STYLE);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>failfast beside other pools</title>\n<style>\n{style}\n</style>\n</head>\n<body>\n\
         <h1>failfast beside other pools</h1>\n"
    );
    page += &introduction(scenes, setting);
    page += &summary(scenes);
    page += &better_elsewhere(scenes);
    for scene in scenes {
        page += &section(scene);
    }
    page += &pools(scenes);
    page + "</body>\n</html>\n"
}

fn introduction(scenes: &[Scene], setting: &Setting) -> String {
    let seeds = scenes.first().map_or(0, |scene| scene.seeds.len());
    let seeds = match seeds {
        1 => "One seed".to_owned(),
        _ => format!(
            "{seeds} seeds: each number is the median, with the range below it. The charts are of the first seed"
        ),
    };
    let order = if setting.alone { "Each pool was played alone" } else { "All pools were played at once" };
    format!(
        "<p class=\"faint\">Each pool has {CONNECTIONS} connections to PostgreSQL {}. A query holds one for {}, so a pool \
         can give {:.0} answers a second. Callers arrive whether or not earlier callers have their answers, the same for each \
         pool. An answer counts if it comes within {}, unless a scenario says otherwise. {order}, on {}. {seeds}.</p>\n\
         <p class=\"faint\">Again: <code>{}</code></p>\n",
        escaped(&setting.postgres),
        short(HOLD),
        capacity(HOLD),
        short(DEADLINE),
        counted(setting.processors, "processor"),
        escaped(&setting.command)
    )
}

/// The goodput of each pool in each scenario, and when it served again after a fault.
fn summary(scenes: &[Scene]) -> String {
    let mut html = "<h2>Summary</h2>\n".to_owned();
    let with_goodput: Vec<_> =
        scenes.iter().filter(|scene| scene.pools.iter().any(|played| played.goodput().is_some())).collect();
    html += "<p>Goodput: answers in time, as a share of what is possible. Each scenario says below what 100% is.</p>\n";
    html += &matrix(&with_goodput, Played::goodput, percent, Some);
    let faults: Vec<_> = scenes.iter().filter(|scene| scene.scenario.fault.is_outage()).collect();
    if !faults.is_empty() {
        html += "<p>Served again: from the end of the fault until 95% are served in time for a second.</p>\n";
        html += &matrix(&faults, Played::recovered, seconds, |_| None);
    }
    let overloads: Vec<_> = scenes.iter().filter(|scene| !scene.scenario.fault.is_outage()).collect();
    if !overloads.is_empty() {
        html += "<p>The median answer, in time or late.</p>\n";
        html += &matrix(&overloads, Played::answer, seconds, |_| None);
    }
    html
}

fn matrix(
    scenes: &[&Scene],
    value: fn(&Played) -> Option<Stat>,
    show: fn(f64) -> String,
    bar: fn(f64) -> Option<f64>,
) -> String {
    let peers = peers(scenes.iter().copied());
    let mut html = "<div class=\"wide\"><table>\n<thead><tr><th></th>".to_owned();
    for peer in &peers {
        let _ = write!(html, "<th{}>{peer}</th>", if *peer == Peer::Failfast { " class=\"ours\"" } else { "" });
    }
    html += "</tr></thead>\n<tbody>\n";
    for scene in scenes {
        let name = scene.scenario.name;
        let _ = write!(html, "<tr><th scope=\"row\"><a href=\"#{name}\">{name}</a></th>");
        for peer in &peers {
            let stat = scene.pool(*peer).and_then(value);
            let text = two_lines(stat, show);
            match stat.and_then(|stat| bar(stat.median)) {
                Some(share) => {
                    let share = share.clamp(0.0, 1.0) * 100.0;
                    let _ = write!(html, "<td class=\"bar\" style=\"--share:{share:.0}%\">{text}</td>");
                }
                None => {
                    let _ = write!(html, "<td>{text}</td>");
                }
            }
        }
        html += "</tr>\n";
    }
    html + "</tbody>\n</table></div>\n"
}

fn better_elsewhere(scenes: &[Scene]) -> String {
    let better = better::all(scenes);
    if scenes.iter().all(|scene| scene.pools.len() < 2) {
        return String::new();
    }
    let mut html = "<h3>Where another pool is better</h3>\n".to_owned();
    if better.is_empty() {
        return html + "<p>Nowhere in this run.</p>\n";
    }
    html += "<ul>\n";
    for better in better {
        let _ = writeln!(
            html,
            "<li><a href=\"#{0}\">{0}</a>: {1} has {2} {3}; failfast has {4}.</li>",
            better.scenario,
            better.peer,
            better.figure,
            escaped(&better.theirs),
            escaped(&better.ours)
        );
    }
    html + "</ul>\n"
}

fn section(scene: &Scene) -> String {
    let scenario = &scene.scenario;
    let peers: Vec<_> = scene.pools.iter().map(|played| played.peer).collect();
    let mut html = format!(
        "<section>\n<h2 id=\"{0}\">{0}</h2>\n<p class=\"story\">{1}. The shaded part is the incident.</p>\n\
         <p>A goodput of 100% is {2}. In the chart, 100% is {3:.0} callers a second, the most that {CONNECTIONS} \
         connections usually serve.</p>\n<div class=\"wide\">{4}</div>\n",
        scenario.name,
        escaped(scenario.story),
        scenario.whole(),
        capacity(HOLD),
        chart::of(scene, &peers)
    );
    html += &figures(scene);
    if scene.is_disturbed() {
        html += &format!(
            "<p class=\"short\">The machine was busy: callers were sent up to {} late. So these figures say little; run it \
             again on an idle machine.</p>\n",
            short(scene.lag())
        );
    }
    let (short, all) = scene.short_checks();
    if all > 0 {
        let class = if short == 0 { "" } else { " class=\"short\"" };
        let _ = writeln!(html, "<p{class}>{} of {all} figures of failfast are within their limits.</p>", all - short);
        let lines: String = scene.checks.iter().map(|check| format!("<br>{}", escaped(&check.to_string()))).collect();
        let _ = writeln!(html, "<details><summary>The limits</summary><p>{}</p></details>", &lines[4..]);
    }
    html + "</section>\n"
}

/// The table of a scenario.
fn figures(scene: &Scene) -> String {
    let has_others = scene.scenario.others.is_some();
    let mut html = "<div class=\"wide\"><table>\n<thead><tr><th></th><th>goodput</th><th>late or<br>no answer</th>\
                    <th>refused</th><th>errors</th><th>median<br>answer</th><th>99% of<br>answers</th><th>median<br>refusal</th>\
                    <th>served<br>again after</th><th>connections<br>made</th>"
        .to_owned();
    html += if has_others { "<th>others<br>served</th></tr></thead>\n<tbody>\n" } else { "</tr></thead>\n<tbody>\n" };
    for played in &scene.pools {
        let count = |value: fn(&crate::figures::Figures) -> f64| {
            cell(played.stat(|figures| Some(value(figures))), |value| format!("{value:.0}"))
        };
        let ours = if played.peer == Peer::Failfast { " class=\"ours\"" } else { "" };
        let _ = write!(html, "<tr{ours}><th scope=\"row\">{}</th>", played.peer);
        html += &cell(played.goodput(), percent);
        html += &count(|figures| (figures.late + figures.unanswered) as f64);
        html += &count(|figures| figures.refused as f64);
        html += &count(|figures| figures.failed as f64);
        html += &cell(played.answer(), seconds);
        html += &cell(played.slowest(), seconds);
        html += &cell(played.refusal(), seconds);
        html += &cell(played.recovered(), seconds);
        html += &cell(played.stat(|figures| Some(figures.made? as f64)), |value| format!("{value:.0}"));
        if has_others {
            let share = |(came, served): (usize, usize)| served as f64 / (came as f64).max(1.0);
            html += &cell(played.stat(|figures| figures.others.map(share)), percent);
        }
        html += "</tr>\n";
    }
    html + "</tbody>\n</table></div>\n"
}

fn cell(stat: Option<Stat>, show: fn(f64) -> String) -> String {
    format!("<td>{}</td>", two_lines(stat, show))
}

/// The median, and the range below it.
fn two_lines(stat: Option<Stat>, show: fn(f64) -> String) -> String {
    let Some(stat) = stat else { return "–".to_owned() };
    let range = stat.range(show).map(|range| format!("<br><small>{}</small>", escaped(&range)));
    escaped(&show(stat.median)) + &range.unwrap_or_default()
}

/// The settings of each pool.
fn pools(scenes: &[Scene]) -> String {
    let mut html = format!(
        "<h2>The pools</h2>\n<p>Each has {CONNECTIONS} connections. In the fleet, each of four processes has a pool: of 6 with the defaults, of 3 if \
         tuned, because a deploy doubles the processes.</p>\n<div class=\"wide\"><table><tbody>\n"
    );
    for peer in peers(scenes) {
        let settings = escaped(&peer.settings(scenes.iter().map(|scene| &scene.scenario)));
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{peer}</th><td style=\"text-align:left;white-space:normal\">{settings}</td></tr>"
        );
    }
    html + "</tbody></table></div>\n"
}

/// The pools that took part, each once.
fn peers<'a>(scenes: impl IntoIterator<Item = &'a Scene>) -> Vec<Peer> {
    let mut peers: Vec<_> = scenes.into_iter().flat_map(|scene| &scene.pools).map(|played| played.peer).collect();
    peers.sort();
    peers.dedup();
    peers
}

/// Text in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::tests::scene;

    fn page() -> String {
        let setting = Setting {
            postgres: "17.2 <b>".to_owned(),
            processors: 2,
            alone: false,
            command: "./dev lab --seed 7".to_owned(),
        };
        html(&[scene("surge-3x", 600), scene("flood", 30), scene("outage", 40)], &setting)
    }

    /// The names of all elements that are open at the end; fails where another one than the last is closed.
    fn open_elements(html: &str) -> Vec<String> {
        const EMPTY: [&str; 4] = ["meta", "br", "!doctype", "rect"];
        let mut open = Vec::new();
        for part in html.split('<').skip(1) {
            let tag = part.split('>').next().unwrap();
            let name: String = tag.trim_start_matches('/').chars().take_while(|c| !c.is_whitespace()).collect();
            if tag.starts_with('/') {
                let last = open.pop();
                assert_eq!(last.as_ref(), Some(&name), "closed by </{name}>");
            } else if !tag.ends_with('/') && !EMPTY.contains(&name.as_str()) {
                open.push(name);
            }
        }
        open
    }

    #[test]
    fn elements_are_closed_in_order() {
        assert_eq!(open_elements(&page()), Vec::<String>::new());
    }

    #[test]
    fn nothing_is_loaded_and_nothing_runs() {
        let page = page();
        for word in ["<script", "<link", "<img", "src=", "@import", "url(", "https://"] {
            assert!(!page.contains(word), "{word}");
        }
        // The name of SVG's language, which nobody loads.
        assert_eq!(page.matches("http://").count(), page.matches("http://www.w3.org/2000/svg").count());
        assert!(page.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn the_summary_comes_first_and_leads_to_each_scenario() {
        let page = page();
        let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is missing"));
        assert!(at("<h2>Summary</h2>") < at("Where another pool is better"));
        assert!(at("Where another pool is better") < at("<h2 id=\"surge-3x\">"));
        for name in ["surge-3x", "flood", "outage"] {
            assert!(page.contains(&format!("href=\"#{name}\"")) && page.contains(&format!("id=\"{name}\"")), "{name}");
        }
    }

    #[test]
    fn each_scenario_says_of_what_its_shares_are() {
        let page = page();
        assert_eq!(page.matches("A goodput of 100% is ").count(), 3);
        assert!(page.contains("all usual callers of the incident, without the others"), "the flood");
        assert!(page.contains("all callers who came once the server served again"), "the outage");
    }

    #[test]
    fn all_figures_are_there() {
        let page = page();
        for head in ["goodput", "median<br>answer", "median<br>refusal", "connections<br>made", "others<br>served"] {
            assert!(page.contains(head), "{head}");
        }
        assert_eq!(page.matches("<svg").count(), 3);
        assert_eq!(page.matches(">offered load<").count(), 3);
    }

    #[test]
    fn a_range_is_below_its_median() {
        let stat = |most| Stat { median: 0.5, least: 0.5, most };
        assert_eq!(two_lines(Some(stat(0.5)), percent), "50.0%");
        assert_eq!(two_lines(Some(stat(0.7)), percent), "50.0%<br><small>50.0% to 70.0%</small>");
        assert_eq!(two_lines(None, percent), "–");
    }

    #[test]
    fn foreign_text_is_escaped() {
        assert!(page().contains("PostgreSQL 17.2 &lt;b&gt;."));
        assert_eq!(escaped("a<b> & \"c\""), "a&lt;b&gt; &amp; &quot;c&quot;");
    }
}

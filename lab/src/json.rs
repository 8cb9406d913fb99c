//! The figures as JSON: one object, with times in milliseconds.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use crate::figures::{Figures, Spread};
use crate::scene::Scene;
use crate::terms::{CONNECTIONS, DEADLINE, HOLD};

/// Writes the figures of each run, that is of each seed, scenario and pool.
pub(crate) fn write(out: &mut impl Write, scenes: &[Scene]) -> io::Result<()> {
    let (hold, deadline) = (ms(HOLD), ms(DEADLINE));
    writeln!(out, r#"{{"connections":{CONNECTIONS},"hold_ms":{hold},"deadline_ms":{deadline},"results":["#)?;
    let runs = scenes.iter().flat_map(|scene| scene.pools.iter().map(move |pool| (scene, pool)));
    let objects = runs.flat_map(|(scene, pool)| scene.seeds.iter().zip(&pool.figures));
    let objects: Vec<_> = objects.map(|(seed, figures)| object(*seed, figures)).collect();
    writeln!(out, "{}\n]}}", objects.join(",\n"))
}

fn object(seed: u64, figures: &Figures) -> String {
    let p50 = |spread: Option<Spread>| or_null(spread.map(|spread| ms(spread.p50)));
    let p99 = |spread: Option<Spread>| or_null(spread.map(|spread| ms(spread.p99)));
    let fields = [
        ("seed", seed.to_string()),
        ("scenario", quoted(figures.scenario)),
        ("peer", quoted(figures.peer.name())),
        ("offered", figures.offered.to_string()),
        ("goodput", or_null(figures.goodput)),
        ("late", figures.late.to_string()),
        ("refused", figures.refused.to_string()),
        ("errors", figures.failed.to_string()),
        ("unanswered", figures.unanswered.to_string()),
        ("served_p50_ms", p50(figures.served_in)),
        ("served_p99_ms", p99(figures.served_in)),
        ("refused_p50_ms", p50(figures.refused_in)),
        ("refused_p99_ms", p99(figures.refused_in)),
        ("recovered_ms", or_null(figures.recovered.map(ms))),
        ("unserved_after", figures.unserved_after.to_string()),
        ("connections_made", or_null(figures.made)),
        ("first_warning_ms", or_null(figures.warned.map(ms))),
        ("first_warning", figures.warning.as_deref().map_or("null".to_owned(), quoted)),
        ("first_error_ms", or_null(figures.first_error.map(ms))),
        ("others_came", or_null(figures.others.map(|(came, _)| came))),
        ("others_served", or_null(figures.others.map(|(_, served)| served))),
        ("arrivals_lag_ms", ms(figures.lag).to_string()),
    ];
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
    format!("{{{}}}", fields.join(","))
}

fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

fn or_null(value: Option<impl Display>) -> String {
    value.map_or("null".to_owned(), |value| value.to_string())
}

fn quoted(text: &str) -> String {
    let escaped = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        ..' ' => format!("\\u{:04x}", u32::from(c)),
        _ => c.to_string(),
    };
    format!("\"{}\"", text.chars().map(escaped).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::trace;
    use crate::peers::Answer;

    #[test]
    fn figures_are_one_object_each() {
        let trace = trace("surge-3x", |due| (due < 2_000).then_some((40, Answer::Served)));
        let scene = Scene::of(&trace.scenario.clone(), vec![(7, vec![trace])]);
        let mut out = Vec::new();
        write(&mut out, &[scene]).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("{\"connections\":10,\"hold_ms\":40,\"deadline_ms\":500,\"results\":[\n"), "{text}");
        let object = "{\"seed\":7,\"scenario\":\"surge-3x\",\"peer\":\"failfast\",\"offered\":400,\"goodput\":0.25,";
        assert_eq!((text.matches(object).count(), text.matches("\"seed\"").count()), (1, 1), "{text}");
        assert!(text.contains("\"served_p50_ms\":40,") && text.contains("\"refused_p50_ms\":null,"), "{text}");
        assert!(text.ends_with("}\n]}\n"), "{text}");
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(quoted("a \"b\" \\ \n ä"), "\"a \\\"b\\\" \\\\ \\u000a ä\"");
    }
}

//! The figures as JSON: one object, with times in milliseconds.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use super::arguments::Arguments;
use super::measure::{Figures, Spread};
use super::{CONNECTIONS, DEADLINE, HOLD};

pub(crate) fn write(out: &mut impl Write, arguments: &Arguments, results: &[Figures]) -> io::Result<()> {
    writeln!(
        out,
        r#"{{"seed":{},"quick":{},"connections":{CONNECTIONS},"hold_ms":{},"deadline_ms":{},"results":["#,
        arguments.seed,
        arguments.quick,
        ms(HOLD),
        ms(DEADLINE)
    )?;
    for (index, figures) in results.iter().enumerate() {
        writeln!(out, "{}{}", object(figures), if index + 1 < results.len() { "," } else { "" })?;
    }
    writeln!(out, "]}}")
}

fn object(figures: &Figures) -> String {
    let p50 = |spread: Option<Spread>| or_null(spread.map(|spread| ms(spread.p50)));
    let p99 = |spread: Option<Spread>| or_null(spread.map(|spread| ms(spread.p99)));
    let fields = [
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
        ("connections_made", figures.made.to_string()),
        ("first_warning_ms", or_null(figures.warned.map(ms))),
        ("first_warning", figures.warning.as_deref().map_or("null".to_owned(), quoted)),
        ("first_error_ms", or_null(figures.first_error.map(ms))),
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
    use super::super::measure::tests::trace;
    use super::super::peers::Answer;
    use super::*;

    #[test]
    fn figures_are_one_object_each() {
        let arguments = Arguments::parse(["--seed", "7"].map(str::to_owned)).unwrap();
        let figures = Figures::of(&trace("surge-3x", |due| (due < 2_000).then_some((40, Answer::Served))));
        let mut out = Vec::new();
        write(&mut out, &arguments, &[figures.clone(), figures]).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with(
            "{\"seed\":7,\"quick\":false,\"connections\":10,\"hold_ms\":40,\"deadline_ms\":500,\"results\":["
        ));
        let object = "{\"scenario\":\"surge-3x\",\"peer\":\"failfast\",\"offered\":400,\"goodput\":0.25,\"late\":0,";
        assert_eq!((text.matches(object).count(), text.matches("},\n{").count()), (2, 1), "{text}");
        assert!(text.contains("\"served_p50_ms\":40,") && text.contains("\"refused_p50_ms\":null,"), "{text}");
        assert!(text.ends_with("}\n]}\n"), "{text}");
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(quoted("a \"b\" \\ \n ä"), "\"a \\\"b\\\" \\\\ \\u000a ä\"");
    }
}

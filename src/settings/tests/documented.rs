//! Compares `docs/settings.md` with the code: builds a pool with each default, with each bound, and with a value beyond
//! each bound.

use std::fs;
use std::path::Path;

use super::*;

/// Values for the other key of a table whose keys go together.
const TOGETHER: [(&str, &str); 12] = [
    ("long_running.statements", "5"),
    ("long_running.than", "10s"),
    ("breaker.reset_timeout_growth.factor", "2"),
    ("breaker.reset_timeout_growth.cap", "1h"),
    ("breaker.slow_call.longer_than", "10s"),
    ("breaker.slow_call.percentage", "50"),
    ("fleet.name", "shop"),
    ("adaptive.mode", "act"),
    // A burst needs a rate.
    ("rate.critical.calls", "100"),
    ("rate.normal.calls", "100"),
    ("rate.background.calls", "100"),
    ("rate_of.operation.calls", "100"),
];

struct Row {
    key: String,
    default: String,
    range: String,
}

struct Table(Vec<Row>);

impl Table {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
        let text = fs::read_to_string(path).unwrap();
        let rows = text.lines().filter(|line| line.starts_with("| `")).map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let [_, key, _, default, range, _] = cells[..] else { panic!("not four cells: {line}") };
            let range = range.split(';').next().unwrap();
            Row { key: key.trim_matches('`').to_owned(), default: default.to_owned(), range: range.to_owned() }
        });
        Self(rows.collect())
    }

    /// The value of a bound; a key stands for its default.
    fn value<'a>(&'a self, bound: &'a str) -> &'a str {
        let row = self.0.iter().find(|row| row.key == bound);
        row.map_or(bound, |row| quoted(&row.default)[0])
    }
}

/// What is in backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn with(key: &str, value: &str) -> Settings {
    let mut settings = Settings::default();
    let table = key.rsplit_once('.').map_or("", |(table, _)| table);
    for (other, value) in TOGETHER.iter().filter(|(other, _)| other.rsplit_once('.').unwrap().0 == table) {
        settings.set(other, value).unwrap();
    }
    settings.set(key, value).unwrap_or_else(|error| panic!("{error}"));
    settings
}

fn build(settings: &Settings) -> Result<(), ConfigError> {
    #[cfg(feature = "cluster")]
    if settings.cluster != ClusterSettings::default() {
        return settings.cluster_builder(config()).unwrap().build().map(drop);
    }
    settings.builder(config()).unwrap().build().map(drop)
}

fn is_accepted(key: &str, value: &str) {
    let built = build(&with(key, value));
    assert!(built.is_ok(), "docs/settings.md allows {key} = {value}: {built:?}");
}

/// A number or a duration next to `value`; `None` if there is no smaller one.
fn beside(value: &str, is_above: bool) -> Option<String> {
    if let Ok(number) = value.parse::<u64>() {
        return if is_above { Some((number + 1).to_string()) } else { Some(number.checked_sub(1)?.to_string()) };
    }
    let (duration, step) = (humantime::parse_duration(value).unwrap(), Duration::from_nanos(1));
    let beside = if is_above { duration + step } else { duration.checked_sub(step)? };
    Some(humantime::format_duration(beside).to_string())
}

fn is_refused(key: &str, value: &str) {
    let error = build(&with(key, value)).expect_err(&format!("docs/settings.md forbids {key} = {value}")).to_string();
    assert!(key.split('.').any(|part| error.contains(part)), "{key} = {value}: {error}");
}

#[test]
fn each_key_is_documented() {
    let documented: Vec<_> = Table::read().0.into_iter().map(|row| row.key).collect();
    assert_eq!(documented, keys(), "docs/settings.md has other keys, or another order");
}

#[test]
fn each_default_is_as_documented() {
    for Row { key, default, .. } in Table::read().0 {
        if !default.starts_with('`') || key == "url" {
            continue;
        }
        let mut unset = Settings::default();
        if key.starts_with("server_timeouts.") && key != "server_timeouts.enabled" {
            unset.server_timeouts.enabled = Some(true);
        }
        if lacks_feature(&key) {
            continue;
        }
        let value = quoted(&default)[0];
        let expected = if key.starts_with("cluster.") { untouched(&key) } else { effect(&unset) };
        assert_eq!(effect(&with(&key, value)), expected, "docs/settings.md: {key} defaults to {value}");
    }
}

#[test]
fn each_range_is_as_documented() {
    let table = Table::read();
    let mut tried = 0;
    for Row { key, range, .. } in &table.0 {
        if lacks_feature(key) {
            continue;
        }
        let bounds: Vec<_> = quoted(range).into_iter().map(|bound| table.value(bound)).collect();
        match bounds[..] {
            [] => continue,
            [least] if range.ends_with("or more") => is_accepted(key, least),
            [least, most] if range.contains("` to `") => {
                is_accepted(key, least);
                is_accepted(key, most);
                beside(least, false).into_iter().chain(beside(most, true)).for_each(|value| is_refused(key, &value));
            }
            [zero, most, ref never @ ..] if range.starts_with("more than `0s`, at most `") => {
                is_refused(key, zero);
                is_accepted(key, "1ns");
                is_accepted(key, most);
                is_refused(key, &beside(most, true).unwrap());
                never.iter().for_each(|never| is_accepted(key, never));
            }
            [zero, most] if range.starts_with("more than `0`, at most `") => {
                is_refused(key, zero);
                is_accepted(key, "0.001");
                is_accepted(key, most);
                is_refused(key, &beside(most, true).unwrap());
            }
            ref words if range.starts_with("one of ") => words.iter().for_each(|word| is_accepted(key, word)),
            _ => panic!("{key}: this test does not understand the range {range}"),
        }
        tried += 1;
    }
    assert!(tried > 40, "the ranges were not found");
}

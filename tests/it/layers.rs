//! Reads the rules of the layout from the source. Pure layers do not use certain names, imports point down only, and
//! imports among files form no circle. `recipes` checks the lists of files in `docs/architecture.md`.

mod guarantees;
mod imports;
mod query_methods;
mod recipes;

use std::fs;
use std::path::{Path, PathBuf};

use self::imports::Imports;

/// The layers, from the bottom. A module may use the layers below it, and its own parts.
const LAYERS: [&str; 32] = [
    "clock",
    "human",
    "metrics",
    "operation",
    "policy",
    "holder",
    "status",
    "error",
    "lane_names",
    "connection_string",
    "tls",
    "breaker",
    "event",
    "telemetry",
    "retry",
    "rates",
    "pretend",
    "slots",
    "conn",
    "adaptive",
    "fleet",
    "maintenance",
    "call",
    "pool",
    "listen",
    "preflight",
    "admin",
    "builder",
    "cluster",
    "axum",
    "settings",
    "testing",
];

/// Names that `policy/`, `slots/core` and `conn/calls/activity` must not use: clocks, locks, runtimes, randomness, I/O.
const IMPURE: [&str; 10] =
    ["Instant::now", "SystemTime", "Mutex", "RwLock", "atomic", "tokio", "fastrand", "rand::", "std::io", "std::net"];

/// The path of each source of the library, and its text.
fn texts() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
    let mut folders = vec![root.clone()];
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                texts.push((path.strip_prefix(&root).unwrap().to_owned(), text));
            }
        }
    }
    assert!(texts.len() > 10, "the sources were not found");
    texts
}

/// The same, with the code only.
fn sources() -> Vec<(PathBuf, String)> {
    texts().into_iter().map(|(path, text)| (path, code(&text))).collect()
}

/// Returns the code without comments and unit tests.
fn code(text: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut test = None;
    let lines = text.lines().filter(|line| {
        if line.trim_start() == "#[cfg(test)]" {
            test = Some(indent(line));
        }
        let is_test = test.is_some();
        if test == Some(indent(line)) && line.ends_with([';', '}']) {
            test = None;
        }
        !is_test && !line.trim_start().starts_with("//")
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
}

/// Returns the layer of the file's top-level module.
fn layer(path: &Path) -> Option<usize> {
    let first = path.components().next()?.as_os_str().to_str()?;
    let module = first.trim_end_matches(".rs");
    let index = LAYERS.iter().position(|layer| *layer == module);
    assert!(index.is_some() || module == "lib", "{module} has no layer");
    index
}

#[test]
fn pure_layers_know_no_clock_lock_runtime_or_randomness() {
    let pure = |path: &Path| {
        path.starts_with("policy")
            || path.starts_with("slots/core")
            || path.ends_with("slots/core.rs")
            || path.ends_with("slots/queue.rs")
            || path.ends_with("slots/deadlines.rs")
            || path.ends_with("slots/dials.rs")
            || path.ends_with("conn/calls/activity.rs")
    };
    let mut seen = 0;
    for (path, code) in sources().iter().filter(|(path, _)| pure(path) && !is_test(path)) {
        seen += 1;
        for word in IMPURE {
            assert!(!code.contains(word), "{} names {word}", path.display());
        }
    }
    assert!(seen >= 2, "the pure layers were not found");
}

/// The wall clock may jump. It dates events and certificates, and decides nothing else.
#[test]
fn the_wall_clock_decides_nothing() {
    const DATES: [(&str, &str); 3] =
        [("SystemTime", "event.rs"), ("SystemTime", "telemetry.rs"), ("UnixTime", "tls/verifier.rs")];
    let mut seen = 0;
    for (path, code) in sources().iter().filter(|(path, _)| !is_test(path)) {
        let file = path.display().to_string();
        for word in ["SystemTime", "UnixTime", "UNIX_EPOCH"].into_iter().filter(|word| code.contains(word)) {
            assert!(DATES.contains(&(word, file.as_str())), "{file} names {word}");
            seen += 1;
        }
    }
    assert_eq!(seen, DATES.len(), "a date was not found");
}

/// Rust 1.85, which `Cargo.toml` promises, knows no let chains. A newer compiler accepts them without a word.
#[test]
fn no_condition_is_a_let_chain() {
    for (path, code) in sources() {
        assert!(!code.contains("&& let "), "{} needs Rust 1.88", path.display());
    }
}

#[test]
fn imports_point_down() {
    for (path, code) in sources().iter().filter(|(path, _)| !is_test(path)) {
        let Some(own) = layer(path) else { continue };
        for rest in code.split("crate::").skip(1) {
            let module = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            let used = LAYERS.iter().position(|layer| *layer == module);
            let used = used.unwrap_or_else(|| panic!("{} uses crate::{module}, which has no layer", path.display()));
            assert!(used <= own, "{} uses {module}, which is above it", path.display());
        }
    }
}

#[test]
fn imports_form_no_circle() {
    let sources: Vec<_> = sources().into_iter().filter(|(path, _)| !is_test(path)).collect();
    let circles = Imports::of(&sources).circles();
    assert!(circles.is_empty(), "these files import one another: {circles:#?}");
}

#[test]
fn one_file_knows_sqlstates() {
    let elsewhere = |path: &Path| !path.starts_with("policy/classify") && !path.ends_with("classify.rs");
    let mut seen = 0;
    for (path, code) in sources().iter().filter(|(path, _)| !is_test(path)) {
        let constants = code.split("SqlState::").skip(1).filter(|rest| rest.starts_with(|c: char| c.is_uppercase()));
        let literals = code.split('"').filter(|text| is_sqlstate(text));
        let count = constants.count() + literals.count();
        assert!(count == 0 || !elsewhere(path), "{} names a SQLSTATE", path.display());
        seen += count;
    }
    assert!(seen > 20, "the SQLSTATEs were not found");
}

fn is_sqlstate(text: &str) -> bool {
    text.len() == 5
        && text.starts_with(|c: char| c.is_ascii_digit() || "FHPX".contains(c))
        && text.chars().all(|c| c.is_ascii_digit() || c.is_ascii_uppercase())
        && text.contains(|c: char| c.is_ascii_digit())
}

#[test]
fn files_stay_short() {
    for (path, code) in sources() {
        let lines = code.lines().count();
        assert!(is_test(&path) || lines <= 400, "{} has {lines} lines of code", path.display());
    }
}

/// A table or a link may be longer.
#[test]
fn prose_ends_at_120_columns() {
    for (path, text) in texts() {
        for (number, line) in text.lines().enumerate() {
            let is_prose = line.trim_start().starts_with("//") && !line.contains(" | ") && !line.contains("http");
            let is_narrow = line.chars().count() <= 120;
            assert!(!is_prose || is_narrow, "{}:{}: {line}", path.display(), number + 1);
        }
    }
}

/// The table explains each limit of time to an operator.
#[test]
fn every_duration_constant_is_in_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/architecture.md");
    let text = fs::read_to_string(root).unwrap();
    let section = text.split("## Limits of time").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut seen = 0;
    for (path, code) in sources().iter().filter(|(path, _)| !is_test(path)) {
        for line in code.lines().filter(|line| line.contains(": Duration =") && !line.starts_with("    ")) {
            let name = line.split("const ").nth(1).unwrap().split(':').next().unwrap();
            let (name, place) = (format!("`{name}`"), format!("`{}`", path.display()));
            let is_there = section.lines().any(|row| row.contains(&name) && row.contains(&place));
            assert!(is_there, "docs/architecture.md, \"Limits of time\", does not have {name} of {place}");
            seen += 1;
        }
    }
    assert!(seen > 30, "the constants were not found");
}

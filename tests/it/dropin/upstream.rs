//! Deadpool-postgres's own examples and tests run on this pool with at most ten changed lines each.
//!
//! `theirs/` has files of deadpool-postgres 0.14.2 (MIT or Apache-2.0), verbatim: its README, and the tests about
//! connections of its `tests/postgres.rs`. `ours/` has the changed files. The test includes them as text, so that they
//! keep their form.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{env, fs};

const README: [(&str, &str, &str); 3] = [
    ("readme", include_str!("upstream/theirs/readme.rs"), include_str!("upstream/ours/readme.rs")),
    ("settings", include_str!("upstream/theirs/settings.rs"), include_str!("upstream/ours/settings.rs")),
    ("driver", include_str!("upstream/theirs/driver.rs"), include_str!("upstream/ours/driver.rs")),
];

const TESTS: (&str, &str) = (include_str!("upstream/theirs/tests.rs"), include_str!("upstream/ours/tests.rs"));

/// The most lines that a migration may change.
const MOST: usize = 10;

mod tests {
    use tokio::runtime::Builder;

    use crate::support::server::Server;

    include!("upstream/ours/tests.rs");

    /// Deadpool's example reads the environment, and its function is not async.
    fn config() -> tokio_postgres::Config {
        let starting = || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { Server::shared().await.config() })
        };
        std::thread::spawn(starting).join().unwrap()
    }
}

/// Returns the number of changed lines. A replaced line counts once, as for a reader of the diff.
fn changed(theirs: &str, ours: &str) -> usize {
    let (theirs, ours) = (significant(theirs), significant(ours));
    let mut same = vec![vec![0; ours.len() + 1]; theirs.len() + 1];
    for i in (0..theirs.len()).rev() {
        for j in (0..ours.len()).rev() {
            same[i][j] = if theirs[i] == ours[j] { same[i + 1][j + 1] + 1 } else { same[i + 1][j].max(same[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut changed, mut removed, mut added) = (0, 0, 0, 0, 0);
    while i < theirs.len() || j < ours.len() {
        if i < theirs.len() && j < ours.len() && theirs[i] == ours[j] {
            changed += usize::max(removed, added);
            (i, j, removed, added) = (i + 1, j + 1, 0, 0);
        } else if j == ours.len() || (i < theirs.len() && same[i + 1][j] >= same[i][j + 1]) {
            (i, removed) = (i + 1, removed + 1);
        } else {
            (j, added) = (j + 1, added + 1);
        }
    }
    changed + usize::max(removed, added)
}

fn significant(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

/// Returns the functions of a file by name, each with its attribute.
fn functions(text: &str) -> BTreeMap<&str, &str> {
    let functions = text.split_inclusive("\n}\n").map(|function| {
        let name = function.split("fn ").nth(1).and_then(|rest| rest.split('(').next());
        (name.expect("a function"), &function[function.find("#[").or(function.find("fn ")).unwrap()..])
    });
    functions.collect()
}

#[test]
fn changes_are_counted_as_in_a_diff() {
    assert_eq!(changed("a\nb\nc", "a\nb\nc"), 0);
    assert_eq!(changed("a\nb\nc", "a\nx\nc"), 1);
    assert_eq!(changed("a\nb\nc", "a\nx\ny\nc"), 2);
    assert_eq!(changed("a\nb\nc\nd", "a\nd"), 2);
    assert_eq!(changed("a\nc", "a\nb\nc\nd"), 2);
    assert_eq!(changed("a\nb\nc", "x\nb\ny"), 2);
}

#[test]
fn at_most_ten_lines_of_each_example_are_changed() {
    for (name, theirs, ours) in README {
        let changed = changed(theirs, ours);
        assert!((1..=MOST).contains(&changed), "{name}: {changed} lines");
    }
}

/// The tests need far fewer changes, because one function makes their pool.
#[test]
fn at_most_two_lines_of_each_test_are_changed() {
    let (theirs, ours) = (functions(TESTS.0), functions(TESTS.1));
    assert_eq!(theirs.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>());
    assert!(theirs.len() > 10, "the functions were not found");
    for (name, theirs) in theirs.iter().filter(|(name, _)| **name != "create_pool") {
        let changed = changed(theirs, ours[name]);
        assert!(changed <= 2, "{name}: {changed} lines");
    }
    let whole = changed(TESTS.0, TESTS.1);
    assert!(whole <= 15, "all tests together change {whole} lines");
}

/// `docs/migrating.md` shows the first example as a diff.
#[test]
fn the_documented_diff_is_the_real_one() {
    let document = include_str!("../../../docs/migrating.md");
    let (_, section) = document.split_once("### Ten lines").unwrap();
    let diff = section.split("```diff\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let (_, theirs, ours) = README[0];
    let side = |mark| -> String {
        diff.lines().filter_map(|line| line.strip_prefix([mark, ' '])).flat_map(|line| [line, "\n"]).collect()
    };
    assert!(theirs.starts_with(&side('-')) && ours.starts_with(&side('+')), "{diff}");
    let marked = |mark| diff.lines().filter(|line| line.starts_with(mark)).count();
    assert_eq!((marked('-'), marked('+')), (8, 3));
}

/// If `theirs/` were edited, few changes would prove nothing.
#[test]
fn the_originals_are_unchanged() {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"))).unwrap_or_default();
    let sources = fs::read_dir(home.join("registry/src")).into_iter().flatten().flatten();
    let Some(package) = sources.map(|source| source.path().join("deadpool-postgres-0.14.2")).find(|path| path.exists())
    else {
        return; // the packages are in another folder
    };
    let readme = fs::read_to_string(package.join("README.md")).unwrap();
    for (name, theirs, _) in README {
        assert!(readme.contains(theirs), "{name}");
    }
    let tests = fs::read_to_string(package.join("tests/postgres.rs")).unwrap();
    for (name, theirs) in functions(TESTS.0) {
        assert!(tests.contains(theirs), "{name}");
    }
}

/// Each example runs in a process of its own, in the environment that it expects.
#[cfg(feature = "serde")]
#[tokio::test]
async fn the_examples_run() {
    use crate::support::server::Server;

    let server = Server::shared().await;
    server.execute("CREATE DATABASE deadpool").await;
    let (config, addr) = (server.config(), server.addr());
    let password = String::from_utf8(config.get_password().unwrap().to_vec()).unwrap();
    for (name, ..) in README {
        let mut example = std::process::Command::new(env!("CARGO_BIN_EXE_upstream-examples"));
        example.arg(name).env("DATABASE_URL", server.url()).env("PG__URL", server.url()).env("PG__MAX_SIZE", "3");
        example.env("PGHOST", addr.ip().to_string()).env("PGPORT", addr.port().to_string());
        example.env("USER", config.get_user().unwrap()).env("PGPASSWORD", &password);
        let output = tokio::task::spawn_blocking(move || example.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

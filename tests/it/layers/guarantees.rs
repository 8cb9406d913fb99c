//! Each guarantee in `docs/cluster.md` names the file that keeps it and the tests that show it. Both have to exist.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The text of all files in a folder.
fn text(path: &Path) -> String {
    if path.is_file() {
        return fs::read_to_string(path).unwrap();
    }
    fs::read_dir(path).unwrap().map(|entry| text(&entry.unwrap().path())).collect()
}

#[test]
fn each_guarantee_of_a_cluster_names_files_and_tests_that_exist() {
    let page = text(&root().join("docs/cluster.md"));
    let section = page.split("## What is guaranteed\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let folders = ["src/cluster", "src/policy/cluster", "tests/it/cluster"];
    let tests = folders.map(|folder| text(&root().join(folder))).concat();
    let rows: Vec<_> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 8, "the table was not found");
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        let words = |cell: usize| cells[cell].split('`').skip(1).step_by(2);
        for path in words(1) {
            assert!(root().join("src").join(path).exists(), "there is no {path}");
        }
        for test in words(2) {
            assert!(tests.contains(&format!("fn {test}(")), "there is no test {test}");
        }
        assert!(words(2).count() > 0, "no test is named: {row}");
    }
}

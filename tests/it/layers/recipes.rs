//! Checks the lists of files in `docs/architecture.md`: "Where to find what" and "How to add".
//!
//! Each row and each step names files and symbols in backticks. Each file or folder must exist. Each symbol must occur
//! in a file of the same row or step. A path is written from the root of the repository.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The rows of tables and the steps of numbered lists in a section, each as one line.
fn items(section: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    for line in section.lines() {
        let is_step = line.split_once(". ").is_some_and(|(number, _)| number.parse::<u8>().is_ok());
        if line.starts_with('|') || is_step {
            items.push(line.to_owned());
        } else if line.starts_with("   ") {
            let step = items.last_mut().expect("a step");
            step.push(' ');
            step.push_str(line.trim());
        }
    }
    items
}

fn is_path(word: &str) -> bool {
    let extensions = [".rs", ".md", ".json", ".yml", ".toml"];
    word.contains('/') || extensions.iter().any(|extension| word.ends_with(extension))
}

/// The text of a file, or of all files in a folder.
fn text(path: &Path) -> String {
    if path.is_file() {
        return fs::read_to_string(path).unwrap();
    }
    fs::read_dir(path).unwrap().map(|entry| text(&entry.unwrap().path())).collect()
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').collect()
}

fn check(item: &str) {
    let quoted: Vec<_> = item.split('`').skip(1).step_by(2).collect();
    let (paths, symbols): (Vec<_>, Vec<_>) = quoted.into_iter().partition(|word| is_path(word));
    let links = item.split("](").skip(1).filter_map(|rest| rest.split(['#', ')']).next());
    let files = paths.iter().map(|path| root().join(path)).chain(links.map(|link| root().join("docs").join(link)));
    let files: Vec<_> = files.collect();
    for file in &files {
        assert!(file.exists(), "docs/architecture.md names {}, which does not exist: {item}", file.display());
    }
    let texts: Vec<_> = files.iter().map(|file| text(file)).collect();
    for symbol in symbols {
        let occurs = |text: &String| words(symbol).iter().all(|word| words(text).contains(word));
        assert!(texts.iter().any(occurs), "docs/architecture.md: `{symbol}` is in none of the files of: {item}");
    }
}

#[test]
fn each_named_file_exists_and_has_the_named_symbols() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    for (heading, at_least) in [("Where to find what", 20), ("How to add", 15)] {
        let section = text.split(&format!("\n## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
        let items = items(section);
        assert!(items.len() > at_least, "\"{heading}\" was not found");
        items.iter().for_each(|item| check(item));
    }
}

/// A file that the page does not name is found by nobody.
#[test]
fn each_file_is_named() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let quoted: String = page.split('`').skip(1).step_by(2).flat_map(|quote| [quote, " "]).collect();
    let names = words(&quoted);
    let sources = super::sources();
    let files = sources.iter().map(|(path, _)| path).filter(|path| !super::is_test(path) && !path.ends_with("lib.rs"));
    let is_named = |path: &Path| {
        let stem = if path.ends_with("mod.rs") { path.parent().unwrap().file_name() } else { path.file_stem() };
        names.contains(stem.unwrap().to_str().unwrap())
    };
    let (named, unnamed): (Vec<_>, Vec<_>) = files.partition(|path| is_named(path));
    assert!(unnamed.is_empty(), "docs/architecture.md does not name {unnamed:?}");
    assert!(named.len() > 100);
}

#[test]
fn the_table_of_layers_has_each_layer_in_order() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let section = page.split("\n## Layers\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<_> = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(rows, super::LAYERS);
}

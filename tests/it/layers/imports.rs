//! Finds which source file imports which, and where the imports form a circle.
//!
//! An import is any path that begins with `crate::`, `self::`, `super::` or a child module, in a `use` or in an
//! expression. The file that defines the item counts, whatever re-exports lie between. A re-export of a name that the
//! file itself does not mention is no import.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

type Module = Vec<String>;

/// The modules of a crate, by their paths: those with a file of their own.
pub(super) struct Imports {
    files: BTreeMap<Module, File>,
}

#[derive(Default)]
struct File {
    code: String,
    uses: Vec<Use>,
}

/// A path that a file names, from the root of the crate on.
struct Use {
    path: Module,
    /// What the path is called in this file, if it stands in a `use`.
    name: Option<String>,
    is_public: bool,
}

impl Imports {
    /// `sources` are pairs of a path below `src` and the code of that file, without comments.
    pub(super) fn of(sources: &[(PathBuf, String)]) -> Self {
        let modules: Vec<_> = sources.iter().map(|(path, _)| module(path)).collect();
        let files = sources.iter().zip(&modules).map(|((_, code), module)| {
            let is_child = |child: &Module| child.split_last().is_some_and(|(_, parent)| parent == module.as_slice());
            let children = modules.iter().filter(|child| is_child(child)).filter_map(|child| child.last());
            (module.clone(), File::read(module, children, code))
        });
        Self { files: files.collect() }
    }

    /// Each set of files that import one another, directly or by way of others.
    pub(super) fn circles(&self) -> Vec<Vec<String>> {
        let imports: BTreeMap<_, _> = self.files.keys().map(|file| (file, self.imports(file))).collect();
        let reachable: BTreeMap<_, _> = self.files.keys().map(|file| (file, reachable(&imports, file))).collect();
        let circle = |file: &Module| -> Vec<String> {
            let others = self.files.keys().filter(|other| reachable[file].contains(*other));
            others.filter(|other| reachable[other].contains(file)).map(|other| other.join("/")).collect()
        };
        let circles: BTreeSet<_> = self.files.keys().map(circle).filter(|circle| circle.len() > 1).collect();
        circles.into_iter().collect()
    }

    /// The files that define what this file imports.
    fn imports(&self, module: &Module) -> BTreeSet<Module> {
        let file = &self.files[module];
        let counts = |import: &&Use| !import.is_public || import.name.as_ref().is_none_or(|name| file.mentions(name));
        let defined = file.uses.iter().filter(counts).map(|import| self.definition(&import.path, 0));
        defined.filter(|definition| definition != module).collect()
    }

    /// The module whose file defines the item at `path`.
    fn definition(&self, path: &[String], depth: usize) -> Module {
        assert!(depth < 20, "{} imports itself", path.join("::"));
        let mut module = Module::new();
        for (index, segment) in path.iter().enumerate() {
            let child = [module.as_slice(), std::slice::from_ref(segment)].concat();
            if self.files.contains_key(&child) {
                module = child;
                continue;
            }
            let named = |import: &&Use| import.name.as_ref() == Some(segment) && import.path != path;
            return match self.files.get(&module).and_then(|file| file.uses.iter().find(named)) {
                Some(import) => self.definition(&[&import.path, &path[index + 1..]].concat(), depth + 1),
                None => module,
            };
        }
        module
    }
}

impl File {
    fn read<'a>(module: &Module, children: impl Iterator<Item = &'a String>, code: &str) -> Self {
        let mut roots = vec![("crate".to_owned(), Module::new()), ("self".to_owned(), module.clone())];
        roots.extend(children.map(|child| (child.clone(), [module.as_slice(), std::slice::from_ref(child)].concat())));
        if let Some((_, parent)) = module.split_last() {
            roots.push(("super".to_owned(), parent.to_vec()));
        }
        let mut file = Self { code: without_imports(code), ..Self::default() };
        for (root, base) in roots {
            for (at, _) in code.match_indices(&format!("{root}::")) {
                let before = &code[..at];
                // A part of another path, or the scope of a `pub(in ...)`.
                if before.ends_with(|c: char| is_word(c) || c == ':') || before.ends_with("(in ") {
                    continue;
                }
                let line = before.rsplit('\n').next().unwrap().trim_start();
                let is_import = line.ends_with("use ");
                let mut leaves = Vec::new();
                tree(&code[at + root.len() + 2..], base.clone(), &mut leaves);
                file.uses.extend(leaves.into_iter().map(|(path, name)| Use {
                    path,
                    name: Some(name).filter(|_| is_import),
                    is_public: is_import && line.starts_with("pub"),
                }));
            }
        }
        file
    }

    fn mentions(&self, name: &str) -> bool {
        self.code
            .match_indices(name)
            .any(|(at, _)| !self.code[..at].ends_with(is_word) && !self.code[at + name.len()..].starts_with(is_word))
    }
}

fn reachable<'a>(imports: &'a BTreeMap<&Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<&'a Module> {
    let mut seen = BTreeSet::new();
    let mut next: Vec<_> = imports[from].iter().collect();
    while let Some(file) = next.pop() {
        if seen.insert(file) {
            next.extend(&imports[file]);
        }
    }
    seen
}

fn module(path: &Path) -> Module {
    let mut parts: Module = path.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib")) {
        parts.pop();
    }
    parts
}

/// Returns the code without its `use` items.
fn without_imports(code: &str) -> String {
    let mut is_import = false;
    let other = code.lines().filter(|line| {
        let line = line.trim_start();
        let begins = line.starts_with("use ") || (line.starts_with("pub") && line.contains(" use "));
        let was_import = is_import || begins;
        is_import = was_import && !line.ends_with(';');
        !was_import
    });
    other.collect::<Vec<_>>().join("\n")
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Reads a tree of paths, as a `use` has it: each leaf with its name. Returns what follows the tree.
fn tree<'a>(text: &'a str, mut path: Module, leaves: &mut Vec<(Module, String)>) -> &'a str {
    let mut rest = text.trim_start();
    if let Some(mut group) = rest.strip_prefix('{') {
        loop {
            group = group.trim_start().trim_start_matches(',').trim_start();
            match group.strip_prefix('}') {
                Some(rest) => return rest,
                None => group = tree(group, path.clone(), leaves),
            }
        }
    }
    if let Some(rest) = rest.strip_prefix('*') {
        leaves.push((path, "*".to_owned()));
        return rest;
    }
    let (word, after) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
    match word {
        "super" => _ = path.pop(),
        "self" => {}
        word => path.push(word.to_owned()),
    }
    rest = after;
    if let Some(rest) = rest.strip_prefix("::") {
        if rest.starts_with(|c| is_word(c) || c == '{' || c == '*') {
            return tree(rest, path, leaves);
        }
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if let Some(renamed) = rest.strip_prefix(" as ") {
        let (alias, after) = renamed.split_at(renamed.find(|c| !is_word(c)).unwrap_or(renamed.len()));
        name = alias.to_owned();
        rest = after;
    }
    leaves.push((path, name));
    rest
}

fn crate_of(files: &[(&str, &str)]) -> Imports {
    Imports::of(&files.iter().map(|(path, code)| (PathBuf::from(path), (*code).to_owned())).collect::<Vec<_>>())
}

#[test]
fn a_circle_of_imports_is_found_through_re_exports_and_in_expressions() {
    let files = [
        ("lib.rs", "mod a;\nmod b;"),
        ("a/mod.rs", "pub use self::inner::{Deep, Other as Renamed};\nmod inner;"),
        ("a/inner.rs", "pub struct Deep;\nfn f() { crate::b::g(); }"),
        ("b.rs", "use std::fmt;\nuse crate::a::Renamed;\npub fn g() -> Renamed {}"),
    ];
    assert_eq!(crate_of(&files).circles(), [["a/inner", "b"]]);
}

#[test]
fn a_parent_and_its_child_are_a_circle_only_if_each_needs_the_other() {
    let parent = |code| [("a.rs", code), ("a/child.rs", "use super::Shared;\npub fn f(_: Shared) {}")];
    let circles = |code| crate_of(&parent(code)).circles();
    assert!(circles("mod child;\npub use self::child::f;\npub struct Shared;").is_empty());
    assert_eq!(circles("mod child;\npub struct Shared;\nfn g() { child::f(Shared) }"), [["a", "a/child"]]);
    assert_eq!(circles("mod child;\npub use self::child::f;\npub struct Shared;\nfn g() { f(Shared) }").len(), 1);
}

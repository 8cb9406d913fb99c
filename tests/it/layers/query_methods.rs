//! The query methods of a pool, of a call, of a call with a fallback and of the guard, read from the source: all of
//! them offer the same methods.
//!
//! They are written four times. `docs/decisions/0060-why-query-methods-are-written-thrice.md` says why, and this test
//! keeps them the same. It also checks the recipe in `docs/architecture.md` by which a method is added.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::code;

const POOL: [&str; 2] = ["src/pool.rs", "src/pool/bulk.rs"];
const CALL: [&str; 2] = ["src/call/queries.rs", "src/call/bulk.rs"];
const CLUSTER_CALL: [&str; 3] =
    ["src/cluster/call/queries.rs", "src/cluster/call/bulk.rs", "src/cluster/call/transactions.rs"];
const CLUSTER: [&str; 2] = ["src/cluster.rs", "src/cluster/bulk.rs"];
const CLUSTER_FALLBACK: &str = "src/cluster/call/fallback.rs";
/// Where the methods of a cluster are.
const OF_A_CLUSTER: [&str; 8] = [
    "src/cluster.rs",
    "src/cluster/bulk.rs",
    "src/cluster/listen.rs",
    "src/cluster/order.rs",
    "src/cluster/pretended.rs",
    "src/cluster/readiness.rs",
    "src/cluster/report.rs",
    "src/cluster/call.rs",
];
/// Where the methods of a pool are, and those of a call that are settings.
const OF_A_POOL: [&str; 4] = ["src/pool.rs", "src/pool/bulk.rs", "src/pool/ddl.rs", "src/call.rs"];
/// A cluster has one for each host: `pools`, `primary`, `hosts`.
const OF_ONE_POOL: [&str; 2] = ["breaker", "status"];
const FALLBACK: &str = "src/call/fallback.rs";
const GUARD: [&str; 2] = ["src/conn/calls/queries.rs", "src/conn/calls/bulk.rs"];
const SPAWNED: &str = "tests/it/service.rs";
const TYPES: &str = "tests/it/cases/types.rs";
/// Methods that run a whole piece of work. The guard does not have them.
const WORK: [&str; 2] = ["src/call/transactions.rs", "src/call/attempts.rs"];
/// What these return belongs to one connection, so only the guard has them.
const OF_ONE_CONNECTION: [&str; 3] = ["prepare", "prepare_typed", "prepare_cached"];

/// Streams, which only a server can make, and COPY, which is no read. They have no fallback.
const WITHOUT_FALLBACK: [&str; 6] =
    ["query_raw", "query_stream", "copy_in", "copy_in_rows", "copy_out", "copy_out_rows"];

/// Public methods: the signature of each, by its name.
type Methods = BTreeMap<String, Signature>;

/// A signature without what differs on purpose: the receiver, `async`, the lifetime of a stream, and the bound of a
/// fallback. The guard also takes prepared statements, whose type stands for `&str` here.
#[derive(Debug, PartialEq, Eq)]
struct Signature {
    parameters: String,
    output: String,
    bounds: String,
}

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

fn text(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The public methods of a file, each with its name and what follows the name.
fn heads(code: &str) -> Vec<(&str, &str)> {
    let starts = ["\n    pub fn ", "\n    pub async fn "];
    let mut heads: Vec<_> = starts
        .iter()
        .flat_map(|start| code.match_indices(start).map(|(at, _)| &code[at + start.len()..]))
        .map(|rest| rest.split_at(rest.find(['(', '<']).unwrap()))
        .collect();
    heads.sort_unstable();
    heads
}

/// The code of these files.
fn all(files: &[&str]) -> String {
    files.iter().map(|file| code(&text(file))).collect()
}

fn methods(code: &str) -> Methods {
    heads(code).into_iter().map(|(name, rest)| (name.to_owned(), signature(rest))).collect()
}

fn signature(rest: &str) -> Signature {
    let head = rest.split('{').next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    let open = head.find('(').unwrap();
    let close = closing(&head, open);
    let (output, bounds) = head[close + 1..].split_once(" where ").unwrap_or((&head[close + 1..], ""));
    let output = output.trim().trim_start_matches("-> ");
    let future = output.strip_prefix("impl Future<Output = ").and_then(|output| output.strip_suffix('>'));
    let parameters: Vec<_> = head[open + 1..close].split(", ").map(|part| part.trim().trim_end_matches(',')).collect();
    let parameters: Vec<_> = parameters.into_iter().filter(|part| !["self", "&self", ""].contains(part)).collect();
    Signature {
        parameters: parameters.join(", ").replace("statement: &T", "sql: &str"),
        output: future.unwrap_or(output).replace("'static", "'_"),
        bounds: bounds
            .trim()
            .trim_end_matches(',')
            .replace("T: ?Sized + AsStatement, ", "")
            .replace("T: ?Sized + AsStatement", "")
            .split(", ")
            .filter(|bound| !bound.starts_with("G: FnOnce("))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// Returns the position of the parenthesis that closes the one at `open`.
fn closing(text: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices().skip_while(|(at, _)| *at < open) {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        if depth == 0 {
            return at;
        }
    }
    panic!("not closed: {text}");
}

fn without_those_of_one_connection(mut methods: Methods) -> Methods {
    for name in OF_ONE_CONNECTION {
        assert!(methods.remove(name).is_some(), "the guard has no {name}");
    }
    methods
}

#[test]
fn a_pool_a_call_a_fallback_and_the_guard_have_the_same_query_methods() {
    let call = methods(&all(&CALL));
    assert!(call.len() >= 8, "the query methods were not found");
    let guard = without_those_of_one_connection(methods(&all(&GUARD)));
    assert_eq!(guard, call, "{GUARD:?} and {CALL:?} differ");

    let mut of_a_call = call;
    of_a_call.extend(WORK.iter().flat_map(|file| methods(&code(&text(file)))));
    let pool = all(&POOL);
    let delegates = |name: &str, rest: &str| {
        let body = rest.split("\n    }\n").next().unwrap();
        body.contains("self.call().").then(|| assert!(body.contains(&format!("self.call().{name}(")), "{name}"))
    };
    let of_the_pool: Methods = heads(&pool)
        .into_iter()
        .filter(|(name, rest)| delegates(name, rest).is_some())
        .map(|(name, rest)| (name.to_owned(), signature(rest)))
        .collect();
    assert_eq!(of_the_pool, of_a_call, "{POOL:?} and the files of src/call differ");

    let mut with_a_fallback = methods(&code(&text(FALLBACK)));
    assert!(with_a_fallback.remove("fallback").is_some(), "{FALLBACK} has no `fallback`");
    of_a_call.retain(|name, _| !WITHOUT_FALLBACK.contains(&name.as_str()));
    assert_eq!(with_a_fallback, of_a_call, "{FALLBACK} and the other files of src/call differ");
}

#[test]
fn a_cluster_has_the_methods_of_a_pool() {
    let mut of_a_call = methods(&all(&CALL));
    of_a_call.extend(WORK.iter().flat_map(|file| methods(&code(&text(file)))));
    let mut of_a_cluster = methods(&all(&CLUSTER_CALL));
    assert!(of_a_cluster.remove("get").is_some() && of_a_cluster.remove("transaction_at").is_some());
    assert_eq!(of_a_cluster, of_a_call, "{CLUSTER_CALL:?} and the files of src/call differ");
    let cluster = all(&CLUSTER);
    let has = |name: &String| cluster.contains(&format!("self.call().{name}("));
    let lacking: Vec<_> = of_a_call.keys().filter(|name| !has(name)).collect();
    assert!(lacking.is_empty(), "{CLUSTER:?} lack {lacking:?}");
    let with_a_fallback = |file: &str| {
        let mut methods = methods(&code(&text(file)));
        assert!(methods.remove("fallback").is_some(), "{file} has no `fallback`");
        methods
    };
    let (of_a_cluster, of_a_call) = (with_a_fallback(CLUSTER_FALLBACK), with_a_fallback(FALLBACK));
    assert_eq!(of_a_cluster, of_a_call, "{CLUSTER_FALLBACK} and {FALLBACK} differ");
}

#[test]
fn a_service_moves_from_a_pool_to_a_cluster_by_one_line() {
    let (pool, cluster) = (all(&OF_A_POOL), all(&OF_A_CLUSTER));
    let names = |code: &str| heads(code).into_iter().map(|(name, _)| name.to_owned()).collect::<BTreeSet<_>>();
    let lacking: Vec<_> = names(&pool).difference(&names(&cluster)).cloned().collect();
    assert_eq!(lacking, OF_ONE_POOL, "a cluster lacks them");
    for name in ["pretend", "ready", "report", "listen", "fallback"] {
        assert!(names(&[cluster.as_str(), &code(&text(CLUSTER_FALLBACK))].concat()).contains(name), "{name}");
    }
}

#[test]
fn the_recipe_for_a_query_method_names_what_has_to_change() {
    let architecture = text("docs/architecture.md");
    let recipe = architecture.split("\n### A query method\n").nth(1).expect("no recipe").split("\n#").next().unwrap();
    let named: BTreeSet<_> = recipe.split('`').skip(1).step_by(2).filter(|name| name.contains('/')).collect();
    for file in [&POOL[..], &CALL, &GUARD, &[FALLBACK, SPAWNED, TYPES]].concat() {
        assert!(named.contains(file), "the recipe does not name {file}");
    }
    for file in named {
        assert!(path(file).exists(), "the recipe names {file}, which does not exist");
    }

    let spawned = text(SPAWNED);
    let types = text(TYPES);
    for (name, signature) in methods(&all(&GUARD)) {
        assert!(spawned.contains(&format!("client.{name}(")), "{SPAWNED} does not spawn {name} of the guard");
        let is_shared = !OF_ONE_CONNECTION.contains(&name.as_str());
        assert!(!is_shared || spawned.contains(&format!("p.{name}(")), "{SPAWNED} does not spawn {name} of the pool");
        let returns_rows = ["Row,", "Row>", "RowStream"].iter().any(|row| signature.output.contains(row));
        assert!(!returns_rows || types.contains(&format!(".{name}(")), "{TYPES} does not read the rows of {name}");
    }
}

#[test]
fn a_signature_is_read_without_what_differs_on_purpose() {
    let pool = "
    pub fn get<P, I>(
        &self,
        sql: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> impl Future<Output = Result<Rows<'static>, Error>>
    where
        P: Borrow,
    {
        self.call().get(sql, params)
    }
";
    let guard = "
    pub async fn get<T, P, I>(&self, statement: &T, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<Rows<'_>, Error>
    where
        T: ?Sized + AsStatement,
        P: Borrow,
    {
";
    assert_eq!(methods(pool), methods(guard));
    let other = guard.replace("params: &[", "params: [");
    assert_ne!(methods(pool), methods(&other));
}

//! One call, cut after each of its bytes in both directions. No result is false, and no result is unknown if the bytes
//! show it.
//!
//! The bytes that passed show what could be known. Before the request that may apply something (`before`), nothing was
//! applied. From the byte that carries the outcome (`told`), the call was applied. Between the two, only the server
//! knows.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use failfast::{Effect, Error, Pool, RetryConfig};
use futures_util::{StreamExt, stream};

use crate::dial::tls::Tls;
use crate::pool::LONG;
use crate::support::proxy::{Close, Cut, Proxy, Way};
use crate::support::{eventually, server::Server};

/// Without `FAILFAST_CUTS=all`, the test cuts at every 13th byte, and at each byte where the knowledge changes.
const STEP: u64 = 13;
const AT_ONCE: usize = 6;
/// The driver numbers its statements across all tests of the process. A statement's name may grow by this many bytes.
const DIGITS: u64 = 9;
/// COMMIT as a Query, and its answer: CommandComplete and ReadyForQuery.
const COMMIT: Size = [12, 18];
/// ReadyForQuery. The driver sends the next request as soon as it has the answer before this message.
const READY: u64 = 6;
/// CommandComplete for COMMIT.
const TAG: u64 = 12;
/// TLS adds this many bytes to each.
const RECORD: u64 = 22;
const TABLES: &str = "CREATE TABLE cuts (key text); CREATE TABLE cuts_keyed (key text PRIMARY KEY)";
const INSERT: &str = "INSERT INTO cuts VALUES ($1)";
const WAYS: [Way; 2] = [Way::ToServer, Way::ToClient];

/// The call that is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A statement that the connection has not prepared yet.
    New,
    /// A statement that the connection has prepared.
    Prepared,
    Batch,
    Idempotent,
    Transaction,
}

const KINDS: [Kind; 5] = [Kind::New, Kind::Prepared, Kind::Batch, Kind::Idempotent, Kind::Transaction];

/// How the call is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    Plain,
    Tls,
    /// `statement_cache(0)`
    Uncached,
}

/// What the caller could know after a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    NotApplied,
    Applied,
    /// The cut comes where the decisive request begins.
    NotAppliedOrNobody,
    Nobody,
}

/// Bytes in each direction.
type Size = [u64; 2];

/// A call, and how many bytes it takes.
#[derive(Debug, Clone, Copy)]
struct Plan {
    means: Means,
    kind: Kind,
    /// Up to the request that may apply something.
    before: Size,
    whole: Size,
}

#[derive(Debug, Clone, Copy)]
struct Trial {
    plan: Plan,
    way: Way,
    after: u64,
    close: Close,
    retries: bool,
}

/// How often each key is in the tables.
type Truth = BTreeMap<String, u64>;

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_call_gets_a_true_result() {
    let server = Server::own(&[]).await;
    server.execute(TABLES).await;
    cut_all(&server, "outcomes_plain", Means::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_cut_under_tls_gets_a_true_result() {
    let tls = Tls::shared().await;
    tls.server.execute(TABLES).await;
    cut_all(&tls.server, "outcomes_tls", Means::Tls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_cut_without_a_statement_cache_gets_a_true_result() {
    let server = Server::own(&[]).await;
    server.execute(TABLES).await;
    cut_all(&server, "outcomes_uncached", Means::Uncached).await;
}

async fn cut_all(server: &Server, name: &str, means: Means) {
    let mut trials = Vec::new();
    for kind in KINDS {
        let plan = Plan::measure(server, name, means, kind).await;
        for way in WAYS {
            for after in plan.places(way) {
                for close in [Close::Fin, Close::Reset] {
                    trials.extend([false, true].map(|retries| Trial { plan, way, after, close, retries }));
                }
            }
        }
    }
    let count = trials.len();
    let cut = stream::iter(trials.into_iter().enumerate()).map(async |(number, trial)| {
        let key = format!("{number:06}");
        let told = trial.run(server, name, &key).await;
        (trial, key, told)
    });
    let told: Vec<_> = cut.buffer_unordered(AT_ONCE).collect().await;
    eventually("the requests under way have arrived or are lost", LONG, async || {
        server.connection_count(name).await == 0
    })
    .await;
    let truth = truth(server).await;
    let applied = |key: &String| truth.get(key).copied().unwrap_or_default();
    let wrong: Vec<_> = told.iter().filter_map(|(trial, key, told)| trial.check(told, applied(key))).collect();
    let is_unknown = |told: &Result<(), Error>| told.as_ref().is_err_and(|error| error.effect() == Effect::Unknown);
    let unknown = told.iter().filter(|(_, _, told)| is_unknown(told)).count();
    println!("{means:?}: {count} calls were cut, {unknown} of them with an unknown outcome");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong[..wrong.len().min(30)].join("\n"));
    assert!(unknown > 0 && unknown < count);
}

async fn truth(server: &Server) -> Truth {
    let keys = "SELECT coalesce(string_agg(key, ' '), '') FROM (TABLE cuts UNION ALL TABLE cuts_keyed) AS keys";
    let mut truth = Truth::new();
    for key in server.scalar(keys).await.split_whitespace() {
        *truth.entry(key.to_owned()).or_default() += 1;
    }
    truth
}

/// A pool with one quiet connection.
async fn pool(server: &Server, name: &str, means: Means, retries: bool) -> (Proxy, Pool) {
    let proxy = Proxy::start(server.addr()).await;
    let config = match means {
        Means::Tls => {
            let (ip, port) = (proxy.addr().ip(), proxy.addr().port());
            server.config_with(&format!("host=localhost hostaddr={ip} port={port} sslmode=require"))
        }
        Means::Plain | Means::Uncached => server.config_at(proxy.addr()),
    };
    let retry = if retries { RetryConfig::default() } else { RetryConfig::off() };
    let builder = Pool::builder(config).name(name).max_size(1).retry(retry).acquire_timeout(LONG).query_timeout(LONG);
    let pool = match means {
        Means::Plain => builder.build(),
        Means::Uncached => builder.statement_cache(0).build(),
        Means::Tls => {
            let authority = &Tls::shared().await.authority;
            builder.build_tls(failfast::tls::rustls_with_ca(authority).unwrap())
        }
    };
    let pool = pool.unwrap();
    pool.warm_up(1, LONG).await.unwrap();
    (proxy, pool)
}

/// Without the end of the data the server applies nothing, however much data it got.
#[tokio::test]
async fn a_copy_that_is_cut_before_its_end_is_not_applied() {
    let server = Server::shared().await;
    server.execute("CREATE TABLE cut_copies (key text)").await;
    let (proxy, pool) = pool(server, "outcomes_copy", Means::Plain, false).await;
    let sql = "COPY cut_copies FROM STDIN";
    proxy.arm(Cut::at_text("COPY"));
    let lost = pool.get().await.unwrap().copy_in::<_, Bytes>(sql).await.unwrap_err();
    assert_eq!(lost.effect(), Effect::NotApplied, "cut in its Parse: {lost}");

    let rows = || Bytes::from("a\n".repeat(10_000));
    let mut lost = Vec::new();
    for is_at_end in [false, true] {
        let client = pool.get().await.unwrap();
        let mut copy = client.copy_in(sql).await.unwrap();
        copy.send(rows()).await.unwrap();
        if is_at_end {
            proxy.arm(Cut::at_message(b'c'));
            lost.push(copy.finish().await.unwrap_err());
        } else {
            proxy.cut(Close::Fin);
            while lost.is_empty() {
                lost.extend(copy.send(rows()).await.err());
            }
        }
    }
    let effects: Vec<_> = lost.iter().map(Error::effect).collect();
    assert_eq!(effects, [Effect::NotApplied, Effect::Unknown], "cut in the data, and at their end: {lost:?}");
    pool.close();
    eventually("all sessions have ended", LONG, async || server.connection_count("outcomes_copy").await == 0).await;
    assert_eq!(server.scalar("SELECT count(*) FROM cut_copies").await, "0");
}

/// The first statement of each connection is prepared there. If the call may run again, the statement runs again.
#[tokio::test]
async fn a_call_that_is_cut_while_it_prepares_runs_again() {
    let server = Server::shared().await;
    server.execute("CREATE TABLE cut_prepares (key text)").await;
    for means in [Means::Plain, Means::Uncached] {
        let (proxy, pool) = pool(server, "outcomes_prepare", means, true).await;
        proxy.arm(Cut::at_text("INSERT").answer_lost());
        pool.execute("INSERT INTO cut_prepares VALUES ($1)", &[&"a"]).await.unwrap();
        assert_eq!(proxy.fired(), 1);
    }
    assert_eq!(server.scalar("SELECT count(*) FROM cut_prepares").await, "2");
}

impl Kind {
    async fn run(self, pool: &Pool, key: &str) -> Result<(), Error> {
        match self {
            Self::New | Self::Prepared => pool.execute(INSERT, &[&key]).await.map(drop),
            Self::Batch => {
                let sql = format!("INSERT INTO cuts VALUES ('{key}'); SELECT 1");
                pool.batch_execute(&sql).await
            }
            Self::Idempotent => {
                let insert = "INSERT INTO cuts_keyed VALUES ($1) ON CONFLICT DO NOTHING";
                pool.call().idempotent().execute(insert, &[&key]).await.map(drop)
            }
            Self::Transaction => {
                pool.transaction(|tx| async move {
                    tx.execute(INSERT, &[&key]).await?;
                    Ok(())
                })
                .await
            }
        }
    }
}

impl Plan {
    async fn measure(server: &Server, name: &str, means: Means, kind: Kind) -> Self {
        let (proxy, pool) = pool(server, name, means, false).await;
        let passed = || WAYS.map(|way| proxy.bytes(way));
        let run = async || {
            let from = passed();
            kind.run(&pool, "measur").await.unwrap();
            // The last bytes need no answer, and may still be under way.
            let mut to = from;
            eventually("the proxy has counted all bytes", LONG, async || {
                std::mem::replace(&mut to, passed()) == to && to != from
            })
            .await;
            [to[0] - from[0], to[1] - from[1]]
        };
        let first = run().await;
        let (before, whole) = match kind {
            Kind::Transaction => {
                let record = if means == Means::Tls { RECORD } else { 0 };
                ([0, 1].map(|way| first[way] - COMMIT[way] - record), first)
            }
            Kind::Batch => ([0; 2], first),
            Kind::Prepared => ([0; 2], run().await),
            // The second run leaves out the bytes that prepare the statement. They come before it.
            Kind::New | Kind::Idempotent => {
                let again = run().await;
                ([0, 1].map(|way| first[way] - again[way]), first)
            }
        };
        Self { means, kind, before, whole }
    }

    /// Returns after how many bytes to the client the outcome is known.
    fn told(&self) -> u64 {
        let [_, before] = self.before;
        let [_, whole] = self.whole;
        // The client reads a TLS record only as a whole.
        if self.kind == Kind::Transaction && self.means != Means::Tls { before + TAG } else { whole }
    }

    fn known(&self, way: Way, after: u64) -> Known {
        let before = self.before[way as usize];
        match way {
            Way::ToServer if before > 0 && after <= before => Known::NotApplied,
            Way::ToServer if before > 0 && after <= before + DIGITS => Known::NotAppliedOrNobody,
            Way::ToServer => Known::Nobody,
            Way::ToClient if after + READY < before => Known::NotApplied,
            Way::ToClient if after >= self.told() => Known::Applied,
            Way::ToClient if after <= before && before > 0 => Known::NotAppliedOrNobody,
            Way::ToClient => Known::Nobody,
        }
    }

    fn places(&self, way: Way) -> BTreeSet<u64> {
        let whole = self.whole[way as usize];
        if std::env::var("FAILFAST_CUTS").is_ok_and(|cuts| cuts == "all") {
            return (0..=whole).collect();
        }
        let changes = (1..=whole).filter(|after| self.known(way, *after) != self.known(way, *after - 1));
        let near = changes.flat_map(|after| [after - 1, after, (after + 1).min(whole)]);
        (0..=whole).step_by(STEP as usize).chain(near).chain([whole]).collect()
    }
}

impl Trial {
    async fn run(&self, server: &Server, name: &str, key: &str) -> Result<(), Error> {
        let Self { plan: Plan { means, kind, .. }, way, after, close, retries } = *self;
        let (proxy, pool) = pool(server, name, means, retries).await;
        if kind == Kind::Prepared {
            kind.run(&pool, "warmup").await.unwrap();
        }
        proxy.arm(Cut::after_bytes(way, after).by(close));
        let told = kind.run(&pool, key).await;
        assert_eq!(proxy.fired(), 1, "{self:?}");
        pool.close();
        told
    }

    /// Returns what is wrong, if anything is.
    fn check(&self, told: &Result<(), Error>, applied: u64) -> Option<String> {
        let effect = told.as_ref().map_err(Error::effect);
        let is_true = match effect {
            Ok(()) => applied == 1,
            Err(Effect::NotApplied) => applied == 0,
            Err(_) => applied <= 1,
        };
        let Plan { kind, .. } = self.plan;
        let known = self.plan.known(self.way, self.after);
        let says_enough = match (known, effect) {
            (Known::Applied, effect) => effect.is_ok(),
            (_, effect) if self.retries && kind == Kind::Idempotent => effect.is_ok(),
            (Known::NotApplied | Known::NotAppliedOrNobody, Ok(())) => self.retries,
            (Known::NotApplied, Err(effect)) => {
                effect == Effect::NotApplied && (!self.retries || kind == Kind::Transaction)
            }
            (Known::NotAppliedOrNobody, Err(_)) => true,
            (Known::Nobody, effect) => effect == Err(Effect::Unknown),
        };
        let wrong = format!("{self:?}: {applied} times applied; known: {known:?}; told: {told:?}");
        if is_true && says_enough { None } else { Some(wrong) }
    }
}

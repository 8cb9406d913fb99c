//! Times one statement through the whole pool beside deadpool with a cached statement, and one through the deref beside
//! a tracked call. The sides take turns, call by call.

use std::time::{Duration, Instant};

use failfast::{Pool, Reset};

use super::Report;
use super::support::Throwaway;
use super::turns::{self, Plan, Ratio, Side};

const PLAN: Plan = Plan { sets: 3, rounds: 7_200 };
const SQL: &str = "SELECT 1";

pub(super) async fn measure(server: &Throwaway, report: &mut Report) {
    if report.wants("select-1") {
        select_1(server).await.at_most(report, "select-1", 1.04);
    }
    if report.wants("deref") {
        deref(server).await.at_most(report, "deref", 1.15);
    }
}

/// Gets a connection from a pool and runs a query.
trait Peer {
    async fn call(&self);
}

struct Ours(Pool);

impl Peer for Ours {
    async fn call(&self) {
        self.0.query_one(SQL, &[]).await.expect("a row");
    }
}

struct Bare(deadpool_postgres::Pool);

impl Peer for Bare {
    async fn call(&self) {
        let client = self.0.get().await.expect("a connection");
        let statement = client.prepare_cached(SQL).await.expect("a statement");
        client.query_one(&statement, &[]).await.expect("a row");
    }
}

/// failfast through the deref. The pool verifies the connection before its next use.
struct Derefed(Pool);

impl Peer for Derefed {
    async fn call(&self) {
        let client = self.0.get().await.expect("a connection");
        let statement = (*client).prepare_cached(SQL).await.expect("a statement");
        (*client).query_one(&statement, &[]).await.expect("a row");
    }
}

fn ours(server: &Throwaway) -> Pool {
    Pool::builder(server.config())
        .max_size(1)
        .reset(Reset::WhenSeen)
        .acquire_timeout(Duration::from_secs(60))
        .build()
        .expect("good settings")
}

fn bare(server: &Throwaway) -> Bare {
    let manager = deadpool_postgres::Manager::new(server.config(), tokio_postgres::NoTls);
    Bare(deadpool_postgres::Pool::builder(manager).max_size(1).build().expect("good settings"))
}

async fn select_1(server: &Throwaway) -> Ratio {
    let prepare = async || (Ours(ours(server)), bare(server));
    in_turns(&format!("{SQL} through the pool"), prepare).await
}

/// Times a use through the deref, until the connection is available again.
async fn deref(server: &Throwaway) -> Ratio {
    let prepare = async || (Derefed(ours(server)), Ours(ours(server)));
    in_turns(&format!("{SQL} through the deref"), prepare).await
}

async fn in_turns<A: Peer, B: Peer>(what: &str, prepare: impl AsyncFn() -> (A, B)) -> Ratio {
    turns::measure(what, PLAN, prepare, async |(ours, theirs), side| {
        let begun = Instant::now();
        match side {
            Side::Ours => ours.call().await,
            Side::Theirs => theirs.call().await,
        }
        begun.elapsed()
    })
    .await
}

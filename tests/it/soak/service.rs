//! The load of a service: reads and writes at a steady rate, whether or not earlier calls were answered. Some callers
//! leave early.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use failfast::{Error, Pool};
use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Record;
use crate::pool::LONG;

const ACCOUNTS: i32 = 20;
pub(super) const TOTAL: i64 = 1_000 * ACCOUNTS as i64;

/// The tables have no unique keys, so a write that was applied twice is visible.
pub(super) const TABLES: &str = "CREATE TABLE accounts (id int PRIMARY KEY, cents bigint);
    INSERT INTO accounts SELECT i, 1000 FROM generate_series(1, 20) i;
    CREATE TABLE transfers (key text);
    CREATE TABLE notes (key text)";

/// The usual time between two calls, and the usual duration of a lease in seconds. Together they use a fifth of ten
/// connections.
const PACE: Duration = Duration::from_millis(5);
const HOLD: f64 = 0.01;

/// The results of all callers in one round.
#[derive(Debug, Default)]
pub(super) struct Served {
    pub(super) served: u64,
    gone: u64,
    errors: BTreeMap<&'static str, u64>,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { served, gone, errors } = self;
        write!(f, "{served} served, {gone} went away, {errors:?}")
    }
}

#[derive(Debug, Default)]
struct Told {
    served: Served,
    transfers: Record,
    notes: Record,
}

#[derive(Debug)]
pub(super) struct Load {
    pool: Pool,
    /// The factor for the number of calls; `slowness` is the factor for their duration.
    crowd: AtomicU32,
    slowness: AtomicU32,
    is_paused: AtomicBool,
    is_over: AtomicBool,
}

impl Load {
    pub(super) fn new(pool: Pool) -> Self {
        let (crowd, slowness) = (AtomicU32::new(1), AtomicU32::new(1));
        Self { pool, crowd, slowness, is_paused: AtomicBool::new(false), is_over: AtomicBool::new(false) }
    }

    pub(super) async fn surge(&self, lasting: Duration, times: u32) {
        self.crowd.store(times, Relaxed);
        sleep(lasting).await;
        self.crowd.store(1, Relaxed);
    }

    pub(super) async fn slow_down(&self, lasting: Duration, times: u32) {
        self.slowness.store(times, Relaxed);
        sleep(lasting).await;
        self.slowness.store(1, Relaxed);
    }

    pub(super) fn pause(&self) {
        self.is_paused.store(true, Relaxed);
    }

    pub(super) fn go_on(&self) {
        self.is_paused.store(false, Relaxed);
    }

    pub(super) fn stop(&self) {
        self.is_over.store(true, Relaxed);
    }

    /// Makes calls until `stop`, and waits for every answer. Returns the results of all calls, and of each kind of
    /// write.
    pub(super) async fn run(self: Arc<Self>, round: u64, mut rng: Rng) -> (Served, Record, Record) {
        let (told, mut callers) = (Arc::new(Mutex::new(Told::default())), JoinSet::new());
        for turn in 0_u64.. {
            sleep(PACE).await;
            if self.is_over.swap(false, Relaxed) {
                break;
            }
            for one in 0..self.crowd.load(Relaxed) {
                let (load, told, rng) = (Arc::clone(&self), Arc::clone(&told), rng.fork());
                if !self.is_paused.load(Relaxed) {
                    callers.spawn(async move { load.serve(format!("{round}-{turn}-{one}"), rng, &told).await });
                }
            }
            while callers.try_join_next().is_some_and(|caller| caller.is_ok()) {}
        }
        callers.join_all().await;
        let told = Arc::into_inner(told).unwrap().into_inner().unwrap();
        (told.served, told.transfers, told.notes)
    }

    async fn serve(&self, key: String, mut rng: Rng, told: &Mutex<Told>) {
        let hold = HOLD * f64::from(self.slowness.load(Relaxed));
        let limit = if rng.u8(..16) == 0 { Duration::from_millis(rng.u64(1..20)) } else { LONG };
        let kind = rng.u8(..100);
        let answer = match kind {
            0..60 => timeout(limit, self.find(hold)).await.ok(),
            60..70 => timeout(limit, self.look_around(hold)).await.ok(),
            70..85 => timeout(limit, self.note(&key, hold)).await.ok(),
            _ => {
                let (from, to, cents) = (rng.i32(1..=ACCOUNTS), rng.i32(1..=ACCOUNTS), rng.i64(1..100));
                timeout(limit, self.transfer(&key, (from, to, cents), hold)).await.ok()
            }
        };
        let mut told = told.lock().unwrap();
        match &answer {
            None => told.served.gone += 1,
            Some(Ok(())) => told.served.served += 1,
            Some(Err(error)) => *told.served.errors.entry(error.kind().as_str()).or_default() += 1,
        }
        match kind {
            70..85 => told.notes.note(key, answer.as_ref()),
            85.. => told.transfers.note(key, answer.as_ref()),
            _ => {}
        }
    }

    async fn find(&self, hold: f64) -> Result<(), Error> {
        let call = self.pool.call().name("find").deadline(Duration::from_millis(500)).idempotent();
        call.query_opt("SELECT cents, pg_sleep($1) FROM accounts WHERE id = 7", &[&hold]).await.map(drop)
    }

    /// Runs two statements on one connection.
    async fn look_around(&self, hold: f64) -> Result<(), Error> {
        let client = self.pool.get().await?;
        client.query("SELECT pg_sleep($1)", &[&hold]).await?;
        client.query("SELECT sum(cents) FROM accounts", &[]).await.map(drop)
    }

    async fn note(&self, key: &str, hold: f64) -> Result<(), Error> {
        let sql = "WITH slept AS MATERIALIZED (SELECT pg_sleep($2)) INSERT INTO notes SELECT $1 FROM slept";
        self.pool.call().name("note").execute(sql, &[&key, &hold]).await.map(drop)
    }

    async fn transfer(&self, key: &str, (from, to, cents): (i32, i32, i64), hold: f64) -> Result<(), Error> {
        let call = self.pool.call().name("transfer").deadline(Duration::from_millis(800));
        call.transaction(|tx| async move {
            // The accounts are not locked in a fixed order, because deadlocks are part of the test.
            tx.execute("UPDATE accounts SET cents = cents - $2 WHERE id = $1", &[&from, &cents]).await?;
            tx.query("SELECT pg_sleep($1)", &[&(hold / 2.0)]).await?;
            tx.execute("UPDATE accounts SET cents = cents + $2 WHERE id = $1", &[&to, &cents]).await?;
            tx.execute("INSERT INTO transfers VALUES ($1)", &[&key]).await?;
            Ok(())
        })
        .await
    }
}

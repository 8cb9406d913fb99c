//! Tellers move money while the network and the server fail in every way. An acknowledged write is applied once, a
//! denied write is not applied, and the sum of money never changes. Only a write with an unknown outcome may be either.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use failfast::{Error, Pool};
use fastrand::Rng;
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::pool::LONG;
use crate::soak::{Record, Truth, duration, seed};
use crate::support::proxy::{Close, Cut, Proxy};
use crate::support::{eventually, server::Server};

const NAME: &str = "ledger";
const TELLERS: u64 = 12;
const ACCOUNTS: i32 = 8;
const SUM: i64 = 1_000 * ACCOUNTS as i64;

/// The tables have no unique keys, so a write that was applied twice is visible.
const TABLES: &str = "CREATE TABLE accounts (id int PRIMARY KEY, cents bigint);
    INSERT INTO accounts SELECT i, 1000 FROM generate_series(1, 8) i;
    CREATE TABLE transfers (key text);
    CREATE TABLE notes (key text)";

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_are_applied_exactly_once() {
    let seed = seed();
    let mut server = Server::own(&[]).await;
    server.execute(TABLES).await;
    let proxy = Proxy::start(server.addr()).await;
    let pool = Pool::builder(server.config_at(proxy.addr())).name(NAME).max_size(6);
    let pool = pool.query_timeout(Duration::from_millis(500)).build().unwrap();

    let is_over = Arc::new(AtomicBool::new(false));
    let tellers = (0..TELLERS).map(|number| {
        let teller = Teller { pool: pool.clone(), rng: Rng::with_seed(seed.wrapping_add(number)), number };
        tokio::spawn(teller.work_until(Arc::clone(&is_over)))
    });
    let tellers: Vec<_> = tellers.collect();
    let faults = inject(&pool, &mut server, &proxy, Rng::with_seed(seed)).await;
    is_over.store(true, SeqCst);
    let (mut transfers, mut notes) = (Record::default(), Record::default());
    for teller in join_all(tellers).await {
        let (more_transfers, more_notes) = teller.unwrap();
        transfers.add(more_transfers);
        notes.add(more_notes);
    }

    drop(proxy);
    pool.close();
    // All requests under way have arrived by then, or are lost.
    eventually("all connections of the pool are closed", LONG, async || server.connection_count(NAME).await == 0).await;
    let sum = server.scalar("SELECT sum(cents) FROM accounts").await;
    assert_eq!(sum, SUM.to_string(), "the sum of money changed; seed {seed}");
    let transfers = transfers.check(&Truth::of(&server, "SELECT key FROM transfers").await);
    let notes = notes.check(&Truth::of(&server, "SELECT key FROM notes").await);
    println!("ledger: {faults}; transactions: {transfers}; single: {notes}");
    assert!(transfers.applied > 0 && notes.applied > 0, "no write succeeded");
    assert!(transfers.not_applied > 0 && notes.not_applied + notes.unknown > 0, "no write failed");
}

/// Causes one fault after another until the time is up, each kind at least once, and repairs it. Returns what it did.
async fn inject(pool: &Pool, server: &mut Server, proxy: &Proxy, mut rng: Rng) -> String {
    const KILL: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ledger' ORDER BY random() LIMIT 3";
    let (end, mut count) = (Instant::now() + duration(), 0);
    let mut faults = [
        "cut",
        "commit",
        "commit's answer",
        "statement",
        "statement's answer",
        "stall",
        "refuse",
        "terminate",
        "crash",
        "restart",
    ];
    while count == 0 || Instant::now() < end {
        rng.shuffle(&mut faults);
        count += 1;
        for fault in faults {
            eventually("the pool serves", LONG, async || pool.query_one("SELECT 1", &[]).await.is_ok()).await;
            sleep(Duration::from_millis(rng.u64(50..300))).await;
            let fired = proxy.fired();
            match fault {
                "cut" => proxy.cut(if rng.bool() { Close::Fin } else { Close::Reset }),
                "commit" => proxy.arm(Cut::at_text("COMMIT").times(3)),
                "commit's answer" => proxy.arm(Cut::at_text("COMMIT").times(3).answer_lost()),
                "statement" => proxy.arm(Cut::at_message(b'B').times(3)),
                "statement's answer" => proxy.arm(Cut::at_message(b'B').times(3).answer_lost()),
                "stall" => proxy.stall(),
                "refuse" => proxy.refuse().await,
                "terminate" => server.execute(KILL).await,
                "crash" => server.kill().await,
                _ => server.stop().await,
            }
            sleep(Duration::from_millis(rng.u64(50..600))).await;
            match fault {
                "commit" | "commit's answer" | "statement" | "statement's answer" => {
                    eventually("the cut is made", LONG, async || proxy.fired() > fired).await;
                }
                "stall" if rng.bool() => proxy.cut(Close::Reset),
                "refuse" => proxy.accept().await,
                "crash" | "restart" => server.start().await,
                _ => {}
            }
            proxy.pass();
        }
    }
    format!("{count} x {faults:?}, {} cuts at a statement", proxy.fired())
}

struct Teller {
    pool: Pool,
    rng: Rng,
    number: u64,
}

impl Teller {
    /// Works until the test ends. Returns the results of the transfers, and of the single statements.
    async fn work_until(mut self, is_over: Arc<AtomicBool>) -> (Record, Record) {
        let (mut transfers, mut notes) = (Record::default(), Record::default());
        for turn in 0.. {
            if is_over.load(SeqCst) {
                break;
            }
            let key = format!("{}-{turn}", self.number);
            // Some callers leave early.
            let limit = if self.rng.u8(..8) == 0 { Duration::from_millis(self.rng.u64(1..20)) } else { LONG };
            if self.rng.bool() {
                let told = timeout(limit, self.pool.execute("INSERT INTO notes VALUES ($1)", &[&key])).await.ok();
                notes.note(key, told.as_ref());
            } else {
                let (from, to) = (self.rng.i32(1..=ACCOUNTS), self.rng.i32(1..=ACCOUNTS));
                let told = timeout(limit, transfer(&self.pool, &key, from, to, self.rng.i64(1..100))).await.ok();
                transfers.note(key, told.as_ref());
            }
            sleep(Duration::from_millis(self.rng.u64(2..20))).await;
        }
        (transfers, notes)
    }
}

async fn transfer(pool: &Pool, key: &str, from: i32, to: i32, cents: i64) -> Result<(), Error> {
    pool.transaction(|tx| async move {
        // The accounts are not locked in a fixed order, because deadlocks are part of the test.
        tx.execute("UPDATE accounts SET cents = cents - $2 WHERE id = $1", &[&from, &cents]).await?;
        tx.execute("UPDATE accounts SET cents = cents + $2 WHERE id = $1", &[&to, &cents]).await?;
        tx.execute("INSERT INTO transfers VALUES ($1)", &[&key]).await?;
        Ok(())
    })
    .await
}

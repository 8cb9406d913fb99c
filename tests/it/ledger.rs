//! Money is moved while the network and the server fail in every way there is: what was acknowledged is there once, what was denied is not,
//! and the sum never changes. Only where the pool says that it does not know may it be either.

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

/// Without a unique key: one that is applied twice is to be seen.
const TABLES: &str = "CREATE TABLE accounts (id int PRIMARY KEY, cents bigint);
    INSERT INTO accounts SELECT i, 1000 FROM generate_series(1, 8) i;
    CREATE TABLE transfers (key text);
    CREATE TABLE notes (key text)";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_once() {
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
    // What was on its way has arrived by then, or never will.
    eventually("nothing of ours is left", LONG, async || server.connection_count(NAME).await == 0).await;
    let sum = server.scalar("SELECT sum(cents) FROM accounts").await;
    assert_eq!(sum, SUM.to_string(), "money was made or lost; seed {seed}");
    let transfers = transfers.check(&Truth::of(&server, "SELECT key FROM transfers").await);
    let notes = notes.check(&Truth::of(&server, "SELECT key FROM notes").await);
    println!("ledger: {faults}; transactions: {transfers}; single: {notes}");
    assert!(transfers.applied > 0 && notes.applied > 0, "nothing was done");
    assert!(transfers.not_applied > 0 && notes.not_applied + notes.unknown > 0, "nothing was inject");
}

/// Fault after fault, each repaired after a while, until the time is up; each kind once at least. Tells what was done.
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
    /// What it was told of its transfers, and of its single statements.
    async fn work_until(mut self, is_over: Arc<AtomicBool>) -> (Record, Record) {
        let (mut transfers, mut notes) = (Record::default(), Record::default());
        for turn in 0.. {
            if is_over.load(SeqCst) {
                break;
            }
            let key = format!("{}-{turn}", self.number);
            // Some callers go away.
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
        // In this order, whatever it is: deadlocks are welcome.
        tx.execute("UPDATE accounts SET cents = cents - $2 WHERE id = $1", &[&from, &cents]).await?;
        tx.execute("UPDATE accounts SET cents = cents + $2 WHERE id = $1", &[&to, &cents]).await?;
        tx.execute("INSERT INTO transfers VALUES ($1)", &[&key]).await?;
        Ok(())
    })
    .await
}

//! A service goes through every kind of incident, in random order, round after round. After each round, the slots add
//! up, and the server has as many connections as the pool. No write is lost or duplicated, and the sum of money is
//! unchanged.
//!
//! `./dev soak [MINUTES]` runs it for that long, and beside it a cluster ([`cluster`]) and a fleet of processes
//! ([`fleet`]). Without it, each incident happens once. `FAILFAST_SOAK_SEED` repeats the order.

#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "fleet")]
mod fleet;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use failfast::{BreakerConfig, Pool};
use fastrand::Rng;
use tokio::time::sleep;

use super::record::Verdict;
use super::service::{Load, Served, TABLES, TOTAL};
use super::{Record, Truth, seed, setting};
use crate::pool::LONG;
use crate::support::eventually;
use crate::support::proxy::{Close, Proxy};
use crate::support::server::Server;

const NAME: &str = "endurance";
const CONNECTIONS: usize = 10;
const SECOND: Duration = Duration::from_secs(1);
/// The pool serves callers within this time after the repair.
const RECOVERED: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
enum Incident {
    /// Ten times the usual traffic.
    Surge,
    /// Leases last nine times as long as usual.
    Slow,
    /// Every statement exceeds its timeout.
    Storm,
    /// The server is stopped and started again.
    Outage,
    /// The server process is killed and started again.
    Crash,
    /// The server is paused.
    Freeze,
    /// An administrator ends all connections while none is in use.
    Stale,
    /// The network cuts all connections.
    Cut,
    /// The network drops all bytes without an error.
    Stall,
    /// An administrator ends some connections while they are in use.
    Kills,
}

const ALL: [Incident; 10] = [
    Incident::Surge,
    Incident::Slow,
    Incident::Storm,
    Incident::Outage,
    Incident::Crash,
    Incident::Freeze,
    Incident::Stale,
    Incident::Cut,
    Incident::Stall,
    Incident::Kills,
];

struct World {
    server: Server,
    proxy: Proxy,
    pool: Pool,
    load: Arc<Load>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_survives_every_incident() {
    let (seed, minutes) = (seed(), setting("FAILFAST_SOAK_MINUTES", 0));
    let mut rng = Rng::with_seed(seed);
    let server = Server::own(&[]).await;
    server.execute(TABLES).await;
    let proxy = Proxy::start(server.addr()).await;
    let builder = Pool::builder(server.config_at(proxy.addr())).name(NAME).max_size(CONNECTIONS).min_idle(2);
    let builder = builder.acquire_timeout(SECOND / 2).query_timeout(SECOND / 2).connect_timeout(2 * SECOND);
    // Slow and failing queries open the circuit too. A short reset timeout keeps the rounds short.
    let pool = builder.breaker(BreakerConfig::default().reset_timeout(2 * SECOND)).build().unwrap();
    let load = Arc::new(Load::new(pool.clone()));
    let mut world = World { server, proxy, pool, load };

    let (end, mut rounds) = (Instant::now() + Duration::from_secs(60 * minutes), 0);
    let (mut served, mut writes, mut slowest) = (0, 0, Duration::ZERO);
    let mut incidents = ALL;
    while rounds == 0 || Instant::now() < end {
        rng.shuffle(&mut incidents);
        for incident in incidents {
            rounds += 1;
            let round = world.round(rounds, incident, &mut rng).await;
            println!("service, round {rounds}: {round}");
            served += round.served.served;
            writes += round.writes.iter().map(|verdict| verdict.applied).sum::<u64>();
            slowest = slowest.max(round.recovered);
        }
    }
    println!(
        "service: {rounds} rounds, {served} served, {writes} writes acknowledged, 0 lost, 0 doubled; slowest recovery {} ms",
        slowest.as_millis()
    );
}

/// The results of a round.
struct Round {
    incident: Incident,
    served: Served,
    recovered: Duration,
    connections: usize,
    /// Those in transactions, and single ones.
    writes: [Verdict; 2],
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { incident, served, recovered, connections, writes: [transactions, single] } = self;
        write!(f, "{incident:?}: {served}; served again after {} ms; ", recovered.as_millis())?;
        write!(f, "{connections} connections; transactions: {transactions}; single: {single}")
    }
}

impl World {
    async fn round(&mut self, number: u64, incident: Incident, rng: &mut Rng) -> Round {
        let loading = tokio::spawn(Arc::clone(&self.load).run(number, rng.fork()));
        sleep(Duration::from_millis(rng.u64(300..800))).await;
        self.inject(incident, Duration::from_millis(rng.u64(500..2_000))).await;
        let repaired = Instant::now();
        eventually("callers are served again", RECOVERED, async || self.pool.query_one("SELECT 1", &[]).await.is_ok())
            .await;
        let recovered = repaired.elapsed();
        sleep(Duration::from_millis(rng.u64(100..500))).await;
        self.load.stop();
        let (served, transfers, notes) = loading.await.unwrap();
        let writes = self.settle_accounts(number, &transfers, &notes).await;
        Round { incident, served, recovered, connections: self.pool.status().idle, writes }
    }

    /// Causes the incident, waits until it ends, and repairs what it broke.
    async fn inject(&mut self, incident: Incident, lasting: Duration) {
        const END_ALL: &str =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'endurance'";
        match incident {
            Incident::Surge => self.load.surge(lasting, 10).await,
            Incident::Slow => self.load.slow_down(lasting, 9).await,
            Incident::Storm => self.load.slow_down(lasting, 200).await,
            Incident::Outage => {
                self.server.stop().await;
                sleep(lasting).await;
                self.server.start().await;
            }
            Incident::Crash => {
                self.server.kill().await;
                sleep(lasting).await;
                self.server.start().await;
            }
            Incident::Freeze => {
                self.server.pause().await;
                sleep(lasting).await;
                self.server.unpause().await;
            }
            Incident::Stale => {
                self.load.pause();
                eventually("no connection is in use", LONG, async || self.pool.status().in_use == 0).await;
                self.server.execute(END_ALL).await;
                self.load.go_on();
            }
            Incident::Cut => self.proxy.cut(Close::Reset),
            Incident::Stall => {
                self.proxy.stall();
                sleep(lasting).await;
                self.proxy.cut(Close::Reset);
                self.proxy.pass();
            }
            Incident::Kills => {
                for _ in 0..10 {
                    self.server.execute(&format!("{END_ALL} ORDER BY random() LIMIT 2")).await;
                    sleep(lasting / 10).await;
                }
            }
        }
    }

    /// Checks the slots, the connections, the money, and each reported write.
    async fn settle_accounts(&self, round: u64, transfers: &Record, notes: &Record) -> [Verdict; 2] {
        let status = || self.pool.status();
        eventually("the slots add up", LONG, async || {
            let status = status();
            status.in_use + status.settling + status.dialing + status.closing + status.waiting == 0
        })
        .await;
        eventually("the server has as many connections as the pool", LONG, async || {
            self.server.connection_count(NAME).await == status().idle as u64
        })
        .await;
        let total = self.server.scalar("SELECT sum(cents) FROM accounts").await;
        assert_eq!(total, TOTAL.to_string(), "the sum of money changed");
        let truth = async |table| {
            let sql = format!("SELECT key FROM {table} WHERE key LIKE '{round}-%'");
            Truth::of(&self.server, &sql).await
        };
        [transfers.check(&truth("transfers").await), notes.check(&truth("notes").await)]
    }
}

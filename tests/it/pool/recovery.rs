//! Outages under load, and the recovery. Every caller gets an answer within its deadline, dials stay bounded, and calls
//! succeed soon after the repair. When the server reports the cause, every caller gets it.
//!
//! The tests run bare deadpool through the same outages and print both results.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use deadpool_postgres::PoolError;
use failfast::{Error, Pool};
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use super::LONG;
use crate::support::{
    eventually,
    proxy::{Close, Proxy},
    server::Server,
};

/// The deadline of each call.
const LIMIT: Duration = Duration::from_millis(300);
/// The delay that a busy machine may add.
const SLACK: Duration = Duration::from_millis(700);
const OUTAGE: Duration = Duration::from_secs(3);
const CALLERS: usize = 5;

/// One of the two pools. Each runs the same statement.
#[derive(Clone)]
enum Peer {
    Failfast(Pool),
    /// deadpool with its defaults. Each call has a timeout here, because it could otherwise wait for ever.
    Deadpool(deadpool_postgres::Pool),
}

impl Peer {
    fn both(server: &Server, proxy: &Proxy) -> [Peer; 2] {
        let config = server.config_at(proxy.addr());
        let manager = deadpool_postgres::Manager::new(config.clone(), NoTls);
        let deadpool = deadpool_postgres::Pool::builder(manager).max_size(10).build().unwrap();
        let failfast = Pool::builder(config).name("recovery").acquire_timeout(LIMIT).build().unwrap();
        [Peer::Failfast(failfast), Peer::Deadpool(deadpool)]
    }

    /// Returns a failure with the server's SQLSTATE, if the caller gets it.
    async fn call(&self) -> Result<(), Option<SqlState>> {
        match self {
            Peer::Failfast(pool) => {
                let answer = pool.call().deadline(LIMIT).execute("SELECT 1", &[]).await;
                answer.map(drop).map_err(|error| match error {
                    Error::AcquireTimeout { last_connect_error, .. } => last_connect_error?.sqlstate().cloned(),
                    other => other.sqlstate().cloned(),
                })
            }
            Peer::Deadpool(pool) => {
                let call = async { pool.get().await?.execute("SELECT 1", &[]).await.map_err(PoolError::Backend) };
                let answer = timeout(Duration::from_secs(2), call).await.map_err(|_| None)?;
                answer.map(drop).map_err(|error| match error {
                    PoolError::Backend(error) => error.code().cloned(),
                    _ => None,
                })
            }
        }
    }
}

/// The result of one call.
struct Answer {
    asked: Instant,
    after: Duration,
    result: Result<(), Option<SqlState>>,
}

/// The results of all callers of one pool.
#[derive(Debug)]
struct Seen {
    slowest_answer: Duration,
    failed: usize,
    /// Callers that did not get the server's SQLSTATE, although an earlier caller had got it.
    unreported: usize,
    /// Counts only the dials that the proxy accepted.
    dials_per_second: f64,
    recovered_after: Duration,
}

/// A fault, and the SQLSTATE that the server reports meanwhile.
struct Fault<'a> {
    name: &'static str,
    proxy: &'a Proxy,
    says: Option<SqlState>,
}

impl Fault<'_> {
    /// Runs both pools through the fault, one after the other. `inject` and `repair` change the target.
    async fn run<T>(
        &self,
        both: [Peer; 2],
        target: &mut T,
        inject: impl AsyncFn(&mut T),
        repair: impl AsyncFn(&mut T),
    ) {
        for peer in both {
            eventually("healthy before the outage", LONG, async || peer.call().await.is_ok()).await;
            inject(target).await;
            let (began, dials) = (Instant::now(), self.proxy.accepted());
            let is_over = Arc::new(AtomicBool::new(false));
            let callers: Vec<_> =
                (0..CALLERS).map(|_| tokio::spawn(asks(peer.clone(), Arc::clone(&is_over)))).collect();
            sleep(OUTAGE).await;
            let dials_per_second = (self.proxy.accepted() - dials) as f64 / began.elapsed().as_secs_f64();
            let ended = Instant::now();
            repair(target).await;
            let repaired = Instant::now();
            eventually("recovered", LONG, async || peer.call().await.is_ok()).await;
            let recovered_after = repaired.elapsed();
            is_over.store(true, SeqCst);
            let mut answers = Vec::new();
            for caller in callers {
                answers.extend(caller.await.unwrap());
            }
            let seen = Seen {
                slowest_answer: answers.iter().map(|answer| answer.after).max().unwrap(),
                failed: answers.iter().filter(|answer| answer.result.is_err()).count(),
                unreported: self.unreported(&answers, ended),
                dials_per_second,
                recovered_after,
            };
            self.check(&peer, &seen);
        }
    }

    fn unreported(&self, answers: &[Answer], ended: Instant) -> usize {
        let Some(says) = &self.says else { return 0 };
        let is_told = |answer: &&Answer| answer.result == Err(Some(says.clone()));
        let known = answers.iter().filter(is_told).map(|answer| answer.asked + answer.after).min();
        let known = known.expect("no caller got the server's error");
        let in_the_outage = answers.iter().filter(|answer| answer.asked > known && answer.asked + answer.after < ended);
        in_the_outage.filter(|answer| !is_told(answer)).count()
    }

    fn check(&self, peer: &Peer, seen: &Seen) {
        let name = self.name;
        if let Peer::Deadpool(_) = peer {
            println!("{name}: deadpool {seen:.1?}");
            return;
        }
        println!("{name}: failfast {seen:.1?}");
        assert!(seen.slowest_answer <= LIMIT + SLACK, "{name}: {seen:?}");
        assert!(seen.recovered_after <= Duration::from_millis(1_500), "{name}: {seen:?}");
        assert!(seen.failed > 0, "{name}: no call failed, so there was no outage");
        assert_eq!(seen.unreported, 0, "{name}: {seen:?}");
        assert!(seen.dials_per_second <= 7.0, "{name}: {seen:?}");
    }
}

/// Calls the pool without a pause until the outage is over.
async fn asks(peer: Peer, is_over: Arc<AtomicBool>) -> Vec<Answer> {
    let mut answers = Vec::new();
    while !is_over.load(SeqCst) {
        let asked = Instant::now();
        let result = peer.call().await;
        answers.push(Answer { asked, after: asked.elapsed(), result });
        sleep(Duration::from_millis(5)).await;
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn recovers_after_refused_dials() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let inject = async |_: &mut ()| {
        proxy.refuse().await;
        proxy.cut(Close::Reset);
    };
    let repair = async |_: &mut ()| proxy.accept().await;
    let fault = Fault { name: "refused", proxy: &proxy, says: None };
    fault.run(Peer::both(server, &proxy), &mut (), inject, repair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recovers_after_a_black_hole() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let (inject, repair) = (async |_: &mut ()| proxy.stall(), async |_: &mut ()| proxy.resume());
    let fault = Fault { name: "black hole", proxy: &proxy, says: None };
    fault.run(Peer::both(server, &proxy), &mut (), inject, repair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recovers_after_a_frozen_server() {
    let mut server = Server::own(&[]).await;
    let proxy = Proxy::start(server.addr()).await;
    let both = Peer::both(&server, &proxy);
    let (inject, repair) =
        (async |server: &mut Server| server.pause().await, async |server: &mut Server| server.unpause().await);
    let fault = Fault { name: "frozen", proxy: &proxy, says: None };
    fault.run(both, &mut server, inject, repair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recovers_after_a_restart() {
    let mut server = Server::own(&[]).await;
    let proxy = Proxy::start(server.addr()).await;
    let both = Peer::both(&server, &proxy);
    let (inject, repair) =
        (async |server: &mut Server| server.stop().await, async |server: &mut Server| server.start().await);
    let fault = Fault { name: "restarted", proxy: &proxy, says: None };
    fault.run(both, &mut server, inject, repair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recovers_after_too_many_clients() {
    const MOST: usize = 20;
    let most = MOST.to_string();
    let server = Server::own(&[("max_connections", &most), ("superuser_reserved_connections", "0")]).await;
    let proxy = Proxy::start(server.addr()).await;
    let fill = async |others: &mut Vec<Client>| {
        proxy.cut(Close::Reset);
        eventually("the server has no connections left", LONG, async || {
            match server.config().connect(NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    others.push(client);
                }
                Err(error) => assert_eq!(error.code(), Some(&SqlState::TOO_MANY_CONNECTIONS)),
            }
            others.len() == MOST
        })
        .await;
    };
    let says = Some(SqlState::TOO_MANY_CONNECTIONS);
    let fault = Fault { name: "too many clients", proxy: &proxy, says };
    let leave = async |others: &mut Vec<Client>| others.clear();
    fault.run(Peer::both(&server, &proxy), &mut Vec::new(), fill, leave).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recovers_after_a_wrong_password() {
    let server = Server::own(&[]).await;
    let proxy = Proxy::start(server.addr()).await;
    let config = server.config();
    let user = config.get_user().unwrap();
    let password = String::from_utf8_lossy(config.get_password().unwrap());
    let change = async |admin: &mut Client, password: &str| {
        admin.batch_execute(&format!("ALTER ROLE {user} PASSWORD '{password}'")).await.unwrap();
    };
    let inject = async |admin: &mut Client| {
        change(admin, "changed").await;
        proxy.cut(Close::Reset);
    };
    let both = Peer::both(&server, &proxy);
    let Peer::Failfast(pool) = both[0].clone() else { panic!("the first pool is failfast's") };
    let repair = async |admin: &mut Client| {
        change(admin, &password).await;
        pool.flush(); // or else the next try may be seconds away
    };
    let fault = Fault { name: "wrong password", proxy: &proxy, says: Some(SqlState::INVALID_PASSWORD) };
    fault.run(both, &mut server.admin().await, inject, repair).await;
}

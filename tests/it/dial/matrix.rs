//! Slow dials: the server, the network, the credentials provider, the TLS handshake or `after_connect` takes the time,
//! at a cold start, after an outage or after a flush. The pool counts no slow dial as a failure, runs no more dials
//! than it may, and ends none early.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use failfast::breaker::BreakerConfig;
use failfast::{Credentials, Error, Pool, Socket};
use futures_util::future::join_all;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout, timeout_at};
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

use super::LONG;
use crate::support::{
    eventually,
    proxy::{Close, Proxy, Way},
    server::Server,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const MAX_CONNECTING: usize = 4;

/// What takes the time of a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slow {
    Server,
    Network,
    Credentials,
    Handshake,
    AfterConnect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    ColdStart,
    Outage,
    Flush,
}

/// A server with cheap password checks, and a database in which a login takes as long as a table says.
async fn server() -> &'static Server {
    static SLOW: OnceCell<Server> = OnceCell::const_new();
    let start = async || {
        let server = Server::own(&[("max_connections", "1000")]).await;
        server.execute("SET scram_iterations = 1; CREATE ROLE quick SUPERUSER LOGIN PASSWORD 'secret'").await;
        server
            .execute(
                "CREATE TABLE slow (pool text PRIMARY KEY, seconds float8 NOT NULL);
                CREATE FUNCTION login() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
                    PERFORM pg_sleep(seconds) FROM slow WHERE pool = current_setting('application_name');
                END $$;
                CREATE EVENT TRIGGER login ON login EXECUTE FUNCTION login();
                ALTER EVENT TRIGGER login ENABLE ALWAYS",
            )
            .await;
        server
    };
    SLOW.get_or_init(start).await
}

/// A pool, and the way from it to its server.
pub(crate) struct Scene {
    name: String,
    slow: Slow,
    millis: Arc<AtomicU64>,
    pub(crate) proxy: Proxy,
    pub(crate) pool: Pool,
    /// The largest number of connections that were not ready for longer than a moment.
    unready: Arc<AtomicUsize>,
}

impl Scene {
    pub(crate) async fn new(name: String, slow: Slow, size: usize, breaker: BreakerConfig) -> Self {
        let proxy = Proxy::start(server().await.addr()).await;
        let mut config = server().await.config_at(proxy.addr());
        config.user("quick");
        let millis = Arc::new(AtomicU64::new(0));
        let pause = {
            let millis = Arc::clone(&millis);
            move || Duration::from_millis(millis.load(SeqCst))
        };
        let asked = pause.clone();
        let (is_credentials, is_hook) = (slow == Slow::Credentials, slow == Slow::AfterConnect);
        let credentials = move || {
            let pause = if is_credentials { asked() } else { Duration::ZERO };
            async move {
                sleep(pause).await;
                Ok(Credentials::password("secret"))
            }
        };
        let hook = Arc::clone(&millis);
        let mut builder = Pool::builder(config.clone()).name(&name).max_size(size).max_connecting(MAX_CONNECTING);
        if slow == Slow::Handshake {
            config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
            builder = Pool::builder(config).name(&name).max_size(size).max_connecting(MAX_CONNECTING);
        }
        let builder = builder
            .connect_timeout(Duration::from_secs(15))
            .acquire_timeout(2 * LONG)
            .query_timeout(LONG)
            .breaker(breaker)
            .credentials(credentials)
            .after_connect(move |client| {
                let seconds = hook.load(SeqCst) as f64 / 1e3;
                Box::pin(async move {
                    if is_hook { client.batch_execute(&format!("SELECT pg_sleep({seconds})")).await } else { Ok(()) }
                })
            });
        let pool = if slow == Slow::Handshake { builder.build_tls(Sluggish(Arc::new(pause))) } else { builder.build() };
        Self { name, slow, millis, proxy, pool: pool.unwrap(), unready: Arc::default() }
    }

    /// Makes each dial take this long from now on.
    pub(crate) async fn dials_take(&self, time: Duration) {
        match self.slow {
            Slow::Server => {
                let (name, seconds) = (&self.name, time.as_secs_f64());
                let update = "ON CONFLICT (pool) DO UPDATE SET seconds = excluded.seconds";
                server().await.execute(&format!("INSERT INTO slow VALUES ('{name}', {seconds}) {update}")).await;
            }
            // Three round trips.
            Slow::Network => [Way::ToServer, Way::ToClient].iter().for_each(|way| self.proxy.delay(*way, time / 6)),
            Slow::Credentials | Slow::Handshake | Slow::AfterConnect => {
                self.millis.store(u64::try_from(time.as_millis()).unwrap(), SeqCst);
            }
        }
    }

    pub(crate) async fn ask(&self) -> Result<(), Error> {
        self.pool.query_one("SELECT 1", &[]).await.map(drop)
    }

    /// Stops the server until the circuit is open.
    pub(crate) async fn outage(&self) {
        self.proxy.refuse().await;
        self.proxy.cut(Close::Reset);
        eventually("the circuit opens", LONG, async || matches!(self.ask().await, Err(Error::CircuitOpen { .. })))
            .await;
    }

    /// Runs callers every 100 ms, until one is served. Returns how long that took.
    pub(crate) async fn first_success(&self) -> Duration {
        let begun = Instant::now();
        let mut callers = JoinSet::new();
        let served = async {
            loop {
                let pool = self.pool.clone();
                callers.spawn(async move { pool.batch_execute("SELECT 1").await.is_ok() });
                let next = Instant::now() + 100 * MILLISECOND;
                while let Ok(Some(answer)) = timeout_at(next.into(), callers.join_next()).await {
                    if answer.unwrap() {
                        return;
                    }
                }
                sleep_until(next.into()).await;
            }
        };
        let is_served = timeout(2 * LONG, served).await.is_ok();
        assert!(is_served, "{}: {}", self.name, self.pool.status());
        begun.elapsed()
    }

    /// Counts, for ever, the connections of the proxy that the pool does not count as ready.
    async fn watch(&self) {
        let mut before = 0;
        loop {
            let status = self.pool.status();
            let ready = status.idle + status.in_use + status.settling + status.closing;
            let unready = (self.proxy.open() as usize).saturating_sub(ready);
            // A connection that was just closed or finished is counted for a moment.
            self.unready.fetch_max(unready.min(before).max(status.dialing), SeqCst);
            before = unready;
            sleep(20 * MILLISECOND).await;
        }
    }
}

type Pause = Arc<dyn Fn() -> Duration + Send + Sync>;

/// A TLS connector that encrypts nothing and is slow.
#[derive(Clone)]
struct Sluggish(Pause);

impl MakeTlsConnect<Socket> for Sluggish {
    type Stream = Socket;
    type TlsConnect = Self;
    type Error = io::Error;

    fn make_tls_connect(&mut self, _: &str) -> io::Result<Self> {
        Ok(self.clone())
    }
}

impl TlsConnect<Socket> for Sluggish {
    type Stream = Socket;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Socket>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            sleep((self.0)()).await;
            Ok(socket)
        })
    }
}

/// Returns how long it takes until a call succeeds.
async fn goes_well(slow: Slow, take: Duration, when: When, size: usize) -> Duration {
    let name = format!("{slow:?} {take:?} {when:?} {size}");
    let scene = Scene::new(name.clone(), slow, size, BreakerConfig::default().volume_threshold(3)).await;
    if when != When::ColdStart {
        scene.ask().await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    if when == When::Outage {
        scene.outage().await;
    }
    scene.dials_take(take).await;
    let seen = scene.proxy.accepted();
    let calls = async {
        let first = match when {
            // The pool refuses callers until it knows that the server is back.
            When::Outage => {
                // By then the server has refused a look of the pool that began before dials became slow.
                sleep(100 * MILLISECOND).await;
                scene.proxy.accept().await;
                scene.first_success().await
            }
            When::ColdStart | When::Flush => {
                if when == When::Flush {
                    scene.pool.flush();
                }
                let begun = Instant::now();
                scene.ask().await.unwrap_or_else(|error| panic!("{name}: {error}"));
                begun.elapsed()
            }
        };
        for answer in join_all((0..3).map(|_| scene.ask())).await {
            answer.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        first
    };
    let first = tokio::select! {
        first = calls => first,
        () = scene.watch() => unreachable!("it watches for ever"),
    };
    eventually(&name, LONG, async || scene.pool.status().dialing == 0).await;
    let unready = scene.unready.load(SeqCst);
    assert!(unready <= MAX_CONNECTING, "{name}: {unready} dials at once");
    let status = scene.pool.status();
    let (dialed, ready) = (scene.proxy.accepted() - seen, status.idle + status.in_use + status.settling);
    assert_eq!(dialed as usize, ready, "{name}: a dial was cut short: {status}");
    first
}

#[tokio::test(flavor = "multi_thread")]
async fn no_slow_dial_counts_as_a_failure() {
    let kinds = [Slow::Server, Slow::Network, Slow::Credentials, Slow::Handshake, Slow::AfterConnect];
    let times = [10, 500, 1_200, 3_000, 8_000].map(Duration::from_millis);
    server().await;
    let of_all = [When::ColdStart, When::Outage, When::Flush].map(async |when| {
        let cases = kinds.iter().flat_map(|slow| times.iter().flat_map(|time| [(*slow, *time, 1), (*slow, *time, 10)]));
        let all = cases.map(async |(slow, take, size)| {
            // The statement takes two round trips.
            let statement = if slow == Slow::Network { 2 * take / 3 } else { Duration::ZERO };
            goes_well(slow, take, when, size).await.saturating_sub(take + statement)
        });
        (when, join_all(all).await.into_iter().max().unwrap())
    });
    for (when, late) in join_all(of_all).await {
        println!("{when:?}: the first call succeeds {late:.1?} after its dial, at the latest");
        assert!(late <= Duration::from_secs(10), "{when:?}: {late:?}");
    }
}

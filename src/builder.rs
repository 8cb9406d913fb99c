//! The settings of a pool: each with its setter, its documentation and its default. `check` has their ranges, and
//! `assemble` makes a pool of them.

mod assemble;
mod check;
#[cfg(feature = "cluster")]
mod cluster;
mod driver;
mod tls;

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Object;
use tokio::runtime::Handle;
use tokio_postgres::Config;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

#[cfg(feature = "cluster")]
pub(crate) use self::driver::check_hosts;
use crate::breaker::{BreakerConfig, Machine};
use crate::conn::{Connector, Credentials, Hooks, IsFailure, Reset, ServerTimeouts, Socket};
use crate::connection_string::ConnectionString;
use crate::error::{ConfigError, Error};
#[cfg(feature = "fleet")]
use crate::fleet::FleetConfig;
#[cfg(feature = "fleet")]
use crate::policy::Adaptive;
use crate::policy::{Lane, LaneLimits, PerLane, Shedding};
use crate::pool::Pool;
use crate::rates::Rate;
use crate::retry::RetryConfig;
use crate::telemetry::{Given, Observer, Observers};

/// The settings of a [`Pool`]. Every one has a finite default.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until build() is called"]
pub struct PoolBuilder {
    place: ConnectionString,
    name: String,
    max_size: usize,
    max_waiting: Option<usize>,
    max_connecting: usize,
    min_idle: usize,
    idle_timeout: Option<Duration>,
    max_lifetime: Option<Duration>,
    health_check_after: Option<Duration>,
    shedding: Shedding,
    acquire_timeout: Duration,
    query_timeout: Duration,
    stream_idle_timeout: Duration,
    connect_timeout: Duration,
    statement_cache: usize,
    reset: Reset,
    server_timeouts: Option<ServerTimeouts>,
    hooks: Hooks,
    breaker: BreakerConfig,
    /// A breaker of another crate, which replaces the pool's own.
    machine: Option<Arc<dyn Machine>>,
    is_failure: Option<IsFailure>,
    retry: RetryConfig,
    rates: PerLane<Option<Rate>>,
    rates_of: BTreeMap<String, Rate>,
    observers: Observers,
    recorder: Given,
    leak_detection_threshold: Option<Duration>,
    leak_backtraces: bool,
    /// The number of statements and the duration.
    long_running: (usize, Duration),
    unready_after: Duration,
    runtime: Option<Handle>,
    lanes: PerLane<Option<LaneLimits>>,
    lane_names: BTreeMap<String, Lane>,
    #[cfg(feature = "fleet")]
    fleet: Option<FleetConfig>,
    #[cfg(feature = "fleet")]
    adaptive: Adaptive,
    #[cfg(feature = "fleet")]
    adaptive_start: Option<usize>,
}

impl Pool {
    /// Begins a pool. `config` is the driver's: parse a URL or a connection string, or build one.
    ///
    /// Each setting of `config` is applied, or `build()` refuses it by name. The driver's default of `keepalives_idle`
    /// is two hours. A health check notices a vanished server on idle connections. To notice it earlier on connections
    /// that are used through the deref, set `keepalives_idle=30` or, on Linux, `tcp_user_timeout=10` (both in seconds).
    pub fn builder(config: Config) -> PoolBuilder {
        PoolBuilder::new(config.into())
    }

    /// Begins a pool from a URL or a connection string. Unlike the driver's parser, it takes libpq's options for TLS:
    /// `sslmode=verify-full`, `verify-ca`, `sslrootcert`, `sslcert` and `sslkey`, which the ready connectors follow
    /// (module `tls`).
    ///
    /// ```
    /// # fn main() -> Result<(), failfast::ConfigError> {
    /// let builder = failfast::Pool::builder_by_url("postgres://app@localhost/orders?sslmode=disable")?;
    /// let error = failfast::Pool::builder_by_url("postgres://app@localhost/orders?sslmode=allow").unwrap_err();
    /// assert_eq!(error.to_string(), "sslmode = allow: must be disable, prefer, require, verify-ca or verify-full");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError`] that names the option and the values that work. It never shows a password, nor what may be a
    /// part of one.
    pub fn builder_by_url(url: &str) -> Result<PoolBuilder, ConfigError> {
        url.parse().map(PoolBuilder::new)
    }
}

impl PoolBuilder {
    pub(crate) fn new(place: ConnectionString) -> Self {
        Self {
            place,
            name: "failfast".to_owned(),
            max_size: 10,
            max_waiting: None,
            max_connecting: 4,
            min_idle: 0,
            idle_timeout: Some(Duration::from_secs(600)),
            max_lifetime: Some(Duration::from_secs(1_800)),
            health_check_after: Some(Duration::from_secs(30)),
            shedding: Shedding::default(),
            acquire_timeout: Duration::from_secs(1),
            query_timeout: Duration::from_secs(10),
            stream_idle_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            statement_cache: 256,
            reset: Reset::default(),
            server_timeouts: None,
            hooks: Hooks::default(),
            breaker: BreakerConfig::default(),
            machine: None,
            is_failure: None,
            retry: RetryConfig::default(),
            rates: PerLane::default(),
            rates_of: BTreeMap::new(),
            observers: Observers::default(),
            recorder: Given::default(),
            leak_detection_threshold: Some(Duration::from_secs(60)),
            leak_backtraces: false,
            long_running: (5, Duration::from_secs(10)),
            unready_after: Duration::from_secs(10),
            runtime: None,
            lanes: [None; 3],
            lane_names: BTreeMap::new(),
            #[cfg(feature = "fleet")]
            fleet: None,
            #[cfg(feature = "fleet")]
            adaptive: Adaptive::Off,
            #[cfg(feature = "fleet")]
            adaptive_start: None,
        }
    }

    /// The pool's name in logs, events and metrics. It is also the `application_name` on the server, unless the
    /// connection string sets one. 1 to 63 printable ASCII characters. Default `failfast`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The maximum number of connections, including those that are being made or closed. 1 to 262,143. Default 10.
    pub fn max_size(mut self, max_size: usize) -> Self {
        self.max_size = max_size;
        self
    }

    /// The maximum number of callers that may wait for a connection, in each [`Lane`]. One more is refused at once with
    /// [`Error::Shed`](crate::Error::Shed). 0 to 1,000,000. Default: 100 x `max_size`, but at least 10,000 and at most
    /// 1,000,000.
    ///
    /// This setting bounds memory, for each lane that callers use: a waiter takes about 250 bytes in
    /// [`get`](crate::Pool::get), and less than 2.5 kB in [`query`](crate::Pool::query) and its like. Deadlines and
    /// [`shedding`](Self::shedding) bound how long callers wait.
    ///
    /// [`Shedding::Off`](crate::Shedding::Off) ignores this setting: up to a million callers wait.
    ///
    /// With 0, no caller waits, not even for the first connection. A caller that finds no idle connection is refused,
    /// and the pool makes a connection in the background for later callers, up to `max_size`.
    pub fn max_waiting(mut self, max_waiting: usize) -> Self {
        self.max_waiting = Some(max_waiting);
        self
    }

    /// The maximum number of connections that are being made at the same time. 1 to 1,000. Default 4: enough for a cold
    /// start, and few enough to spare a server in trouble.
    pub fn max_connecting(mut self, max_connecting: usize) -> Self {
        self.max_connecting = max_connecting;
        self
    }

    /// The number of idle connections that the pool maintains in addition to those in use, up to `max_size` in all. The
    /// pool makes them in the background, from the moment at which it is built within a runtime or first used in one. 0
    /// to `max_size`. Default 0.
    pub fn min_idle(mut self, min_idle: usize) -> Self {
        self.min_idle = min_idle;
        self
    }

    /// How long a connection may be idle while there are more idle ones than [`min_idle`](Self::min_idle). The pool
    /// closes it at most a second later. More than 0, at most 30 days; `None` means for ever. Default 10 min.
    pub fn idle_timeout(mut self, idle_timeout: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = idle_timeout.into();
        self
    }

    /// The maximum lifetime of a connection. Each connection has a lifetime between 80% and 100% of this, so that
    /// connections made together do not end together. The pool closes an expired connection when it is idle or given
    /// back, and never interrupts work. A listener replaces its own, and misses nothing. More than 0, at most 30 days;
    /// `None` means for ever. Default 30 min.
    pub fn max_lifetime(mut self, max_lifetime: impl Into<Option<Duration>>) -> Self {
        self.max_lifetime = max_lifetime.into();
        self
    }

    /// How long a connection may be idle before the pool checks it. The check is one round trip (a Sync) and is
    /// repeated after the same time. If a connection does not answer, the pool closes it and every connection that has
    /// been idle for as long, and checks the others. The pool checks a few connections at a time, and never more than
    /// half of the idle ones. Checks also prevent firewalls from dropping the connections. More than 0, at most 30
    /// days; `None` means never. Default 30 s.
    pub fn health_check_after(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.health_check_after = idle.into();
        self
    }

    /// Which callers the pool refuses at once instead of letting them wait. Default [`Shedding::Predictive`].
    pub fn shedding(mut self, shedding: Shedding) -> Self {
        self.shedding = shedding;
        self
    }

    /// How long [`Pool::get`] waits for a connection. More than 0, at most 24 hours. Default 1 s.
    pub fn acquire_timeout(mut self, acquire_timeout: Duration) -> Self {
        self.acquire_timeout = acquire_timeout;
        self
    }

    /// How long one statement may take, from its first byte to its last answer. For a stream, the limit holds for each
    /// item. When the time is up, the caller gets [`Error::QueryTimeout`](crate::Error::QueryTimeout), and the pool
    /// stops the statement on the server. More than 0, at most 24 hours. Default 10 s.
    /// [`Call::timeout`](crate::Call::timeout) and [`Call::deadline`](crate::Call::deadline) override it.
    pub fn query_timeout(mut self, query_timeout: Duration) -> Self {
        self.query_timeout = query_timeout;
        self
    }

    /// How long the reader of a stream ([`RowStream`](crate::RowStream) or [`CopyOut`](crate::CopyOut)) may pause
    /// between two polls while items are ready for it. More than 0, at most 24 hours. Default 30 s.
    ///
    /// When the time is up, the pool stops the statement, drops the rows that were not read, and takes back the
    /// connection that the stream owns. The next poll returns [`Error::StreamIdle`](crate::Error::StreamIdle). Time in
    /// which the stream waits for the server does not count: [`query_timeout`](Self::query_timeout) bounds it. The pool
    /// checks eight times within this limit, so the stream may end late by an eighth of it.
    ///
    /// While streams hold all connections and their readers are too slow for a newcomer to be served in time, the pool
    /// refuses newcomers at once with [`ShedReason::Unread`](crate::ShedReason::Unread).
    pub fn stream_idle_timeout(mut self, stream_idle_timeout: Duration) -> Self {
        self.stream_idle_timeout = stream_idle_timeout;
        self
    }

    /// How many prepared statements each connection caches. The least recently used one is dropped first. 0 to 100,000.
    /// Default 256. Statements of more than 16 KB are not cached.
    ///
    /// With 0, nothing stays prepared, as with [`Call::uncached`](crate::Call::uncached). Use 0 behind a pooler in
    /// transaction mode that does not track prepared statements (PgBouncer with `max_prepared_statements = 0`). There,
    /// [`Client::prepare`](crate::Client::prepare) works only within a transaction.
    pub fn statement_cache(mut self, statements: usize) -> Self {
        self.statement_cache = statements;
        self
    }

    /// When the circuit breaker opens, and for how long. Default: it opens when 50% of at least 10 calls within 10 s
    /// have failed, or at least 10 calls in a row, for a second or longer. It stays open for 30 to 33 s, or until a
    /// server that could not be reached answers again. Then one caller may try, and its success closes it. Dials and
    /// statements count; calls that the pool itself refused do not.
    pub fn breaker(mut self, config: BreakerConfig) -> Self {
        self.breaker = config;
        self
    }

    /// Lets a state machine of the failsafe crate replace the pool's circuit breaker, for services that already have
    /// one. Feature `failsafe`. The state machine gets the same outcomes as the pool's own breaker, and failed dials.
    /// [`RollingWindow`](crate::breaker::RollingWindow) is the pool's policy for it. A clone of the state machine
    /// remains a handle to it.
    ///
    /// [`Pool::breaker`] is then disabled, with that reason. Orders by hand, such as `force_open`, still hold. failsafe
    /// lacks some abilities of the pool's own breaker:
    ///
    /// - A half-open machine lets every caller through until the first result. The pool's own breaker lets one through.
    /// - When the machine opens, waiting callers stay in the queue. Each is refused when it gets a connection.
    /// - While the machine is open, the pool does not check the server, so only callers find out that it is back.
    /// - `retry_after` of [`Error::CircuitOpen`](crate::Error::CircuitOpen) is the
    ///   [`reset_timeout`](BreakerConfig::reset_timeout) of [`breaker`](Self::breaker), whatever the machine's is.
    /// - Slow calls that succeed are successes.
    ///
    /// ```
    /// # fn example(config: failfast::Config) -> failfast::PoolBuilder {
    /// use std::time::Duration;
    ///
    /// use failsafe::{StateMachine, backoff, failure_policy};
    ///
    /// let backoff = backoff::equal_jittered(Duration::from_secs(10), Duration::from_secs(300));
    /// let machine = StateMachine::new(failure_policy::consecutive_failures(5, backoff), ());
    /// failfast::Pool::builder(config).breaker_with(machine)
    /// # }
    /// ```
    #[cfg(any(feature = "failsafe", test))]
    pub fn breaker_with<P, I>(mut self, machine: failsafe::StateMachine<P, I>) -> Self
    where
        P: failsafe::FailurePolicy + Send + 'static,
        I: failsafe::Instrument + Send + Sync + 'static,
    {
        self.machine = Some(Arc::new(machine));
        self
    }

    /// Overrides which errors count as failures of the database. The hook returns `Some(true)` for a failure,
    /// `Some(false)` for an error that shows that the database is well, and `None` to leave the decision to the pool.
    /// By default, lost connections, dials that do not reach the server, timeouts and errors that say that the server
    /// lacks resources (SQLSTATE class 53, except 53400) are failures. Every other error that the session survives
    /// counts as a success. A hook that panics counts as `None`.
    pub fn is_failure(mut self, is_failure: impl Fn(&Error) -> Option<bool> + Send + Sync + 'static) -> Self {
        self.is_failure = Some(IsFailure::new(is_failure));
        self
    }

    /// What the pool retries, how often and when. Default: see [`RetryConfig`].
    pub fn retry(mut self, config: RetryConfig) -> Self {
        self.retry = config;
        self
    }

    /// Limits how much the calls of a lane may use ([`Call::lane`](crate::Call::lane)). A later rate of the same lane
    /// replaces it. Default: no limit. Listeners ([`Pool::listen`]) have no rate.
    pub fn rate(mut self, lane: Lane, rate: Rate) -> Self {
        self.rates[lane as usize] = Some(rate);
        self
    }

    /// Limits how much the calls with this name may use ([`Call::name`](crate::Call::name)), whatever their lane. The
    /// rate of their lane holds, too. A later rate of the same name replaces it. Default: no limit.
    pub fn rate_of(mut self, operation: impl Into<String>, rate: Rate) -> Self {
        self.rates_of.insert(operation.into(), rate);
        self
    }

    /// Adds an observer, which gets every [`Event`](crate::Event): what an operator wants to know. There may be
    /// several. Default: none. [`Pool::events`] returns the same events as a stream.
    ///
    /// ```
    /// # fn example(config: failfast::Config) -> failfast::PoolBuilder {
    /// failfast::Pool::builder(config).observer(|event: &failfast::Event| eprintln!("{} {event}", event.severity()))
    /// # }
    /// ```
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.add(observer);
        self
    }

    /// Records this pool's [`metrics`](crate::metrics) with `recorder`, which may be an `Arc`. Default: the recorder
    /// that the process installs for the `metrics` crate, before or after this call. Feature `metrics`.
    #[cfg(feature = "metrics")]
    pub fn recorder(mut self, recorder: impl crate::metrics::Recorder + Send + Sync + 'static) -> Self {
        self.recorder = Given::new(recorder);
        self
    }

    /// How long a connection may be held before the pool reports a suspected leak
    /// ([`EventKind::LeakSuspected`](crate::EventKind::LeakSuspected)). The event names the place in the code that took
    /// the connection. There is at most one event in 30 s for each place. More than 0, at most 30 days; `None` means
    /// never. Default 60 s.
    pub fn leak_detection_threshold(mut self, threshold: impl Into<Option<Duration>>) -> Self {
        self.leak_detection_threshold = threshold.into();
        self
    }

    /// Whether the pool captures a backtrace each time a connection is taken, for
    /// [`LeakSuspected`](crate::EventKind::LeakSuspected). For debugging: a backtrace costs tens of microseconds.
    /// Default: no.
    pub fn leak_backtraces(mut self, are_kept: bool) -> Self {
        self.leak_backtraces = are_kept;
        self
    }

    /// Reports when more than `statements` statements have been running for longer than `than`
    /// ([`EventKind::LongRunning`](crate::EventKind::LongRunning)). The time is more than 0, at most 24 hours. Default:
    /// more than 5 statements, longer than 10 s.
    pub fn long_running(mut self, statements: usize, than: Duration) -> Self {
        self.long_running = (statements, than);
        self
    }

    /// How long the pool may be without an answer from the database before it is no longer [`ready`](Pool::ready). It
    /// does not matter whether the database is silent, or callers hold all connections and run no statement on them.
    /// More than 0, at most 24 hours. Default 10 s.
    pub fn unready_after(mut self, silence: Duration) -> Self {
        self.unready_after = silence;
        self
    }

    /// When the pool resets the state of a session before the next caller gets the connection. Default
    /// [`Reset::WhenSeen`].
    pub fn reset(mut self, reset: Reset) -> Self {
        self.reset = reset;
        self
    }

    /// Timeouts that the server enforces, sent as startup options. Default: none; the pool stops statements by cancel
    /// requests.
    pub fn server_timeouts(mut self, server_timeouts: ServerTimeouts) -> Self {
        self.server_timeouts = Some(server_timeouts);
        self
    }

    /// How long it may take to make one connection: the credentials provider, name resolution, all hosts, TLS,
    /// authentication, and [`after_connect`](Self::after_connect). More than 0, at most 24 hours. Default 5 s.
    ///
    /// With several hosts, each gets its share of the time that is left, so a silent host leaves time for the others.
    /// The connection string's own `connect_timeout` (seconds; default none) bounds the TCP connect of each address
    /// within that.
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// Limits what the callers of a lane may use. Default: [`LaneLimits::of`] the lane, from the first call on that is
    /// in another lane than [`Lane::Normal`].
    pub fn lane_limits(mut self, lane: Lane, limits: LaneLimits) -> Self {
        self.lanes[lane as usize] = Some(limits);
        self
    }

    /// Sets the lane of all calls of the operation with this [name](crate::Call::name), whatever lane they ask for.
    /// [`Pool::set_lane`] changes it at run time. At most 1,000 operations. Default: [`Call::lane`](crate::Call::lane).
    pub fn lane_of(mut self, operation: impl Into<String>, lane: Lane) -> Self {
        self.lane_names.insert(operation.into(), lane);
        self
    }

    /// Makes the pool a member of a fleet: processes that share a server divide its connections, without a coordinator.
    /// [`max_size`](Self::max_size) stays the limit of this pool. The fleet decides which part of it the pool may use
    /// at present, by what each member needs. Feature `fleet`. Default: no fleet.
    ///
    /// - The pool has one more connection, beside `max_size`. Its `application_name` shows the other members what the
    ///   pool wants and has. On it the pool reads theirs: every 2 s, and more seldom in a large fleet.
    /// - All connections of the pool begin with TCP keepalives, so that the server notices a vanished client within
    ///   about 20 s. `options` in the connection string override them.
    /// - Behind a pooler there is no fleet. The pool then uses all of `max_size`, and the event
    ///   [`FleetOff`](crate::EventKind::FleetOff) says so.
    ///
    /// `docs/fleet.md` has the sizing.
    #[cfg(feature = "fleet")]
    pub fn fleet(mut self, fleet: FleetConfig) -> Self {
        self.fleet = Some(fleet);
        self
    }

    /// Sets whether the pool's limit follows the database. Feature `fleet`. Default: [`Adaptive::Off`], which costs
    /// nothing.
    ///
    /// With [`Adaptive::Act`] the pool uses fewer connections while the server is saturated, and more of `max_size`
    /// while callers wait and the server can do more. It asks why leases take longer before it changes anything. If one
    /// operation holds up the others, or waits for locks of the database, only that operation is limited: calls beyond
    /// its usual concurrency are refused at once, for the reason
    /// [`ShedReason::RateLimited`](crate::ShedReason::RateLimited). With [`Adaptive::Advise`] the pool says all that
    /// and changes nothing.
    ///
    /// It decides every 2 s, and only if 50 leases have ended in them. It never exceeds [`max_size`](Self::max_size) or
    /// what a [fleet](Self::fleet) grants, never shrinks below the largest of 2, [`min_idle`](Self::min_idle) and a
    /// quarter of `max_size`, never ends a lease or closes a connection in use, and never serves less in order to
    /// measure. While leases take longer than usual, the pool has one more connection, which asks once a second what
    /// the server's processes wait for.
    ///
    /// Each advice is an event ([`LimitAdvised`](crate::EventKind::LimitAdvised),
    /// [`LimitChanged`](crate::EventKind::LimitChanged), [`LockBound`](crate::EventKind::LockBound),
    /// [`HeldByCaller`](crate::EventKind::HeldByCaller)), and stands in `Status::adaptive`. `docs/fleet.md` has the
    /// rules.
    #[cfg(feature = "fleet")]
    pub fn adaptive(mut self, adaptive: Adaptive) -> Self {
        self.adaptive = adaptive;
        self
    }

    /// How many connections the pool may use at first with [`Adaptive::Act`]. It grows from there up to
    /// [`max_size`](Self::max_size), by a tenth at a time, while callers wait and throughput rises with it.
    /// [`min_idle`](Self::min_idle) (at least 1) to `max_size`. Default: `max_size`, so that the pool begins as one
    /// without this and only shrinks when the server is saturated. Feature `fleet`.
    #[cfg(feature = "fleet")]
    pub fn adaptive_start(mut self, connections: usize) -> Self {
        self.adaptive_start = Some(connections);
        self
    }

    /// Sets the runtime on which the pool dials. Its connections and its [listeners](crate::Pool::listen) live there,
    /// also while other runtimes use them. Default: the runtime of the caller that wants the dial.
    ///
    /// For a pool that several runtimes share, one after the other: that of each `#[tokio::test]`, or of each worker.
    /// Connections end with their runtime. If the named runtime ends, the pool goes on with one of its callers.
    ///
    /// Name a runtime that always runs: one of several threads (`Builder::new_multi_thread`), of which one worker
    /// suffices. A runtime of the current thread runs only within `block_on`. Between two of them, all that lives on it
    /// stands still: a statement on its connections gets no answer, and a dial keeps its slot beyond
    /// [`connect_timeout`](Self::connect_timeout), so that callers on other runtimes wait for it until their own
    /// timeout. The pool takes such a runtime for a slow one, because it cannot know when somebody will drive it again.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Asks `provider` for credentials before each connection is made, within
    /// [`connect_timeout`](Self::connect_timeout). For passwords that change and tokens that expire. Existing
    /// connections stay. Default: the credentials of the connection string.
    ///
    /// An error of `provider` becomes the source of the [`ConnectError`](crate::ConnectError). The pool never logs it.
    ///
    /// ```
    /// # use failfast::{Credentials, Pool};
    /// # fn example(config: failfast::Config) -> failfast::PoolBuilder {
    /// Pool::builder(config).credentials(|| async {
    ///     let password = tokio::fs::read_to_string("/run/secrets/db").await?;
    ///     Ok(Credentials::password(password.trim_end()))
    /// })
    /// # }
    /// ```
    pub fn credentials<F, A>(mut self, provider: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<Credentials, Box<dyn StdError + Send + Sync>>> + Send + 'static,
    {
        self.hooks.set_credentials(provider);
        self
    }

    /// Runs `hook` on each new connection before a caller gets it, within [`connect_timeout`](Self::connect_timeout).
    /// If the hook fails, the pool closes the connection and tries the next host. The hook runs again on a connection
    /// whose session was [reset](Self::reset). Default: no hook.
    ///
    /// The hook has to end its transactions and to await its requests. If it leaves a transaction open, in which the
    /// first caller's writes would be lost, or an unfinished COPY, it has failed, and the text of
    /// [`ConnectErrorKind::AfterConnect`](crate::ConnectErrorKind::AfterConnect) names what it left. The pool waits for
    /// the rest of a stream that the hook did not read to its end, within the same `connect_timeout`.
    ///
    /// ```
    /// # use failfast::Pool;
    /// # fn example(config: failfast::Config) -> failfast::PoolBuilder {
    /// Pool::builder(config).after_connect(|client| {
    ///     Box::pin(async move { client.batch_execute("SET search_path = orders; SET jit = off").await })
    /// })
    /// # }
    /// ```
    pub fn after_connect<F>(mut self, hook: F) -> Self
    where
        F: Send + Sync + 'static,
        F: for<'a> Fn(&'a Object) -> Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send + 'a>>,
    {
        self.hooks.set_after_connect(hook);
        self
    }

    /// Validates every setting and creates the pool. It waits for no connection. Within a runtime, the pool makes
    /// [`min_idle`](Self::min_idle) connections in the background; the first callers open the others.
    ///
    /// The pool uses no TLS, even if the server offers it under `sslmode=prefer`, the default of the connection string.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first setting that cannot be used. `sslmode=require` is one: see
    /// [`build_tls`](Self::build_tls).
    pub fn build(self) -> Result<Pool, ConfigError> {
        self.finish(Connector::none())
    }

    /// As [`build`](Self::build), with TLS by any connector made for tokio-postgres. The module `tls` has ready
    /// connectors, under the features `rustls` and `native-tls`.
    ///
    /// The connection string's `sslmode` decides whether TLS is used: `require` insists on it, `prefer` (the default)
    /// connects without TLS if the server offers none, `disable` never asks for it. The connector verifies the server's
    /// certificate, also under `prefer`. The ready connectors require a known authority and a certificate for the host,
    /// or what the connection string says ([`Pool::builder_by_url`]). Unix sockets have no TLS.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first setting that cannot be used.
    pub fn build_tls<T>(self, tls: T) -> Result<Pool, ConfigError>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        self.place.check()?; // before an error can show a part of a password
        let tls = tls::following(tls, &self.place.tls)?;
        self.finish(Connector::new(tls))
    }
}

#[cfg(test)]
mod tests;

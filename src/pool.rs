//! The facade. It delegates only.

use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::{BorrowToSql, ToSql, Type};
use tokio_postgres::{Row, SimpleQueryMessage};

use crate::breaker::CircuitBreaker;
use crate::call::{Call, Shared};
use crate::conn::{Client, RowStream, Transaction};
use crate::error::{ConfigError, Error};
use crate::event::EventKind;
use crate::maintenance::NotReady;
use crate::status::Status;
use crate::telemetry::Events;

/// A pool of connections to PostgreSQL that answers in time: with a connection, or with the reason why not.
///
/// Cloning is cheap; all clones are one pool. When the last clone is gone the pool is closed; a [`Client`] still held stays alive.
///
/// **Fairness.** Callers are served in the order in which they asked, by whichever comes first: a connection given back or one newly
/// made. It is handed over directly, so nobody can cut in.
///
/// **Cancel safety.** Every future may be dropped at any await: its place in the queue is given up at once, a connection that was
/// just handed to it goes to the next, and a dial that was begun for it goes on, for whoever comes next.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// A connection, waiting for one at most [`acquire_timeout`](crate::PoolBuilder::acquire_timeout).
    ///
    /// # Errors
    ///
    /// - [`Error::Shed`] at once, if [`max_waiting`](crate::PoolBuilder::max_waiting) callers wait already.
    /// - [`Error::Connect`] if nothing is connected and dials fail, with the reason and when to come back.
    /// - [`Error::AcquireTimeout`] when the time is up.
    /// - [`Error::Closed`] once the pool is closed.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with its timers and I/O enabled, if no connection is idle.
    #[track_caller]
    pub fn get(&self) -> impl Future<Output = Result<Client, Error>> {
        let taken = Location::caller();
        self.shared.acquire(
            move |shared| shared.options(taken),
            |shared, asked| shared.wait_policy(asked, shared.acquire_timeout),
        )
    }

    /// [`get`](Self::get) with a timeout of its own.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    #[track_caller]
    pub fn get_timeout(&self, timeout: Duration) -> impl Future<Output = Result<Client, Error>> {
        let taken = Location::caller();
        self.shared
            .acquire(move |shared| shared.options(taken), move |shared, asked| shared.wait_policy(asked, timeout))
    }

    /// An idle connection, if there is one. Never waits. If there is none, and room for one, it is made in the background for those who
    /// come later.
    ///
    /// # Errors
    ///
    /// [`Error::Shed`] if none is idle, [`Error::Closed`] once the pool is closed.
    #[track_caller]
    pub fn try_get(&self) -> Result<Client, Error> {
        self.shared.try_acquire(Location::caller())
    }

    /// One call with settings of its own: a deadline for the whole, or another rule of refusal.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn example(pool: failfast::Pool, id: i64) -> Result<(), failfast::Error> {
    /// let call = pool.call().deadline(Duration::from_millis(250));
    /// call.execute("UPDATE items SET seen = now() WHERE id = $1", &[&id]).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn call(&self) -> Call<'_> {
        Call::new(&self.shared, Location::caller())
    }

    /// Runs a statement on a connection of its own and collects its rows: taken as [`get`](Self::get) does, bounded by
    /// [`query_timeout`](crate::PoolBuilder::query_timeout), given back. Late, or dropped, it is stopped on the server.
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
    /// let names = pool.query("SELECT name FROM items WHERE stock > $1", &[&0_i32]).await?;
    /// for row in &names {
    ///     println!("{}", row.get::<_, &str>("name"));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); and [`Error::QueryTimeout`] or [`Error::Postgres`].
    #[track_caller]
    pub fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> impl Future<Output = Result<Vec<Row>, Error>> {
        self.call().query(sql, params)
    }

    /// [`query`](Self::query) for exactly one row. None, or more than one, is an error.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    #[track_caller]
    pub fn query_one(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> impl Future<Output = Result<Row, Error>> {
        self.call().query_one(sql, params)
    }

    /// [`query`](Self::query) for one row or none. More than one is an error.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    #[track_caller]
    pub fn query_opt(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<Option<Row>, Error>> {
        self.call().query_opt(sql, params)
    }

    /// [`query`](Self::query) that tells how many rows were changed.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    #[track_caller]
    pub fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> impl Future<Output = Result<u64, Error>> {
        self.call().execute(sql, params)
    }

    /// [`query`](Self::query) that streams the rows. The stream keeps the connection until it ends or is dropped; the query timeout bounds the
    /// wait for each row.
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
    /// use std::pin::pin;
    ///
    /// use futures_util::TryStreamExt;
    ///
    /// let mut rows = pin!(pool.query_raw("SELECT name FROM items WHERE stock > $1", [0_i32]).await?);
    /// while let Some(row) = rows.try_next().await? {
    ///     println!("{}", row.get::<_, &str>(0));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    #[track_caller]
    pub fn query_raw<P, I>(&self, sql: &str, params: I) -> impl Future<Output = Result<RowStream<'static>, Error>>
    where
        P: BorrowToSql,
        I: IntoIterator<Item = P>,
        I::IntoIter: ExactSizeIterator,
    {
        self.call().query_raw(sql, params)
    }

    /// [`query`](Self::query) with the types of its parameters, in one message group: nothing is prepared and kept.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    #[track_caller]
    pub fn query_typed(
        &self,
        sql: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> impl Future<Output = Result<Vec<Row>, Error>> {
        self.call().query_typed(sql, params)
    }

    /// Runs statements without parameters, as text, in one go. Unless they say otherwise they are one transaction.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    #[track_caller]
    pub fn batch_execute(&self, sql: &str) -> impl Future<Output = Result<(), Error>> {
        self.call().batch_execute(sql)
    }

    /// As [`batch_execute`](Self::batch_execute), with the rows, as text.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    #[track_caller]
    pub fn simple_query(&self, sql: &str) -> impl Future<Output = Result<Vec<SimpleQueryMessage>, Error>> {
        self.call().simple_query(sql)
    }

    /// Runs `work` in a transaction. **It may run several times**: see [`Call::transaction`].
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
    /// pool.transaction(|tx| async move {
    ///     tx.execute("UPDATE items SET stock = stock - 1 WHERE id = 1", &[]).await?;
    ///     tx.execute("INSERT INTO orders (item) VALUES (1)", &[]).await
    /// })
    /// .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// What `work` returns; as [`get`](Self::get); and as [`Transaction::commit`].
    #[track_caller]
    pub fn transaction<T, E, F, Fut>(&self, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.call().transaction(work)
    }

    /// Runs `work` in a transaction, once, whatever happens: see [`Call::transaction_once`].
    ///
    /// # Errors
    ///
    /// As [`transaction`](Self::transaction).
    #[track_caller]
    pub fn transaction_once<T, E, F, Fut>(&self, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: FnOnce(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.call().transaction_once(work)
    }

    /// Runs `work` with a connection of its own, for several statements on one lease. **It may run several times**: see [`Call::run`].
    ///
    /// # Errors
    ///
    /// What `work` returns; and as [`get`](Self::get).
    #[track_caller]
    pub fn run<T, E, F, Fut>(&self, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.call().run(work)
    }

    /// The circuit breaker: its state, its rates and its history; and to force it open, to reset it or to disable it, each with a reason.
    ///
    /// ```no_run
    /// # fn example(pool: failfast::Pool) {
    /// println!("{}", pool.breaker().snapshot());
    /// pool.breaker().force_open("the primary is being replaced");
    /// # }
    /// ```
    pub fn breaker(&self) -> &CircuitBreaker {
        self.shared.recorder.breaker()
    }

    /// What happens to this pool, as a stream: from now on, the last 1,024 events that were not read. An [`observer`](crate::PoolBuilder::observer) is told
    /// at once, and of what came before.
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
    /// let mut events = pool.events();
    /// tokio::spawn(async move {
    ///     while let Some(event) = events.next().await {
    ///         eprintln!("{} {event}", event.severity());
    ///     }
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn events(&self) -> Events {
        self.shared.maintenance.reports.telemetry.events()
    }

    /// Whether traffic should be sent here, for a readiness probe. Answers at once, from what is known: when the database last answered a caller, a dial or a
    /// look of the pool's own, which it takes while somebody asks; a quarter of a second late at most. A pool that refuses callers because there are too many is ready; one that is being
    /// drained is not.
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
    /// let answer = match pool.ready() {
    ///     Ok(()) => (200, "ready".to_owned()),
    ///     Err(reason) => (503, reason.to_string()),
    /// };
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`NotReady`]: closed or draining; no answer yet; no answer for longer than [`unready_after`](crate::PoolBuilder::unready_after); all connections held
    /// for as long, with no statement running.
    pub fn ready(&self) -> Result<(), NotReady> {
        self.shared.maintenance.ready()
    }

    /// Gives a reason for what is done next, for the record: it is in the event.
    ///
    /// ```no_run
    /// # fn example(pool: failfast::Pool) {
    /// pool.because("the password was rotated").flush();
    /// # }
    /// ```
    pub fn because(&self, reason: impl Into<Arc<str>>) -> PoolOrder<'_> {
        PoolOrder { pool: self, reason: Some(reason.into()) }
    }

    fn order(&self) -> PoolOrder<'_> {
        PoolOrder { pool: self, reason: None }
    }

    /// Changes the most connections to 1 to 262,143. Connections beyond a smaller limit are closed: idle ones now, others when they
    /// are given back; no lease is cut off.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for a size out of range; the pool stays as it is.
    #[track_caller]
    pub fn resize(&self, max_size: usize) -> Result<(), ConfigError> {
        self.order().resize(max_size)
    }

    /// Retires every connection made so far: idle ones now, others when they are given back, and those being made when they are ready. For
    /// a change of credentials or of the server behind the name.
    ///
    /// Connections in use forget their prepared statements and what they have learned of types at their next statement.
    #[track_caller]
    pub fn flush(&self) {
        self.order().flush();
    }

    /// Waits until `connections` (at most `max_size`) are idle or in use, dialing what is missing, so that the first callers need not.
    /// Failed dials are tried again.
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
    /// // A server that is down is no reason not to start.
    /// if let Err(error) = pool.warm_up(4, std::time::Duration::from_secs(5)).await {
    ///     eprintln!("{error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// At the deadline, [`Error::Connect`] if dials failed, else [`Error::AcquireTimeout`]; [`Error::Closed`] if the pool is closed.
    pub async fn warm_up(&self, connections: usize, within: Duration) -> Result<(), Error> {
        self.shared.warm_up(connections, within).await
    }

    /// The end of a service: refuses newcomers with [`Error::Closed`], serves those who wait already, and closes the pool when every
    /// connection has been given back, or after `within`. Tells how many had not been given back by then.
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
    /// let left = pool.drain(std::time::Duration::from_secs(10)).await;
    /// if left > 0 {
    ///     eprintln!("{left} connections were not given back");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn drain(&self, within: Duration) -> impl Future<Output = usize> {
        self.order().drain(within)
    }

    /// How many connections and callers there are right now, counted in one instant.
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
    /// let status = pool.status();
    /// println!("{status}"); // pool orders: 95% in use (19/20), 1 idle, 127 waiting
    /// if status.demand.is_some_and(|demand| demand > status.max_size as f64) {
    ///     println!("more is asked than the pool can do");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Closes the pool: everybody who waits gets [`Error::Closed`] now, everybody who asks from now on as well. Idle connections
    /// are closed now, others when they are given back. Closing twice does nothing more.
    pub fn close(&self) {
        self.shared.slots.close();
    }

    /// Whether [`close`](Self::close) or [`drain`](Self::drain) was called.
    pub fn is_closed(&self) -> bool {
        !self.shared.slots.counts().is_open
    }
}

/// An order to a [`Pool`], with a reason. Made by [`Pool::because`].
#[derive(Debug)]
#[must_use = "a reason alone does nothing"]
pub struct PoolOrder<'a> {
    pool: &'a Pool,
    reason: Option<Arc<str>>,
}

impl<'a> PoolOrder<'a> {
    /// As [`Pool::resize`].
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn resize(self, max_size: usize) -> Result<(), ConfigError> {
        check_max_size(max_size)?;
        let (slots, by, reason) = (&self.pool.shared.slots, Location::caller(), self.reason);
        let from = slots.resize(max_size);
        self.pool.shared.tell(EventKind::Resized { from, to: max_size, by, reason });
        Ok(())
    }

    /// As [`Pool::flush`].
    #[track_caller]
    pub fn flush(self) {
        self.pool.shared.slots.flush();
        self.pool.shared.slots.try_at_once();
        self.pool.shared.tell(EventKind::Flushed { by: Location::caller(), reason: self.reason });
    }

    /// As [`Pool::drain`].
    #[track_caller]
    pub fn drain(self, within: Duration) -> impl Future<Output = usize> + use<'a> {
        let (shared, by) = (&self.pool.shared, Location::caller());
        async move {
            shared.tell(EventKind::Draining { by, reason: self.reason });
            shared.drain(within).await
        }
    }
}

/// PostgreSQL's own upper bound of `max_connections`.
const MOST_CONNECTIONS: usize = 262_143;

pub(crate) fn check_max_size(max_size: usize) -> Result<(), ConfigError> {
    if (1..=MOST_CONNECTIONS).contains(&max_size) {
        return Ok(());
    }
    Err(ConfigError::new("max_size", max_size, "must be 1 to 262143"))
}

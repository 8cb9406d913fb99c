//! The pool as its users see it. Each method delegates: to a [`Call`], to the slots, or to the maintenance.

mod bulk;
mod ddl;

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
use crate::holder::Holder;
use crate::maintenance::NotReady;
use crate::policy::Lane;
use crate::slots::MOST_CONNECTIONS;
use crate::status::Status;
use crate::telemetry::Events;

/// A pool of connections to PostgreSQL that answers in time: with a connection, or with the reason why there is none.
///
/// Cloning is cheap; all clones are one pool. The pool is closed when its last clone is dropped. A [`Client`] that is
/// still held stays usable.
///
/// **Fairness.** Callers are served in the order in which they asked, within a [`Lane`]. The first waiter gets the next
/// connection that is given back or newly made. The pool hands it over directly, so no newcomer can take it first.
///
/// **Cancel safety.** Every future may be dropped at any await. Its place in the queue is then free at once. A
/// connection that was just handed to it goes to the next waiter. A dial that was begun for it continues for the next
/// caller.
#[derive(Debug, Clone)]
pub struct Pool {
    pub(crate) shared: Arc<Shared>,
}

impl Pool {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// Takes a connection. Waits at most [`acquire_timeout`](crate::PoolBuilder::acquire_timeout).
    ///
    /// # Errors
    ///
    /// - [`Error::Shed`] at once, if the caller could not be served in time, or
    ///   [`max_waiting`](crate::PoolBuilder::max_waiting) callers wait already.
    /// - [`Error::CircuitOpen`] at once, while the circuit breaker is open.
    /// - [`Error::Connect`] if nothing is connected and dials fail, with the reason and when to come back.
    /// - [`Error::AcquireTimeout`] when the time is up.
    /// - [`Error::Closed`] once the pool is closed.
    ///
    /// # Panics
    ///
    /// If no connection is idle, outside a Tokio runtime with timers and I/O enabled.
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

    /// Takes an idle connection, if there is one. Never waits. If none is idle, the pool makes one in the background
    /// for later callers, up to `max_size`.
    ///
    /// # Errors
    ///
    /// [`Error::Shed`] if none is idle, or if the lane [`Lane::Normal`], in which it always asks, has used up its rate.
    /// [`Error::CircuitOpen`] while the circuit is open, [`Error::Closed`] once the pool is closed.
    #[track_caller]
    pub fn try_get(&self) -> Result<Client, Error> {
        self.shared.try_acquire(Location::caller())
    }

    /// Starts a call with settings of its own, such as a deadline for the whole call.
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

    /// Starts a call in a lane: `pool.lane(Lane::Critical).get()`. As [`call`](Self::call) and [`Call::lane`].
    #[track_caller]
    pub fn lane(&self, lane: Lane) -> Call<'_> {
        Call::new(&self.shared, Location::caller()).lane(lane)
    }

    /// Runs a statement on a connection of its own and collects its rows. The connection is taken as [`get`](Self::get)
    /// does and given back afterwards. [`query_timeout`](crate::PoolBuilder::query_timeout) bounds the statement. If it
    /// is late, or the future is dropped, the pool stops it on the server.
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
    /// As [`get`](Self::get), and [`Error::QueryTimeout`] or [`Error::Postgres`].
    #[track_caller]
    pub fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> impl Future<Output = Result<Vec<Row>, Error>> {
        self.call().query(sql, params)
    }

    /// [`query`](Self::query) that returns the only row. No row, or more than one, is an error.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    #[track_caller]
    pub fn query_one(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> impl Future<Output = Result<Row, Error>> {
        self.call().query_one(sql, params)
    }

    /// [`query`](Self::query) that returns the row, or `None` without one. More than one row is an error.
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

    /// [`query`](Self::query) that returns the number of rows changed.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    #[track_caller]
    pub fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> impl Future<Output = Result<u64, Error>> {
        self.call().execute(sql, params)
    }

    /// [`query`](Self::query) that streams the rows. The stream owns the connection until it ends or is dropped. The
    /// query timeout bounds each wait for a row.
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

    /// [`query`](Self::query) in one message group, with the given types of the parameters. No prepared statement stays
    /// on the connection. [`Call::query_typed`] says what it does with many rows of a type of your own.
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

    /// Runs statements without parameters in one round trip. They are one transaction unless they contain transaction
    /// commands.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    #[track_caller]
    pub fn batch_execute(&self, sql: &str) -> impl Future<Output = Result<(), Error>> {
        self.call().batch_execute(sql)
    }

    /// [`batch_execute`](Self::batch_execute) that returns the rows, with their values as text.
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
    /// pool.transaction(async |tx| {
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
    /// The errors of `work`, of [`get`](Self::get), and of [`Transaction::commit`].
    #[track_caller]
    pub fn transaction<T, E, F, Fut>(&self, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.call().transaction(work)
    }

    /// Runs `work` in a transaction, and never again: see [`Call::transaction_once`].
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

    /// Runs `work` with a connection of its own, for several statements on one lease. **It may run several times**: see
    /// [`Call::run`].
    ///
    /// # Errors
    ///
    /// The errors of `work` and of [`get`](Self::get).
    #[track_caller]
    pub fn run<T, E, F, Fut>(&self, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.call().run(work)
    }

    /// The pool's circuit breaker. It shows its state, rates and history, and can be forced open, reset or disabled,
    /// each with a reason.
    ///
    /// ```no_run
    /// # fn example(pool: failfast::Pool) {
    /// println!("{}", pool.breaker().snapshot());
    /// pool.breaker().force_open("the primary is being replaced");
    /// # }
    /// ```
    pub fn breaker(&self) -> &CircuitBreaker {
        self.shared.recorder.breaker().own()
    }

    /// Returns a stream of this pool's events, from now on. It keeps the last 1,024 unread events. An
    /// [`observer`](crate::PoolBuilder::observer) gets each event at once, from the start of the pool.
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

    /// Returns whether this service should get traffic, for a readiness probe. Never waits: the answer is at most a
    /// quarter of a second old. The pool knows when the database last answered a caller or a dial. While readiness is
    /// asked for, the pool also checks the database by itself. An overloaded pool is ready. A pool that is being
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
    /// [`NotReady`], if the pool is closed or draining, or the database has not answered yet. After
    /// [`unready_after`](crate::PoolBuilder::unready_after) also if the database has stopped answering, or all
    /// connections are held without a statement running.
    pub fn ready(&self) -> Result<(), NotReady> {
        self.shared.maintenance.ready()
    }

    /// Gives the reason for the next order: [`resize`](PoolOrder::resize), [`set_lane`](PoolOrder::set_lane),
    /// [`flush`](PoolOrder::flush) or [`drain`](PoolOrder::drain). The order's event shows the reason.
    ///
    /// ```no_run
    /// # fn example(pool: failfast::Pool) {
    /// pool.because("the password was rotated").flush();
    /// # }
    /// ```
    pub fn because(&self, reason: impl Into<Arc<str>>) -> PoolOrder<'_> {
        PoolOrder::new(self, Some(reason.into()))
    }

    fn order(&self) -> PoolOrder<'_> {
        PoolOrder::new(self, None)
    }

    /// Changes the maximum number of connections, 1 to 262,143. A fleet grants a part of it, as before. A limit that
    /// follows the database stays where it is, unless it was all of it. If the new limit is smaller, the pool closes
    /// idle connections now and others when they are given back. It interrupts no lease.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for a size out of range. The pool stays as it is.
    #[track_caller]
    pub fn resize(&self, max_size: usize) -> Result<(), ConfigError> {
        self.order().resize(max_size)
    }

    /// Moves all calls of the operation with this [name](Call::name) to a lane, from their next attempt on, whatever
    /// lane they ask for. It is an event, with the reason if there is one ([`because`](Self::because)).
    /// [`reset_lane`](Self::reset_lane) undoes it.
    ///
    /// ```
    /// # fn example(pool: failfast::Pool) -> Result<(), failfast::ConfigError> {
    /// use failfast::Lane;
    /// pool.because("the nightly report delays logins").set_lane("report", Lane::Background)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if 1,000 other operations have a lane.
    #[track_caller]
    pub fn set_lane(&self, operation: &str, lane: Lane) -> Result<(), ConfigError> {
        self.order().set_lane(operation, lane)
    }

    /// Gives the operation the lane back that it had when the pool was built: that of
    /// [`PoolBuilder::lane_of`](crate::PoolBuilder::lane_of), else the one that each call asks for.
    #[track_caller]
    pub fn reset_lane(&self, operation: &str) {
        self.order().reset_lane(operation);
    }

    /// Retires every existing connection: idle ones now, those in use when they are given back, and those being dialed
    /// when they are ready. Flush after a change of the credentials, or of the server behind the name.
    ///
    /// At its next statement, a connection in use forgets its prepared statements and all types that it has learned.
    #[track_caller]
    pub fn flush(&self) {
        self.order().flush();
    }

    /// Dials connections until `connections` of them (at most `max_size`) are idle or in use, so that the first callers
    /// need not wait. Retries failed dials until `within` has passed. If the future is dropped, dials that have begun
    /// continue.
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
    /// After `within`, [`Error::Connect`] if dials failed, otherwise [`Error::AcquireTimeout`]. [`Error::Closed`] if
    /// the pool is closed.
    pub async fn warm_up(&self, connections: usize, within: Duration) -> Result<(), Error> {
        self.shared.warm_up(connections, within).await
    }

    /// Shuts the pool down gracefully. The pool refuses newcomers with [`Error::Closed`] and serves the callers that
    /// wait already. It closes when every connection has been given back, or after `within`. Returns how many
    /// connections had not been given back by then.
    ///
    /// It returns when the server has ended the sessions of all other connections, and at most a second after `within`:
    /// a silent server does not keep it longer. So a database can be dropped right afterwards. It does not wait for the
    /// connections of [listeners](Self::listen), of a fleet and of dials that the end cuts short, nor for those that
    /// were being closed when it began or whose statement could not be stopped. Behind a pooler, the pooler's own
    /// sessions stay.
    ///
    /// # Cancel safety
    ///
    /// It begins when the future is first polled. If the future is dropped after that, the pool closes at once.
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

    /// Returns a consistent snapshot of how many connections and callers there are.
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
    /// let status = pool.status();
    /// println!("{status}"); // pool orders: 95% in use (19/20), 1 idle, 127 waiting
    /// if status.demand.is_some_and(|demand| demand > status.max_size as f64) {
    ///     println!("the callers need more connections than the pool may have");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Returns who holds a connection in this instant, the longest first: operation or place in the code, age, what the
    /// lease is waiting for, and the server's process. Connections that the pool settles after a lease are listed, too.
    ///
    /// Asking costs well under a microsecond for each connection, and locks each of them for a few instructions. Leases
    /// pay nothing for it. An age is a lower bound, at most about a tenth of a second too low.
    ///
    /// ```no_run
    /// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
    /// for holder in pool.holders() {
    ///     // report 12 s (waiting for the caller, in a transaction), taken at src/report.rs:41, process Some(4711)
    ///     println!("{holder}, taken at {}, process {:?}", holder.taken, holder.process_id);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`Error::AcquireTimeout`] and [`Error::Shed`] name the three longest.
    pub fn holders(&self) -> Vec<Holder> {
        self.shared.holders()
    }

    /// Closes the pool. Every waiting and every later caller gets [`Error::Closed`]. The pool closes idle connections
    /// now, and others when they are given back. Closing again does nothing.
    ///
    /// It does not wait: the server may have sessions of the pool for some time afterwards. [`drain`](Self::drain)
    /// waits for their end, also if the pool is closed already.
    pub fn close(&self) {
        self.shared.slots.close();
    }

    /// Returns whether [`close`](Self::close) or [`drain`](Self::drain) was called.
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
    pub(crate) fn new(pool: &'a Pool, reason: Option<Arc<str>>) -> Self {
        Self { pool, reason }
    }

    /// As [`Pool::resize`].
    ///
    /// # Errors
    ///
    /// As [`Pool::resize`].
    #[track_caller]
    pub fn resize(self, max_size: usize) -> Result<(), ConfigError> {
        check_max_size(max_size)?;
        let (slots, by, reason) = (&self.pool.shared.slots, Location::caller(), self.reason);
        #[cfg(feature = "fleet")]
        let from = self.pool.shared.maintenance.reports.resize(slots, max_size);
        #[cfg(not(feature = "fleet"))]
        let from = slots.resize(max_size);
        self.pool.shared.emit(EventKind::Resized { from, to: max_size, by, reason });
        Ok(())
    }

    /// As [`Pool::set_lane`].
    ///
    /// # Errors
    ///
    /// As [`Pool::set_lane`].
    #[track_caller]
    pub fn set_lane(self, operation: &str, lane: Lane) -> Result<(), ConfigError> {
        self.change_lane(operation, Some(lane), Location::caller())
    }

    /// As [`Pool::reset_lane`].
    #[track_caller]
    pub fn reset_lane(self, operation: &str) {
        let by = Location::caller();
        self.change_lane(operation, None, by).expect("only a lane can be one too many");
    }

    fn change_lane(
        self,
        operation: &str,
        lane: Option<Lane>,
        by: &'static Location<'static>,
    ) -> Result<(), ConfigError> {
        let (from, to) = self.pool.shared.lane_names.set(operation, lane)?;
        if from != to {
            let (operation, reason) = (operation.into(), self.reason);
            self.pool.shared.emit(EventKind::LaneChanged { operation, from, to, by, reason });
        }
        Ok(())
    }

    /// As [`Pool::flush`].
    #[track_caller]
    pub fn flush(self) {
        self.pool.shared.slots.flush();
        self.pool.shared.slots.try_at_once();
        self.pool.shared.emit(EventKind::Flushed { by: Location::caller(), reason: self.reason });
    }

    /// As [`Pool::drain`].
    #[track_caller]
    pub fn drain(self, within: Duration) -> impl Future<Output = usize> + use<'a> {
        let (shared, by) = (&self.pool.shared, Location::caller());
        async move {
            shared.emit(EventKind::Draining { by, reason: self.reason });
            #[cfg(feature = "fleet")]
            if let Some(fleet) = &shared.maintenance.reports.fleet {
                fleet.drain();
            }
            shared.drain(within).await
        }
    }
}

pub(crate) fn check_max_size(max_size: usize) -> Result<(), ConfigError> {
    if (1..=MOST_CONNECTIONS).contains(&max_size) {
        return Ok(());
    }
    Err(ConfigError::new("max_size", max_size, "must be 1 to 262143"))
}

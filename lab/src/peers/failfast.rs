//! This pool. Each call has the caller's deadline. The settings for other work are those that its guide recommends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use failfast::{Error, Event, FleetConfig, Lane, LaneLimits, PoolBuilder, Rate, Severity, ShedReason};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryStreamExt};
use tokio::time::sleep;
use tokio_postgres::Config;

use super::{Answer, Pool};
use crate::callers::Caller;
use crate::terms::{CONNECTIONS, DEADLINE, FOR_OTHERS, Result};
use crate::work::{MANY_ROWS, PAUSE, Work};

/// The limit for making the first connections.
const LIMIT: Duration = Duration::from_secs(20);

pub(super) struct Failfast {
    pool: failfast::Pool,
    warnings: Warnings,
    size: usize,
}

impl Failfast {
    /// One of several processes, which share the connections of the server.
    pub(super) fn in_fleet(config: &Config, size: usize) -> Result<Self> {
        Self::create(config, size, |builder| builder.fleet(FleetConfig::new("lab")))
    }

    /// For the usual work alone.
    pub(super) fn alone(config: &Config, size: usize) -> Result<Self> {
        Self::create(config, size, |builder| builder)
    }

    /// For the usual work beside other work. Only this one has lanes: with them, `Critical` never lends its last
    /// connection, which a service without critical calls would miss.
    pub(super) fn beside_others(config: &Config, size: usize) -> Result<Self> {
        let share = FOR_OTHERS as f64 / CONNECTIONS as f64;
        Self::create(config, size, |builder| {
            builder
                .rate_of(Work::HotRow.operation(), Rate::new().concurrency(FOR_OTHERS))
                .rate_of(Work::Unread.operation(), Rate::new().concurrency(FOR_OTHERS))
                .lane_of(Work::Report.operation(), Lane::Background)
                .lane_limits(Lane::Background, LaneLimits::of(Lane::Background).at_most(share))
        })
    }

    fn create(config: &Config, size: usize, settings: impl FnOnce(PoolBuilder) -> PoolBuilder) -> Result<Self> {
        let warnings = Warnings::default();
        let heard = warnings.clone();
        let builder = failfast::Pool::builder(config.clone())
            .name("failfast")
            .max_size(size)
            .acquire_timeout(DEADLINE)
            .observer(move |event: &Event| heard.hear(event));
        Ok(Self { pool: settings(builder).build()?, warnings, size })
    }

    async fn answer(&self, caller: &Caller) -> std::result::Result<(), Error> {
        let call = self.pool.call().name(caller.work.operation()).deadline(caller.deadline);
        if caller.work != Work::Unread {
            return call.batch_execute(&caller.work.sql()).await;
        }
        let mut rows = std::pin::pin!(call.query_stream(MANY_ROWS, &[]).await?);
        rows.try_next().await?;
        sleep(PAUSE).await;
        rows.try_next().await.map(drop)
    }
}

impl Pool for Failfast {
    fn ask<'a>(&'a self, caller: &'a Caller) -> BoxFuture<'a, Answer> {
        async move {
            match self.answer(caller).await {
                Ok(()) => Answer::Served,
                Err(Error::Shed { reason: ShedReason::TooLate, .. } | Error::AcquireTimeout { .. }) => Answer::Refused,
                Err(Error::Connect { .. }) => Answer::Refused,
                Err(Error::Shed { .. } | Error::CircuitOpen { .. }) => Answer::RefusedAtEntry,
                Err(_) => Answer::Failed,
            }
        }
        .boxed()
    }

    fn first_warning(&self, from: Instant) -> Option<(Instant, String)> {
        self.warnings.first(from)
    }

    fn warm_up(&self) -> BoxFuture<'_, Result<()>> {
        async { Ok(self.pool.warm_up(self.size, LIMIT).await?) }.boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async { self.pool.close() }.boxed()
    }
}

/// The events of severity warning or higher, in order.
#[derive(Debug, Clone, Default)]
struct Warnings(Arc<Mutex<Vec<(Instant, String)>>>);

impl Warnings {
    fn hear(&self, event: &Event) {
        if event.severity() >= Severity::Warning {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), event.to_string()));
        }
    }

    fn first(&self, from: Instant) -> Option<(Instant, String)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|(at, _)| *at >= from).cloned()
    }
}

//! failfast's cluster as a subject. Writes go to the primary, and reads may be two seconds old.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use failfast::{Cluster, Freshness};
use tokio_postgres::Config;

use super::subjects::{CONNECTIONS, Failure, READ, Receipt, Subject, WRITE, count_primary_changes};

/// A write that waits for the new primary waits at most this long.
const DEADLINE: Duration = Duration::from_millis(1_800);

const FRESH: Freshness = Freshness::Within(Duration::from_secs(2));

pub(super) struct Clustered {
    name: &'static str,
    cluster: Cluster,
    changes: Arc<AtomicU64>,
    waits: bool,
}

impl Clustered {
    /// Writes fail at once while there is no primary.
    pub(super) fn new(config: Config) -> Clustered {
        Clustered::of("Cluster", config, false)
    }

    /// Writes wait for the new primary.
    pub(super) fn across_failover(config: Config) -> Clustered {
        Clustered::of("Cluster, across failover", config, true)
    }

    fn of(name: &'static str, config: Config, waits: bool) -> Clustered {
        let (changes, observer) = count_primary_changes();
        let builder = Cluster::builder(config).pool(move |pool| pool.name(name).max_size(CONNECTIONS));
        let cluster = builder.observer(observer).build().expect("a cluster");
        Clustered { name, cluster, changes, waits }
    }
}

impl Subject for Clustered {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn write(&self, id: i64) -> Result<Receipt, Failure> {
        let call = self.cluster.call();
        let call = if self.waits { call.across_failover().deadline(DEADLINE) } else { call };
        let written = call.query_one(WRITE, &[&self.name, &id]).await;
        written.as_ref().map(Receipt::of).map_err(Failure::of_failfast)
    }

    async fn read(&self) -> Result<(), Failure> {
        let read = self.cluster.call().read(FRESH).query_opt(READ, &[]).await;
        read.map(drop).map_err(|error| Failure::of_failfast(&error))
    }

    fn primary_changes(&self) -> Option<u64> {
        Some(self.changes.load(Relaxed))
    }
}

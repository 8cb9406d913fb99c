//! Finds out when each node of a cluster accepted its first write on each timeline, by writing to all of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Config};

use super::connect;
use crate::support::eventually;

/// The pause between two attempts on a node.
const PAUSE: Duration = Duration::from_millis(20);

/// The limit for an attempt. Then the connection is replaced.
const ATTEMPT: Duration = Duration::from_secs(1);

/// Returns the timeline. The server writes it, so it is that of the write.
const WRITE: &str = "INSERT INTO failfast_writable
    SELECT ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int RETURNING timeline";

/// The first successful write on a node's timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Writable {
    pub(crate) node: usize,
    pub(crate) timeline: u32,
    /// When the write succeeded: some 20 ms later than it could have, at most.
    pub(crate) at: Instant,
}

/// Writes to each node 50 times a second until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: Arc<Mutex<Vec<Writable>>>,
    _writers: JoinSet<()>,
}

/// Creates the table for the writes.
pub(super) async fn prepare(primary: &Client) {
    primary.batch_execute("CREATE TABLE failfast_writable (timeline int)").await.expect("the primary is writable");
}

impl Watch {
    pub(super) fn begin(nodes: Vec<Config>) -> Watch {
        let seen = Arc::default();
        let mut writers = JoinSet::new();
        for (node, config) in nodes.into_iter().enumerate() {
            writers.spawn(write(node, config, Arc::clone(&seen)));
        }
        Watch { seen, _writers: writers }
    }

    /// Waits until a node has accepted a write on a timeline above this one.
    pub(crate) async fn writable_above(&self, timeline: u32, within: Duration) -> Writable {
        let find = || self.seen().into_iter().find(|seen| seen.timeline > timeline);
        eventually("a new primary accepts a write", within, async || find().is_some()).await;
        find().expect("just seen")
    }

    /// Returns all that was seen, in the order of time.
    pub(crate) fn seen(&self) -> Vec<Writable> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn write(node: usize, config: Config, seen: Arc<Mutex<Vec<Writable>>>) {
    let mut latest = 0;
    loop {
        let connected = timeout(ATTEMPT, connect(config.clone())).await;
        if let Ok(Ok(client)) = connected {
            // A standby refuses, and may be promoted a moment later.
            while let Ok(answer) = timeout(ATTEMPT, client.query_one(WRITE, &[])).await {
                let timeline = answer.ok().and_then(|row| u32::try_from(row.get::<_, i32>(0)).ok()).unwrap_or_default();
                if timeline > latest {
                    latest = timeline;
                    let first = Writable { node, timeline, at: Instant::now() };
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(first);
                }
                if client.is_closed() {
                    break;
                }
                sleep(PAUSE).await;
            }
        }
        sleep(PAUSE).await;
    }
}

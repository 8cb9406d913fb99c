//! Counts the connections of each pool while a scenario is played, as the server sees them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Config};

use super::{PREFIX, connect, database};
use crate::peers::Peer;
use crate::terms::Result;

const EVERY: Duration = Duration::from_millis(50);
/// A server that does not answer within this time is not counted.
const LIMIT: Duration = Duration::from_millis(250);

/// The counts of each pool, with their times.
pub(crate) type Counts = BTreeMap<Peer, Vec<(Duration, usize)>>;

/// Counts until [`end`](Self::end).
#[derive(Debug)]
pub(crate) struct Counting {
    counts: Arc<Mutex<Counts>>,
    task: JoinHandle<()>,
}

impl Counting {
    pub(super) fn begin(config: Config, peers: Vec<Peer>, begun: Instant) -> Self {
        let counts = Arc::new(Mutex::new(Counts::new()));
        let written = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            let mut client = None;
            loop {
                match timeout(LIMIT, count(&config, &mut client)).await {
                    Ok(Ok(found)) => {
                        let mut counts = written.lock().unwrap_or_else(PoisonError::into_inner);
                        for peer in &peers {
                            let connections = found.get(&database(*peer)).copied().unwrap_or(0);
                            counts.entry(*peer).or_default().push((begun.elapsed(), connections));
                        }
                    }
                    Ok(Err(_)) | Err(_) => client = None,
                }
                sleep(EVERY).await;
            }
        });
        Self { counts, task }
    }

    pub(crate) fn end(self) -> Counts {
        self.task.abort();
        std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn count(config: &Config, client: &mut Option<Client>) -> Result<HashMap<String, usize>> {
    let client = match client {
        Some(client) => client,
        None => client.insert(connect(config.clone()).await?),
    };
    let sql =
        format!("SELECT datname::text, count(*) FROM pg_stat_activity WHERE datname ~ '^{PREFIX}' GROUP BY datname");
    let rows = client.query(&sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1) as usize)).collect())
}

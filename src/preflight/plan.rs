//! What is going to happen, and which limits are to hold.

use std::time::Duration;

use super::report::Check;

/// What is going to be deployed or changed, and the limits of the checks. All methods return the changed plan.
#[derive(Debug, Clone)]
#[must_use = "a plan does nothing until `Pool::preflight` gets it"]
pub struct Plan {
    pub(super) instances: usize,
    pub(super) surge: usize,
    pub(super) max_size: Option<usize>,
    pub(super) fleet: Option<String>,
    pub(super) tables: Vec<String>,
    pub(super) replicas: Option<usize>,
    pub(super) oldest_transaction: Duration,
    pub(super) longest_lock_wait: Duration,
    pub(super) replica_lag: Duration,
    pub(super) replica_lag_bytes: u64,
    pub(super) headroom: f64,
    pub(super) pooler: PoolerMode,
    pub(super) question_timeout: Duration,
    pub(super) skipped: Vec<Check>,
}

/// How a pooler such as PgBouncer shares connections to the server, from strict to loose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PoolerMode {
    /// No pooler: each connection leads to a process of its own.
    None,
    /// Each client has its connection to the server until it disconnects.
    Session,
    /// Each transaction, or each statement, may run on another connection to the server.
    Transaction,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            instances: 1,
            surge: 0,
            max_size: None,
            fleet: None,
            tables: Vec::new(),
            replicas: None,
            oldest_transaction: Duration::from_secs(60),
            longest_lock_wait: Duration::from_secs(1),
            replica_lag: Duration::from_secs(10),
            replica_lag_bytes: 256 << 20,
            headroom: 0.25,
            pooler: PoolerMode::Session,
            question_timeout: Duration::from_secs(1),
            skipped: Vec::new(),
        }
    }
}

impl Plan {
    /// Returns a plan for one instance, without surge, that touches no table in particular.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many instances there will be. Default: 1.
    pub fn instances(mut self, instances: usize) -> Self {
        self.instances = instances;
        self
    }

    /// Sets how many instances there may be in addition during the deployment, while the old ones are still there.
    /// Default: 0.
    pub fn surge(mut self, surge: usize) -> Self {
        self.surge = surge;
        self
    }

    /// Sets the `max_size` of each instance. Default: that of this pool.
    pub fn max_size(mut self, max_size: usize) -> Self {
        self.max_size = Some(max_size);
        self
    }

    /// Sets how the sessions of the instances are told from others: they have the role and the database of this pool,
    /// and an `application_name` that begins with this. Default: exactly the `application_name` of this pool.
    ///
    /// The sessions of the instances may be replaced by new ones. All others keep their slots.
    pub fn fleet(mut self, application_name: impl Into<String>) -> Self {
        self.fleet = Some(application_name.into());
        self
    }

    /// Names the tables that a migration is going to lock, as SQL names them. Their partitions count, too, and the
    /// tables at the other end of their foreign keys. Without a table, the whole database counts.
    pub fn touches<T: Into<String>>(mut self, tables: impl IntoIterator<Item = T>) -> Self {
        self.tables.extend(tables.into_iter().map(Into::into));
        self
    }

    /// Sets how many replicas there should be at least. A replica that is lost has no lag. Default: any number.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = Some(replicas);
        self
    }

    /// Sets how old a transaction may be. Default: 60 s.
    pub fn oldest_transaction(mut self, limit: Duration) -> Self {
        self.oldest_transaction = limit;
        self
    }

    /// Sets how long a session may have been waiting for a lock. Short waits are usual under load. Default: 1 s.
    pub fn longest_lock_wait(mut self, limit: Duration) -> Self {
        self.longest_lock_wait = limit;
        self
    }

    /// Sets how far a replica may be behind, in time. Default: 10 s.
    pub fn replica_lag(mut self, limit: Duration) -> Self {
        self.replica_lag = limit;
        self
    }

    /// Sets how far a replica may be behind, in bytes: what it would have to replay before it could take over. Default:
    /// 256 MiB.
    pub fn replica_lag_bytes(mut self, limit: u64) -> Self {
        self.replica_lag_bytes = limit;
        self
    }

    /// Sets which share of the connections has to be free of demand, from 0 to 1. Default: 0.25.
    pub fn headroom(mut self, share: f64) -> Self {
        self.headroom = share;
        self
    }

    /// Sets the loosest mode that is all right. Default: [`PoolerMode::Session`].
    pub fn pooler(mut self, loosest: PoolerMode) -> Self {
        self.pooler = loosest;
        self
    }

    /// Sets how long the server may take for each question. A value outside 1 ms to 1 hour counts as the nearest one
    /// inside. Default: 1 s.
    pub fn question_timeout(mut self, limit: Duration) -> Self {
        self.question_timeout = limit;
        self
    }

    /// Leaves a check out. The report says so.
    pub fn skip(mut self, check: Check) -> Self {
        self.skipped.push(check);
        self
    }
}

//! What an operator sees of a cluster, as data for an admin page. Feature `admin`.

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "axum")]
use axum_core::response::{IntoResponse, Response};
use serde_core::Serialize;
use serde_core::ser::{SerializeMap, Serializer};

use super::Cluster;
use super::status::HostStatus;
use crate::admin::PoolReport;
#[cfg(feature = "axum")]
use crate::admin::{Reporting, json_response};
use crate::error::ErrorKind;

/// What an operator sees of a cluster. [`Cluster::report`] makes it.
///
/// With serde it becomes a table with these keys, in any format that serde writes. As in a [pool's
/// report](crate::admin#the-json), keys and words never change their meaning, and later versions may add keys.
///
/// | key | value |
/// |---|---|
/// | `cluster` | the owner's name |
/// | `primary` | the host that takes the writes, or `null` |
/// | `spilled` | reads that are at work on the primary because no replica could serve them |
/// | `refusals` | calls that were refused before a host was chosen, since the cluster was built: a count for each of `no_primary`, `two_primaries`, `two_systems`, `no_fresh_replica` |
/// | `hosts` | a list of each host, in the order in which they were given: `host`, `role` (a word of [`Role::as_str`](crate::Role::as_str)), `timeline`, `lag_ms` (at most so far behind), `silent`, `balanced` (leads to several servers), `pool` ([`PoolReport`]) |
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClusterReport {
    /// The owner's name for the cluster.
    pub name: Arc<str>,
    /// The host that takes the writes.
    pub primary: Option<Arc<str>>,
    /// The reads that are at work on the primary because no replica could serve them.
    pub spilled: usize,
    /// How many calls were refused before a host was chosen, by the kind of their error.
    pub refused: Vec<(ErrorKind, u64)>,
    /// Each host, in the order in which they were given.
    pub hosts: Vec<HostReport>,
}

/// What an operator sees of one host of a cluster.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HostReport {
    /// Its role, its lag, and whether it answers.
    pub status: HostStatus,
    /// Its pool.
    pub pool: PoolReport,
}

impl Cluster {
    /// Returns what an operator sees of the cluster: each host with its role, its lag and its pool, and what was
    /// refused. As [`Pool::report`](crate::Pool::report), it waits for nothing.
    ///
    /// Feature `admin`. With `axum`, [`admin::handler`](crate::admin::handler) answers with it.
    pub fn report(&self) -> ClusterReport {
        let hosts = self.hosts().into_iter().zip(self.pools());
        ClusterReport {
            name: Arc::clone(&self.core.settings.name),
            primary: self.core.primary().ok().map(|host| Arc::clone(&self.core.hosts[host].label)),
            spilled: self.core.spilled(),
            refused: self.core.refused().to_vec(),
            hosts: hosts.map(|(status, pool)| HostReport { status, pool: pool.report() }).collect(),
        }
    }
}

impl ClusterReport {
    /// Returns the report as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a report has only texts, numbers, lists and tables")
    }
}

impl Serialize for ClusterReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut table = serializer.serialize_map(Some(5))?;
        table.serialize_entry("cluster", &*self.name)?;
        table.serialize_entry("primary", &self.primary.as_deref())?;
        table.serialize_entry("spilled", &self.spilled)?;
        table.serialize_entry("refusals", &Refusals(&self.refused))?;
        table.serialize_entry("hosts", &self.hosts)?;
        table.end()
    }
}

struct Refusals<'a>(&'a [(ErrorKind, u64)]);

impl Serialize for Refusals<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut table = serializer.serialize_map(Some(self.0.len()))?;
        for (kind, count) in self.0 {
            table.serialize_entry(kind.as_str(), count)?;
        }
        table.end()
    }
}

impl Serialize for HostReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { status, pool } = self;
        let millis = |lag: Duration| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        let mut table = serializer.serialize_map(Some(7))?;
        table.serialize_entry("host", &*status.host)?;
        table.serialize_entry("role", status.role.as_str())?;
        table.serialize_entry("timeline", &status.timeline)?;
        table.serialize_entry("lag_ms", &status.lag.map(millis))?;
        table.serialize_entry("silent", &status.is_silent)?;
        table.serialize_entry("balanced", &status.is_balanced)?;
        table.serialize_entry("pool", pool)?;
        table.end()
    }
}

/// The report as `application/json`, which no cache keeps.
#[cfg(feature = "axum")]
impl IntoResponse for ClusterReport {
    fn into_response(self) -> Response {
        json_response(self.to_json())
    }
}

#[cfg(feature = "axum")]
impl Reporting for Cluster {
    type Report = ClusterReport;

    fn report(&self) -> ClusterReport {
        Cluster::report(self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test]
    async fn a_report_has_these_keys_and_each_is_documented() {
        let builder = Cluster::builder("host=a,b port=1,2".parse().unwrap()).pool(|pool| pool.name("orders"));
        let cluster = builder.build().unwrap();
        cluster.core.on_refused(ErrorKind::NoFreshReplica);
        let report = cluster.report();
        let mut json: Value = serde_json::from_str(&report.to_json()).unwrap();
        let pools: Vec<_> = (0..2).map(|host| json["hosts"][host]["pool"].take()["pool"].take()).collect();
        assert_eq!(pools, ["orders@a:1", "orders@b:2"]);
        let host = |host: &str| {
            json!({
                "host": host, "role": "unknown", "timeline": null, "lag_ms": null, "silent": false, "balanced": false,
                "pool": null
            })
        };
        let expected = json!({
            "cluster": "orders", "primary": null, "spilled": 0,
            "refusals": { "no_primary": 0, "two_primaries": 0, "two_systems": 0, "no_fresh_replica": 1 },
            "hosts": [host("a:1"), host("b:2")]
        });
        assert_eq!(json, expected);
        let docs = include_str!("report.rs");
        let keys = |table: &Value| table.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        for key in [keys(&expected), keys(&expected["hosts"][0]), keys(&expected["refusals"])].concat() {
            assert!(docs.contains(&format!("`{key}`")), "{key}");
        }
    }
}

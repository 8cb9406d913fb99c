//! Writes a report with serde. The keys are described in [`admin`](crate::admin#the-json).

use std::time::Duration;

use serde_core::Serialize;
use serde_core::ser::{SerializeMap, Serializer};

use super::{Baseline, PoolReport};
use crate::breaker::Snapshot;
use crate::holder::Holder;
#[cfg(feature = "fleet")]
use crate::policy::Advice;
use crate::policy::{RefusalCounts, ShedReason};
use crate::status::Status;
#[cfg(feature = "fleet")]
use crate::status::{AdaptiveStatus, CappedOperation, FleetStatus};

/// A part of the report, as a table of its own.
struct Table<'a, T>(&'a T);

/// The callers that wait.
struct QueueReport<'a>(&'a Status);

impl Serialize for PoolReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { status, holders, breaker, baselines, refused } = self;
        let mut table = serializer.serialize_map(Some(7))?;
        table.serialize_entry("pool", &*status.name)?;
        table.serialize_entry("status", &Table(status))?;
        table.serialize_entry("queue", &QueueReport(status))?;
        table.serialize_entry("holders", &tables(holders))?;
        table.serialize_entry("breaker", &Table(breaker))?;
        table.serialize_entry("baselines", &tables(baselines))?;
        table.serialize_entry("refusals", &Table(refused))?;
        table.end()
    }
}

impl Serialize for Table<'_, Status> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(status) = self;
        let mut table = serializer.serialize_map(None)?;
        table.serialize_entry("max_size", &status.max_size)?;
        table.serialize_entry("in_use", &status.in_use)?;
        table.serialize_entry("settling", &status.settling)?;
        table.serialize_entry("idle", &status.idle)?;
        table.serialize_entry("dialing", &status.dialing)?;
        table.serialize_entry("closing", &status.closing)?;
        table.serialize_entry("closed", &status.closed)?;
        table.serialize_entry("demand", &status.demand)?;
        table.serialize_entry("background_share", &status.background_share)?;
        #[cfg(feature = "fleet")]
        table.serialize_entry("fleet", &status.fleet.as_ref().map(Table))?;
        #[cfg(feature = "fleet")]
        table.serialize_entry("adaptive", &status.adaptive.as_ref().map(Table))?;
        table.serialize_entry("time_to_exhaustion_ms", &status.time_to_exhaustion.map(millis))?;
        table.serialize_entry("last_connect_error", &status.last_connect_error)?;
        table.serialize_entry("last_success_age_ms", &status.last_success.map(millis))?;
        table.end()
    }
}

#[cfg(feature = "fleet")]
impl Serialize for Table<'_, FleetStatus> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(fleet) = self;
        let mut table = serializer.serialize_map(None)?;
        table.serialize_entry("name", &*fleet.name)?;
        table.serialize_entry("state", fleet.state.as_str())?;
        table.serialize_entry("granted", &fleet.granted)?;
        table.serialize_entry("wanted", &fleet.wanted)?;
        table.serialize_entry("minimum", &fleet.minimum)?;
        table.serialize_entry("max_size", &fleet.max_size)?;
        table.serialize_entry("members", &fleet.members)?;
        table.serialize_entry("capacity", &fleet.capacity)?;
        table.serialize_entry("strangers", &fleet.strangers)?;
        table.serialize_entry("last_reading_age_ms", &fleet.last_reading.map(millis))?;
        table.end()
    }
}

#[cfg(feature = "fleet")]
impl Serialize for Table<'_, AdaptiveStatus> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(adaptive) = self;
        let mut table = serializer.serialize_map(None)?;
        table.serialize_entry("acts", &adaptive.acts)?;
        table.serialize_entry("limit", &adaptive.limit)?;
        table.serialize_entry("max_size", &adaptive.max_size)?;
        table.serialize_entry("inflation", &adaptive.inflation)?;
        table.serialize_entry("advice", &adaptive.advice.as_ref().map(Table))?;
        table.serialize_entry("capped", &tables(&adaptive.capped))?;
        table.serialize_entry("trouble", &adaptive.trouble.as_deref())?;
        table.end()
    }
}

#[cfg(feature = "fleet")]
impl Serialize for Table<'_, Advice> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(advice) = self;
        let mut table = serializer.serialize_map(None)?;
        table.serialize_entry("reason", advice.reason.as_str())?;
        table.serialize_entry("operation", &advice.operation.map(|operation| operation.to_string()))?;
        table.serialize_entry("from", &advice.from)?;
        table.serialize_entry("to", &advice.to)?;
        table.serialize_entry("inflation", &advice.inflation)?;
        table.serialize_entry("utilization", &advice.utilization)?;
        table.serialize_entry("throughput", &advice.throughput)?;
        table.end()
    }
}

#[cfg(feature = "fleet")]
impl Serialize for Table<'_, CappedOperation> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(capped) = self;
        let mut table = serializer.serialize_map(Some(2))?;
        table.serialize_entry("operation", &capped.operation.to_string())?;
        table.serialize_entry("most", &capped.most)?;
        table.end()
    }
}

impl Serialize for QueueReport<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(status) = self;
        let mut table = serializer.serialize_map(None)?;
        table.serialize_entry("waiting", &status.waiting)?;
        table.serialize_entry("max_waiting", &status.max_waiting)?;
        table.serialize_entry("predicted_wait_ms", &status.predicted_wait.map(millis))?;
        table.end()
    }
}

impl Serialize for Table<'_, Holder> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(holder) = self;
        let mut table = serializer.serialize_map(None)?;
        table.serialize_entry("operation", &holder.operation.to_string())?;
        table.serialize_entry("lane", holder.lane.as_str())?;
        table.serialize_entry("taken", &format_args!("{}:{}", holder.taken.file(), holder.taken.line()))?;
        table.serialize_entry("age_ms", &millis(holder.age))?;
        table.serialize_entry("state", holder.state.as_str())?;
        table.serialize_entry("in_transaction", &holder.in_transaction)?;
        table.serialize_entry("running_ms", &holder.running.map(millis))?;
        table.serialize_entry("process_id", &holder.process_id)?;
        table.end()
    }
}

impl Serialize for Table<'_, Snapshot> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(breaker) = self;
        let mut table = serializer.serialize_map(None)?;
        table.serialize_entry("state", breaker.state.as_str())?;
        table.serialize_entry("age_ms", &millis(breaker.age))?;
        table.serialize_entry("completed", &breaker.counts.completed)?;
        table.serialize_entry("failures", &breaker.counts.failures)?;
        table.serialize_entry("unreachable", &breaker.counts.unreachable)?;
        table.serialize_entry("slow", &breaker.counts.slow)?;
        table.serialize_entry("rejected", &breaker.counts.rejected)?;
        table.serialize_entry("failure_rate_percent", &breaker.failure_rate)?;
        table.serialize_entry("slow_rate_percent", &breaker.slow_rate)?;
        table.serialize_entry("retry_after_ms", &breaker.retry_after.map(millis))?;
        table.serialize_entry("probes", &breaker.probes)?;
        table.end()
    }
}

impl Serialize for Table<'_, Baseline> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(baseline) = self;
        let mut table = serializer.serialize_map(None)?;
        table.serialize_entry("operation", &baseline.operation.to_string())?;
        table.serialize_entry("mean_us", &micros(baseline.mean))?;
        table.serialize_entry("leases", &baseline.leases)?;
        table.serialize_entry("slow_after_us", &baseline.slow_after.map(micros))?;
        table.serialize_entry("inflated_to_us", &baseline.inflated_to.map(micros))?;
        table.end()
    }
}

impl Serialize for Table<'_, RefusalCounts> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(refused) = self;
        let mut table = serializer.serialize_map(None)?;
        for reason in ShedReason::ALL {
            table.serialize_entry(reason.as_str(), &refused[reason])?;
        }
        table.serialize_entry("timed_out", &refused.timed_out)?;
        table.serialize_entry("circuit_open", &refused.rejected)?;
        table.end()
    }
}

fn tables<T>(parts: &[T]) -> Vec<Table<'_, T>> {
    parts.iter().map(Table).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::breaker::{BreakerConfig, CircuitBreaker};
    use crate::holder::HolderState;
    use crate::operation::Operation;

    fn report() -> PoolReport {
        let millis = Duration::from_millis;
        let report = Holder::of("report", millis(12_300), HolderState::WaitingForCaller);
        let baseline = Baseline {
            operation: Operation::Named("report"),
            mean: Duration::from_micros(1_500),
            leases: 40,
            slow_after: Some(millis(4)),
            inflated_to: None,
        };
        PoolReport {
            status: Status {
                predicted_wait: Some(millis(40)),
                #[cfg(feature = "fleet")]
                fleet: Some(FleetStatus::of_9_in_34()),
                #[cfg(feature = "fleet")]
                adaptive: Some(AdaptiveStatus::of_a_slow_report()),
                ..Status::of_19_in_20()
            },
            holders: vec![Holder { in_transaction: true, running: Some(millis(7)), ..report }],
            breaker: CircuitBreaker::new(BreakerConfig::default()).unwrap().snapshot(),
            baselines: vec![baseline],
            refused: RefusalCounts { timed_out: 3, ..RefusalCounts::of([(ShedReason::TooLate, 2)]) },
        }
    }

    #[test]
    fn a_report_has_these_keys_and_values() {
        let mut json: Value = serde_json::from_str(&report().to_json()).unwrap();
        let taken = json["holders"][0]["taken"].take();
        assert!(taken.as_str().is_some_and(|taken| taken.contains(".rs:")), "{taken}");
        json["breaker"]["age_ms"] = json!(0);
        let expected = json!({
            "pool": "orders",
            "status": {
                "max_size": 20, "in_use": 19, "settling": 0, "idle": 1, "dialing": 0, "closing": 0, "closed": false,
                "demand": null, "background_share": 1.0, "time_to_exhaustion_ms": null, "last_connect_error": null,
                "last_success_age_ms": null
            },
            "queue": { "waiting": 127, "max_waiting": 1000, "predicted_wait_ms": 40 },
            "holders": [{
                "operation": "report", "lane": "normal", "taken": null, "age_ms": 12300, "state": "caller",
                "in_transaction": true, "running_ms": 7, "process_id": 4711
            }],
            "breaker": {
                "state": "closed", "age_ms": 0, "completed": 0, "failures": 0, "unreachable": 0, "slow": 0,
                "rejected": 0, "failure_rate_percent": null, "slow_rate_percent": null, "retry_after_ms": null,
                "probes": 0
            },
            "baselines": [{
                "operation": "report", "mean_us": 1500, "leases": 40, "slow_after_us": 4000, "inflated_to_us": null
            }],
            "refusals": {
                "queue_full": 0, "hopeless": 0, "too_late": 2, "overloaded": 0, "unread": 0, "none_idle": 0,
                "rate_limited": 0, "timed_out": 3, "circuit_open": 0
            }
        });
        #[cfg(feature = "fleet")]
        let expected = {
            let mut expected = expected;
            expected["status"]["fleet"] = json!({
                "name": "shop", "state": "sharing", "granted": 9, "wanted": 14, "minimum": 2, "max_size": 40,
                "members": 8, "capacity": 34, "strangers": 3, "last_reading_age_ms": 1200
            });
            expected["status"]["adaptive"] = json!({
                "acts": true, "limit": 18, "max_size": 20, "inflation": 2.5,
                "advice": {
                    "reason": "slow_operation", "operation": "report", "from": 20, "to": 3, "inflation": 2.5,
                    "utilization": 0.95, "throughput": 120.0
                },
                "capped": [{ "operation": "report", "most": 3 }], "trouble": null
            });
            expected
        };
        assert_eq!(json, expected);
    }

    #[test]
    fn each_key_is_documented() {
        let docs = include_str!("../admin.rs");
        let json: Value = serde_json::from_str(&report().to_json()).unwrap();
        let reasons = ShedReason::ALL.map(ShedReason::as_str);
        let mut parts: Vec<&Value> = vec![&json];
        while let Some(part) = parts.pop() {
            for (key, value) in part.as_object().into_iter().flatten() {
                assert!(docs.contains(&format!("`{key}`")) || reasons.contains(&key.as_str()), "{key}");
                parts.push(value);
            }
            parts.extend(part.as_array().into_iter().flatten());
        }
    }
}

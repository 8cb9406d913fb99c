//! Classes of traffic on one server: a flood of analytics does not slow web, API and admin. There are two ways:
//!
//! - **A pool for each class**, from one file of settings: nobody else ever has its connections. For classes that must
//!   not touch each other, with timeouts of their own, or in processes of their own.
//! - **Lanes** in one pool (`-- lanes`): what a class does not use, another has. For classes that share a service, and
//!   for operations that an operator moves to another lane at run time.
//!
//! `cargo run --release --features serde --example tiers`. Uses `DATABASE_URL`, or starts a throwaway server. Fails if
//! another tier than analytics has a refusal, or if the flood costs that tier more than 200 ms at the 99th percentile.
//! With `-- together` all callers share one pool without lanes, as large as all of them, and the example does fail.

mod support;

use std::error::Error;
use std::time::{Duration, Instant};

use failfast::{Config, Lane, Pool, Settings};
use serde::Deserialize;
use support::Throwaway;
use tokio::task::JoinSet;
use tokio::time::{self, MissedTickBehavior};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A twentieth of the connections of a large service: web 600, API 400, analytics 200, admin 50 and a reserve of 25,
/// the last two rounded up. The timeouts are those of that service.
const TIERS: &str = r#"
# Kept free on the server: for a deploy, a migration, somebody with psql.
reserve = 2

[web]
name = "web"
max_size = 30
min_idle = 10
acquire_timeout = "5s"

[api]
name = "api"
max_size = 20
min_idle = 5
acquire_timeout = "8s"

# Whoever asks for a report can wait, but few at a time: the rest is refused at once. So analytics throttles itself.
[analytics]
name = "analytics"
max_size = 10
max_waiting = 10
acquire_timeout = "30s"
query_timeout = "60s"

# Always reachable: its connections are there before they are needed, and nobody else has them.
[admin]
name = "admin"
max_size = 3
min_idle = 3
acquire_timeout = "2s"
"#;

/// How much longer callers of the other tiers may take in the flood, at the 99th percentile.
pub(crate) const BOUND: Duration = Duration::from_millis(200);
/// How long a pool may take to make all its connections while the others do the same.
const WARM_UP: Duration = Duration::from_secs(30);
const CALM: Duration = Duration::from_secs(3);
const FLOOD: Duration = Duration::from_secs(5);
/// How long the example waits for the last answers. No tier waits longer.
const AFTERMATH: Duration = Duration::from_secs(40);

#[tokio::main]
async fn main() -> Result<()> {
    let server = Throwaway::start().await?;
    let tiers = Tiers::example()?;
    println!("{}", tiers.budget(connections_of(&server.config()).await?)?);
    let is_asked = |word: &str| std::env::args().any(|argument| argument == word);
    let way = match (is_asked("lanes"), is_asked("together")) {
        (true, _) => Way::Lanes,
        (false, true) => Way::Together,
        (false, false) => Way::Pools,
    };
    let outcomes = tiers.run(&server.config(), way).await?;
    print(&outcomes);
    let suffering: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.suffers(BOUND)).collect();
    if suffering.is_empty() {
        println!("\nanalytics was flooded, and nobody else noticed");
        return Ok(());
    }
    Err(suffering.join("; ").into())
}

/// How the tiers share the server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Way {
    /// Each has a pool.
    Pools,
    /// One pool, as large as all of them, and a lane for each tier.
    Lanes,
    /// One pool, as large as all of them.
    Together,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tiers {
    pub(crate) reserve: usize,
    pub(crate) web: Settings,
    pub(crate) api: Settings,
    pub(crate) analytics: Settings,
    pub(crate) admin: Settings,
}

impl Tiers {
    pub(crate) fn example() -> Result<Self> {
        Ok(toml::from_str(TIERS)?)
    }

    /// Whether all pools can be full at once on a server that takes so many connections.
    pub(crate) fn budget(&self, server: usize) -> Result<String> {
        let mut sum = 0;
        for tier in [&self.web, &self.api, &self.analytics, &self.admin] {
            sum += tier.max_size.ok_or("each tier needs a max_size")?;
        }
        let (reserve, all) = (self.reserve, sum + self.reserve);
        if all > server {
            return Err(format!(
                "{sum} connections in pools + {reserve} in reserve = {all}: the server takes {server}"
            )
            .into());
        }
        Ok(format!("{sum} connections in pools + {reserve} in reserve = {all} of the {server} that the server takes\n"))
    }

    /// First calm, then with analytics flooded.
    pub(crate) async fn run(self, config: &Config, way: Way) -> Result<Vec<Outcome>> {
        let all = [self.web, self.api, self.analytics, self.admin];
        let mut tiers = Vec::new();
        if way == Way::Pools {
            for (settings, load) in all.into_iter().zip(LOADS) {
                tiers.push((settings.builder(config.clone())?.build()?, load));
            }
        } else {
            let size = all.iter().filter_map(|tier| tier.max_size).sum();
            let mut builder = all[0].builder(config.clone())?.name("all").max_size(size);
            if way == Way::Lanes {
                builder = LOADS.iter().fold(builder, |builder, load| builder.lane_of(load.name, load.lane));
            }
            let pool = builder.build()?;
            tiers.extend(LOADS.map(|load| (pool.clone(), load)));
        }
        for (pool, _) in &tiers {
            pool.warm_up(pool.status().max_size, WARM_UP).await?;
        }
        let before = at_once(&tiers, CALM, |load| load.calm).await?;
        let during = at_once(&tiers, FLOOD, |load| load.flood).await?;
        let outcome = |((load, before), during): ((Load, _), _)| Outcome { name: load.name, before, during };
        Ok(LOADS.into_iter().zip(before).zip(during).map(outcome).collect())
    }
}

/// The load of one tier, in calls per second.
#[derive(Debug, Clone, Copy)]
struct Load {
    name: &'static str,
    lane: Lane,
    sql: &'static str,
    calm: f64,
    flood: f64,
}

/// In the flood, analytics would need 120 connections: twelve times as many as it has, and twice as many as all tiers
/// have.
const LOADS: [Load; 4] = [
    Load { name: "web", lane: Lane::Normal, sql: "SELECT pg_sleep(0.005)", calm: 150.0, flood: 150.0 },
    Load { name: "api", lane: Lane::Normal, sql: "SELECT pg_sleep(0.01)", calm: 60.0, flood: 60.0 },
    Load { name: "analytics", lane: Lane::Background, sql: "SELECT pg_sleep(0.4)", calm: 10.0, flood: 300.0 },
    Load { name: "admin", lane: Lane::Critical, sql: "SELECT count(*) FROM pg_stat_activity", calm: 20.0, flood: 20.0 },
];

async fn at_once(tiers: &[(Pool, Load)], lasts: Duration, rate: fn(&Load) -> f64) -> Result<Vec<Tally>> {
    let running: Vec<_> =
        tiers.iter().map(|(pool, load)| tokio::spawn(arrive(pool.clone(), *load, rate(load), lasts))).collect();
    let mut tallies = Vec::new();
    for tier in running {
        tallies.push(tier.await?);
    }
    Ok(tallies)
}

/// Callers arrive at a steady rate, whether or not the earlier ones have their answer.
async fn arrive(pool: Pool, load: Load, rate: f64, lasts: Duration) -> Tally {
    let mut tally = Tally::default();
    let mut callers = JoinSet::new();
    let mut tick = time::interval(Duration::from_millis(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begun = Instant::now();
    while begun.elapsed() < lasts {
        tick.tick().await;
        while (tally.offered as f64) < begun.elapsed().as_secs_f64() * rate {
            tally.offered += 1;
            let pool = pool.clone();
            callers.spawn(async move {
                let asked = Instant::now();
                (pool.call().name(load.name).query(load.sql, &[]).await.is_ok(), asked.elapsed())
            });
        }
    }
    let give_up = time::Instant::now() + AFTERMATH;
    while let Ok(Some(answer)) = time::timeout_at(give_up, callers.join_next()).await {
        if let Ok((true, after)) = answer {
            tally.served.push(after);
        }
    }
    tally.served.sort();
    tally
}

/// The results of a tier's callers. Each was served or refused.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) offered: usize,
    /// How long the served ones took, in ascending order.
    pub(crate) served: Vec<Duration>,
}

impl Tally {
    pub(crate) fn refused(&self) -> usize {
        self.offered - self.served.len()
    }

    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        self.served.get(self.served.len() * percent / 100).copied().unwrap_or_default()
    }
}

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) before: Tally,
    pub(crate) during: Tally,
}

impl Outcome {
    /// The failed expectation, if the flood costs more than `bound` or a caller was refused. Analytics may suffer.
    pub(crate) fn suffers(&self, bound: Duration) -> Option<String> {
        let (before, during) = (self.before.percentile(99), self.during.percentile(99));
        let refused = self.before.refused() + self.during.refused();
        if self.name == "analytics" {
            return None;
        }
        if refused > 0 {
            return Some(format!("{} had {refused} refusals", self.name));
        }
        (during > before + bound).then(|| format!("{}: p99 from {before:.1?} to {during:.1?}", self.name))
    }
}

fn print(outcomes: &[Outcome]) {
    println!("{:<10} {:^41}   {:^41}", "", "before", "analytics flooded");
    let head = format!("{:>7} {:>7} {:>7} {:>8} {:>8}", "offered", "served", "refused", "p50", "p99");
    println!("{:<10} {head}   {head}", "tier");
    for outcome in outcomes {
        let [before, during] = [&outcome.before, &outcome.during].map(|tally| {
            let [p50, p99] = [50, 99].map(|percent| format!("{:.1?}", tally.percentile(percent)));
            let (offered, served, refused) = (tally.offered, tally.served.len(), tally.refused());
            format!("{offered:>7} {served:>7} {refused:>7} {p50:>8} {p99:>8}")
        });
        println!("{:<10} {before}   {during}", outcome.name);
    }
}

/// The connections that the server accepts, without those that it reserves for superusers.
pub(crate) async fn connections_of(config: &Config) -> Result<usize> {
    const SQL: &str = "SELECT current_setting('max_connections')::int8 - current_setting('superuser_reserved_connections')::int8 \
         - coalesce(current_setting('reserved_connections', true)::int8, 0)";
    let pool = Pool::builder(config.clone()).name("budget").max_size(1).build()?;
    let left: i64 = pool.query_one(SQL, &[]).await?.get(0);
    Ok(left.try_into()?)
}

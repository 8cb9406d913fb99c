//! How it happens: the pools are connected, the callers sent, and the server hurt meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::load::{Sample, arrivals, send};
use super::peers::Peer;
use super::scenarios::Scenario;
use super::world::World;
use super::{CONNECTIONS, HOLD, Result, capacity};

/// What one pool did in one scenario. All times are since its beginning.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) scenario: Scenario,
    pub(crate) peer: Peer,
    pub(crate) arrivals: Arc<[Duration]>,
    /// In no order; those who were never answered are not among them.
    pub(crate) samples: Vec<Sample>,
    /// When the incident had begun.
    pub(crate) struck: Duration,
    /// When it was over: the server accepts again.
    pub(crate) back: Duration,
    /// What the pool can do, in queries a second, at the usual hold and at that of the incident.
    pub(crate) capacity: f64,
    pub(crate) capacity_during: f64,
    /// What a query of the incident takes without load.
    pub(crate) service_during: Duration,
    /// Connections made, but for the first ones.
    pub(crate) made: i64,
    /// The first, from `struck` on.
    pub(crate) warning: Option<(Duration, String)>,
    /// How late the latest caller was sent.
    pub(crate) lag: Duration,
}

/// Plays a scenario for these pools at once.
pub(crate) async fn play(scenario: &Scenario, peers: &[Peer], seed: u64, world: &mut World) -> Result<Vec<Trace>> {
    let arrivals: Arc<[Duration]> = arrivals(scenario, seed).into();
    let mut pools = Vec::new();
    for peer in peers {
        let sessions = world.sessions(*peer).await?;
        pools.push((*peer, peer.connect(&world.config(*peer)).await?, sessions));
    }

    let begun = Instant::now();
    let mut running = JoinSet::new();
    for (index, (_, pool, _)) in pools.iter().enumerate() {
        let sending = send(pool.clone(), scenario.clone(), Arc::clone(&arrivals), begun);
        running.spawn(async move { (index, sending.await) });
    }
    sleep_until((begun + scenario.begins()).into()).await;
    let struck = world.strike(scenario.fault).await? - begun;
    sleep_until((begun + scenario.ends()).into()).await;
    world.lift(scenario.fault).await?;
    let back = begun.elapsed();
    let mut answers = running.join_all().await;
    answers.sort_by_key(|(index, _)| *index);

    let mut traces = Vec::new();
    for ((peer, pool, sessions), (_, answers)) in pools.into_iter().zip(answers) {
        let warning = pool.first_warning(begun + struck).map(|(at, line)| (at - begun, line));
        pool.close().await;
        traces.push(Trace {
            scenario: scenario.clone(),
            peer,
            arrivals: Arc::clone(&arrivals),
            samples: answers.samples,
            struck,
            back,
            capacity: capacity(HOLD),
            capacity_during: capacity(scenario.hold),
            service_during: world.service(scenario.hold),
            made: world.sessions(peer).await? - sessions - CONNECTIONS as i64,
            warning,
            lag: answers.lag,
        });
    }
    Ok(traces)
}

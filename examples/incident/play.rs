//! Runs a scenario: connects the pools, sends the callers, and damages the server meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::load::{Sample, arrivals, send};
use super::peers::Peer;
use super::scenarios::Scenario;
use super::world::World;
use super::{CONNECTIONS, HOLD, Result, capacity};

/// The results of one pool in one scenario. All times are since its beginning.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) scenario: Scenario,
    pub(crate) peer: Peer,
    pub(crate) arrivals: Arc<[Duration]>,
    /// In no order, and without callers that never got an answer.
    pub(crate) samples: Vec<Sample>,
    /// When the incident began.
    pub(crate) struck: Duration,
    /// When the incident ended: the server accepts connections again.
    pub(crate) back: Duration,
    /// The capacity of the pool in queries per second, with the usual lease duration and with that of the incident.
    pub(crate) capacity: f64,
    pub(crate) capacity_during: f64,
    /// How long a query of the incident takes without load.
    pub(crate) service_during: Duration,
    /// Connections that the pool made, without the first ones.
    pub(crate) made: i64,
    /// The first, from `struck` on.
    pub(crate) warning: Option<(Duration, String)>,
    /// The longest delay with which a caller was sent.
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

//! Plays a scenario: connects the pools, sends the callers, damages the server, and counts connections meanwhile.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

use crate::callers::{self, Caller};
use crate::peers::{Answer, Peer, Pool};
use crate::scenarios::{Fault, Scenario};
use crate::terms::{AFTERMATH, CONNECTIONS, Result, capacity};
use crate::world::World;

/// The results of one pool in one scenario. All times are since its beginning.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) scenario: Scenario,
    pub(crate) peer: Peer,
    pub(crate) callers: Arc<[Caller]>,
    /// In no order, and without callers that never got an answer.
    pub(crate) samples: Vec<Sample>,
    /// When the incident began.
    pub(crate) struck: Duration,
    /// When the incident ended: the server accepts connections again.
    pub(crate) back: Duration,
    /// The capacity of the pool in queries per second, with the lease duration of the incident.
    pub(crate) capacity_during: f64,
    /// How long a query of the incident takes without load.
    pub(crate) service_during: Duration,
    /// The connections at some times, as the server counts them.
    pub(crate) connections: Vec<(Duration, usize)>,
    /// Connections that the pool made, without the first ones. `None` if nobody has counted them.
    pub(crate) made: Option<i64>,
    /// The first, from `struck` on.
    pub(crate) warning: Option<(Duration, String)>,
    /// The longest delay with which a caller was sent.
    pub(crate) lag: Duration,
}

/// One caller that got an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// The number of the caller. Callers of a burst arrive at the same time, so the time is not unique.
    pub(crate) number: usize,
    pub(crate) caller: Caller,
    /// When it was answered, since the beginning.
    pub(crate) answered: Duration,
    /// From the call to the answer.
    pub(crate) took: Duration,
    pub(crate) answer: Answer,
}

impl Sample {
    pub(crate) fn is_served(&self) -> bool {
        self.answer == Answer::Served
    }

    pub(crate) fn is_in_time(&self) -> bool {
        self.is_served() && self.took <= self.caller.deadline
    }
}

/// Plays a scenario for these pools at once.
pub(crate) async fn play(scenario: &Scenario, peers: &[Peer], seed: u64, world: &mut World) -> Result<Vec<Trace>> {
    let callers: Arc<[Caller]> = callers::of(scenario, seed).into();
    let mut pools = Vec::new();
    world.begin(scenario, peers).await?;
    for peer in peers {
        world.prepare(*peer, scenario).await?;
        let sessions = world.sessions(*peer, scenario.fault).await?;
        let pool = peer.connect(&world.config(*peer, scenario)?, scenario).await;
        pools.push((*peer, pool.map_err(|error| format!("{peer}: {}", chain(&*error)))?, sessions));
    }

    let begun = Instant::now();
    let mut running = JoinSet::new();
    for (index, (_, pool, _)) in pools.iter().enumerate() {
        let sending = send(Arc::clone(pool), scenario.length(), Arc::clone(&callers), begun);
        running.spawn(async move { (index, sending.await) });
    }
    let count = world.count_connections(scenario.fault, begun);
    sleep_until((begun + scenario.begins()).into()).await;
    let struck = world.strike(scenario.fault).await? - begun;
    if scenario.fault == Fault::Deploy {
        try_join_all(pools.iter().map(|(_, pool, _)| pool.deploy(scenario.ends() - struck))).await?;
    }
    sleep_until((begun + scenario.ends()).into()).await;
    let back = world.lift(scenario.fault).await? - begun;
    let mut answers = running.join_all().await;
    answers.sort_by_key(|(index, _)| *index);
    let mut counts = count.end();

    let mut traces = Vec::new();
    for ((peer, pool, sessions), (_, answers)) in pools.into_iter().zip(answers) {
        let warning = pool.first_warning(begun + struck).map(|(at, line)| (at - begun, line));
        pool.close().await;
        drop(pool);
        traces.push(Trace {
            scenario: scenario.clone(),
            peer,
            callers: Arc::clone(&callers),
            samples: answers.samples,
            struck,
            back,
            capacity_during: capacity(scenario.hold),
            service_during: world.service(scenario.hold),
            connections: counts.remove(&peer).unwrap_or_default(),
            made: sessions.zip(world.sessions(peer, scenario.fault).await?).map(made),
            warning,
            lag: answers.lag,
        });
    }
    Ok(traces)
}

/// An error with its causes: the driver's own text is only "db error".
fn chain(error: &(dyn Error + Send + Sync)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn made((before, after): (i64, i64)) -> i64 {
    (after - before - CONNECTIONS as i64).max(0)
}

/// The results of all calls to a pool.
struct Answers {
    samples: Vec<Sample>,
    /// How late the latest caller was: a busy machine cannot keep time.
    lag: Duration,
}

/// Sends the callers. A caller without an answer at the end has no sample.
async fn send(pool: Arc<dyn Pool>, length: Duration, callers: Arc<[Caller]>, begun: Instant) -> Answers {
    let samples = Arc::new(Mutex::new(Vec::with_capacity(callers.len())));
    let mut running = JoinSet::new();
    let mut lag = Duration::ZERO;
    for (number, caller) in callers.iter().copied().enumerate() {
        if begun.elapsed() < caller.due {
            sleep_until((begun + caller.due).into()).await;
        }
        lag = lag.max(begun.elapsed().saturating_sub(caller.due));
        let (pool, samples) = (Arc::clone(&pool), Arc::clone(&samples));
        running.spawn(async move {
            let asked = begun.elapsed();
            let answer = pool.ask(&caller).await;
            let answered = begun.elapsed();
            let sample = Sample { number, caller, answered, took: answered - asked, answer };
            samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
        });
        while running.try_join_next().is_some() {}
    }
    let give_up = begun + length + AFTERMATH;
    while let Ok(Some(_)) = timeout_at(give_up.into(), running.join_next()).await {}
    running.shutdown().await;
    let samples = std::mem::take(&mut *samples.lock().unwrap_or_else(PoisonError::into_inner));
    Answers { samples, lag }
}

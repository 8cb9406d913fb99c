//! The task of a fleet's member. It has one connection, which takes no slot of the pool and serves no caller.
//!
//! The order of a round: show the beacon and read the others', compute, and show what was computed. A pool that may
//! grow reads once more, and grows only if nobody else has claimed the same connections. A pool that has to shrink does
//! so at once. Between rounds, the task looks at the pool four times a second.

use std::pin::pin;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::select;
use tokio::runtime::Handle;
use tokio::time;

use super::core::Fleet;
use super::question;
use crate::clock::now;
use crate::conn::{Dialer, Scouting};
use crate::error::ConnectError;
use crate::policy::{FleetReading, FleetState, Own};
use crate::slots::Slots;

/// How often the task looks at the pool.
const TICK: Duration = Duration::from_millis(250);
/// An answer may take this long. After that, the task closes the connection.
const LIMIT: Duration = Duration::from_secs(2);
/// When a member behind a pooler looks for the server itself again.
const POOLER: Duration = Duration::from_secs(60);

impl Fleet {
    /// Starts the task, unless it runs.
    pub(crate) fn start(self: &Arc<Self>, slots: &Arc<Slots<Dialer>>, runtime: &Handle) {
        if !self.is_running.swap(true, SeqCst) {
            runtime.spawn(run(Running(Arc::clone(self)), Arc::downgrade(slots)));
        }
    }
}

/// The right to run the task. A pool has one.
struct Running(Arc<Fleet>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.is_running.store(false, SeqCst);
    }
}

/// The connection and what it shows.
struct Session {
    connection: Scouting,
    process: u32,
    shown: String,
    /// When the beacon may change again.
    next_change: Instant,
}

/// Why a round failed.
enum Trouble {
    /// A pooler has answered.
    Pooler,
    /// The server has no connection left.
    Full(String),
    Other(String),
}

/// Runs until the pool is closed.
async fn run(running: Running, slots: Weak<Slots<Dialer>>) {
    let Some(mut orders) = slots.upgrade().map(|slots| slots.dialer().listen_control().orders()) else { return };
    let closed = orders.wait_for(|orders| orders.is_closed);
    select(pin!(go_round(&running.0, &slots)), pin!(closed)).await;
}

async fn go_round(fleet: &Fleet, slots: &Weak<Slots<Dialer>>) {
    let (mut session, mut refusals, mut due) = (None, 0, Due::AtOnce);
    while let Some(slots) = slots.upgrade() {
        tick(fleet, &slots, &mut refusals);
        let is_due = due.is_now(fleet);
        let done = if is_due { round(fleet, &slots, &mut session).await } else { change(fleet, &mut session).await };
        apply(fleet, &slots);
        if is_due || done.is_err() {
            due = Due::after(fleet, &done);
        }
        if done.is_err() {
            session = None;
        }
        drop(slots);
        select(pin!(fleet.ordered.notified()), pin!(time::sleep(TICK))).await;
    }
}

/// When the next round is due.
enum Due {
    AtOnce,
    /// After a pause from this instant on. The pause becomes shorter when the pool needs more. The random number
    /// spreads the members.
    After(Instant, f64),
    At(Instant),
}

impl Due {
    fn after(fleet: &Fleet, done: &Result<(), Trouble>) -> Self {
        let (random01, member, now) = (fastrand::f64(), fleet.member.lock(), now());
        match done {
            Ok(()) => Self::After(now, random01),
            Err(Trouble::Other(_) | Trouble::Full(_)) if member.state(now) != FleetState::Off => {
                // Often only the connection was lost, and the server is well.
                Self::At(now + member.pause(now, random01).mul_f64(random01))
            }
            Err(_) => Self::At(now + POOLER.mul_f64(0.75 + random01 / 2.0)),
        }
    }

    fn is_now(&self, fleet: &Fleet) -> bool {
        let now = now();
        match self {
            Self::AtOnce => true,
            Self::After(since, random01) => now >= *since + fleet.member.lock().pause(now, *random01),
            Self::At(at) => now >= *at,
        }
    }
}

/// Records what the pool has and needs, and reports events.
fn tick(fleet: &Fleet, slots: &Arc<Slots<Dialer>>, refusals: &mut u64) {
    let (counts, now) = (slots.counts(), now());
    let held = counts.taken();
    let in_use = counts.in_use + counts.settling;
    let demand = Some(f64::from_bits(fleet.demand.load(Relaxed)));
    let (waiting, is_short) = (counts.waiting, counts.waiting > 0 || in_use >= counts.limit);
    let own = Own { held, in_use, waiting, is_short, demand, useful: fleet.limit.adaptive() };
    let refused = slots.dialer().times_full();
    let events = {
        let mut member = fleet.member.lock();
        member.tick(now, &own);
        if refused != std::mem::replace(refusals, refused) {
            member.on_refused(now, held - counts.dialing);
        }
        let trouble = fleet.trouble.lock();
        fleet.reports.lock().look(now, &member, trouble.as_deref())
    };
    apply(fleet, slots);
    events.into_iter().for_each(|event| fleet.telemetry.emit(event));
}

/// Lets the pool use what the member may use.
fn apply(fleet: &Fleet, slots: &Arc<Slots<Dialer>>) {
    // Under the lock, so that an older budget never comes after a newer one.
    let member = fleet.member.lock();
    fleet.limit.set_budget(slots, member.limit());
}

/// Shows the beacon, reads the others', shows what follows, and confirms a larger claim.
async fn round(fleet: &Fleet, slots: &Arc<Slots<Dialer>>, session: &mut Option<Session>) -> Result<(), Trouble> {
    let done = async {
        if session.is_none() {
            *session = Some(connect(fleet, slots).await?);
        }
        let Some(session) = session else { return Ok(()) };
        let reading = read(fleet, session).await?;
        fleet.member.lock().on_reading(now(), reading);
        // Before the others see that the claim is smaller.
        apply(fleet, slots);
        show(fleet, session).await?;
        if fleet.member.lock().is_claiming() {
            let reading = read(fleet, session).await?;
            fleet.member.lock().on_second_reading(now(), &reading);
        }
        Ok(())
    };
    let done = done.await;
    let mut member = fleet.member.lock();
    match &done {
        Ok(()) => *fleet.trouble.lock() = None,
        Err(Trouble::Pooler) => member.on_pooler(),
        Err(trouble @ (Trouble::Full(reason) | Trouble::Other(reason))) => {
            *fleet.trouble.lock() = Some(reason.clone());
            member.on_lost();
            if matches!(trouble, Trouble::Full(_)) {
                member.on_beacon_refused(now());
            }
        }
    }
    done
}

/// Reads, and shows the beacon as it is now.
async fn read(fleet: &Fleet, session: &mut Session) -> Result<FleetReading, Trouble> {
    let beacon = fleet.member.lock().beacon();
    let text = beacon.text(&fleet.budget);
    let row = session.connection.ask(&question::read(&text, &fleet.budget), LIMIT).await;
    let answer = row.map_err(Trouble::Other)?;
    let reading = question::answer(&answer, &fleet.budget, fleet.headroom)
        .ok_or_else(|| Trouble::Other(format!("an answer that makes no sense: {answer:?}")))?;
    if reading.process != session.process {
        return Err(Trouble::Pooler);
    }
    session.shown = text;
    fleet.member.lock().on_shown(beacon.granted);
    Ok(reading)
}

async fn connect(fleet: &Fleet, slots: &Slots<Dialer>) -> Result<Session, Trouble> {
    let of_dial = |error: ConnectError| {
        if error.is_full() { Trouble::Full(error.to_string()) } else { Trouble::Other(error.to_string()) }
    };
    let connection = slots.dialer().dial_to_ask().await.map_err(of_dial)?;
    let row = connection.ask(question::WHO, LIMIT).await.map_err(Trouble::Other)?;
    let process = row.first().and_then(|column| column.as_deref()?.parse().ok()).unwrap_or_default();
    // A pooler begins the session by itself, with a process number that is not the server's.
    if connection.process_id().and_then(|process| u32::try_from(process).ok()) != Some(process) {
        return Err(Trouble::Pooler);
    }
    connection.ask(question::KEEPALIVES, LIMIT).await.map_err(Trouble::Other)?;
    fleet.member.lock().on_server(slots.counts().taken());
    Ok(Session { connection, process, shown: String::new(), next_change: now() })
}

/// Shows the beacon if it has changed and it is time.
async fn change(fleet: &Fleet, session: &mut Option<Session>) -> Result<(), Trouble> {
    let Some(session) = session.as_mut().filter(|session| now() >= session.next_change) else { return Ok(()) };
    let shown = show(fleet, session).await;
    if let Err(Trouble::Other(reason)) = &shown {
        *fleet.trouble.lock() = Some(reason.clone());
        fleet.member.lock().on_lost();
    }
    shown
}

async fn show(fleet: &Fleet, session: &mut Session) -> Result<(), Trouble> {
    let (beacon, pause) = {
        let member = fleet.member.lock();
        (member.beacon(), member.change_pause())
    };
    let text = beacon.text(&fleet.budget);
    if text != session.shown {
        session.connection.ask(&question::show(&text), LIMIT).await.map_err(Trouble::Other)?;
        session.shown = text;
        session.next_change = now() + pause;
    }
    fleet.member.lock().on_shown(beacon.granted);
    Ok(())
}

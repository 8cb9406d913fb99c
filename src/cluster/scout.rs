//! Asks one host for its role, its timeline and its place in the log, once a second, on a connection of its own.
//!
//! It takes no connection of the pool. A pool that is full or slow says nothing about the server, and its callers must
//! not wait for a question. No caller waits for an answer either: callers use the last one.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time;

use super::board::STARTED;
use super::core::Core;
#[cfg(feature = "testing")]
use super::pretended;
use super::state::{Answer, FollowUps};
use crate::clock::now;
use crate::conn::Scouting;
use crate::policy::{Primacy, Sighting};

/// The scouts of replicas ask this long after the primary has answered. By then a replica that keeps up has replayed
/// it.
const AFTER_PRIMARY: Duration = Duration::from_millis(50);
/// The shortest time between two questions, however many callers want an answer.
const SHORTEST: Duration = Duration::from_millis(20);
/// Without a primary, the scouts ask this many times as often.
const HURRY: u32 = 4;
/// The longest pause between two new sessions while there is no primary.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Which functions the owner's role may call. Some providers revoke them.
#[derive(Debug, Clone, Copy, Default)]
struct Rights {
    system: bool,
    checkpoint: bool,
}

const RIGHTS: &str = "SELECT has_function_privilege(to_regprocedure('pg_catalog.pg_control_system()'), 'EXECUTE'), \
                      has_function_privilege(to_regprocedure('pg_catalog.pg_control_checkpoint()'), 'EXECUTE')";

/// A connection, and the question that the role may ask on it.
struct Session {
    connection: Scouting,
    question: String,
}

/// When to connect anew, although the session is well. Where a name leads to the primary, it may lead elsewhere by now,
/// and the session stays where it is. So without a primary, the scout connects anew, at longer and longer intervals.
#[derive(Debug, Default)]
struct Renewal {
    next: Option<Instant>,
    pause: Duration,
}

impl Renewal {
    /// Returns whether it is time. `every` is the first pause. `random01` spreads the processes.
    fn begins(&mut self, now: Instant, has_primary: bool, every: Duration, random01: f64) -> bool {
        if has_primary {
            *self = Self::default();
            return false;
        }
        let is_due = self.next.is_some_and(|next| now >= next);
        if is_due || self.next.is_none() {
            self.pause = (self.pause * 2).clamp(every, LONGEST_PAUSE);
            self.next = Some(now + self.pause.mul_f64(0.5 + random01));
        }
        is_due
    }
}

impl Core {
    /// Starts the scouts that do not run, if there is a runtime. A scout ends with its runtime, and is then replaced.
    /// The host of a closed pool needs none.
    pub(super) fn start(self: &Arc<Self>) {
        let mut scouts = self.scouts.lock();
        let is_missing = |host: &usize| {
            scouts[*host].as_ref().is_none_or(JoinHandle::is_finished) && !self.hosts[*host].pool.is_closed()
        };
        let missing: Vec<_> = (0..self.hosts.len()).filter(is_missing).collect();
        if missing.is_empty() {
            return;
        }
        let Some(runtime) = self.runtime.clone().or_else(|| Handle::try_current().ok()) else { return };
        if scouts.iter().all(Option::is_none) {
            self.board.state().on_start(now());
        }
        for host in missing {
            scouts[host] = Some(runtime.spawn(watch(Arc::clone(self), host)));
        }
    }

    pub(super) fn stop(&self) {
        self.scouts.lock().iter_mut().filter_map(Option::take).for_each(|scout| scout.abort());
        let labels = self.hosts.iter().map(|host| &host.label);
        self.meter.on_end(labels);
    }
}

/// How long a scout rests after a look that a caller has asked for. `in_vain` such looks in a row found nothing new
/// before. `jitter` is 0 to 1.
fn rest(in_vain: u32, every: Duration, jitter: f64) -> Duration {
    let longest = (every / HURRY).max(SHORTEST);
    SHORTEST.saturating_mul(1 << in_vain.min(10)).min(longest).mul_f64(1.0 + jitter / 2.0)
}

/// Runs until the cluster is dropped or the host's pool is closed.
async fn watch(core: Arc<Core>, host: usize) {
    let (mut session, mut renewal, mut in_vain) = (None, Renewal::default(), 0);
    while !core.hosts[host].pool.is_closed() {
        let has_primary = matches!(core.board.state().primacy(), Primacy::Primary { .. });
        let is_renewed = renewal.begins(now(), has_primary, core.settings.looks.every, fastrand::f64());
        let found = look(&core, host, &mut session, is_renewed).await;
        // After a failure the next look dials, and all processes would dial at once. So no caller shortens this rest.
        let rest = match found {
            Found::Nothing => (core.settings.looks.every / HURRY).mul_f64(0.5 + fastrand::f64()),
            Found::Same => rest(in_vain, core.settings.looks.every, fastrand::f64()),
            Found::News => SHORTEST,
        };
        time::sleep(rest).await;
        let pause = pause(&core, host).saturating_sub(rest);
        let asked = pin!(core.board.asked_for(host));
        let is_asked_for = matches!(select(asked, pin!(time::sleep(pause))).await, Either::Left(_));
        // Looks that no caller has asked for are far apart, so the next one that a caller asks for may come at once.
        in_vain = if is_asked_for && found != Found::News { in_vain + 1 } else { 0 };
    }
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// No answer.
    Nothing,
    /// The same answer as before.
    Same,
    News,
}

/// Asks once, on a new session if there is none, if the pool has found another server, or to renew it.
async fn look(core: &Core, host: usize, session: &mut Option<Session>, is_renewed: bool) -> Found {
    let is_doubted = core.board.state().is_doubted(host);
    let mut is_new_session = session.is_none();
    if !is_new_session && (is_doubted || is_renewed) {
        // To be renewed is no reason to become silent meanwhile.
        let limit = if is_doubted { Duration::MAX } else { core.settings.looks.timeout };
        // The old session is good enough if no other can be had.
        if let Ok(Ok(new)) = time::timeout(limit, connect(core, host)).await {
            (*session, is_new_session) = (Some(new), true);
        }
    }
    let looked = ask(core, host, session).await;
    let (now, has_answered) = (now(), looked.is_ok());
    let outcome = match looked {
        Ok((asked, answer)) => {
            let mut state = core.board.state();
            let outcome = state.on_answer(now, host, asked, answer, is_new_session);
            // The answer of one host may make another one the primary.
            if state.is_primary(host) || outcome.is_new_primary {
                core.board.on_primary_answered(now);
            }
            outcome
        }
        Err(reason) => {
            *session = None;
            core.board.state().on_failure(now, host, reason)
        }
    };
    let FollowUps { events, flush, ask, is_news, .. } = outcome;
    // Before the waiting callers are woken: they must not get a connection to the former server.
    if flush {
        core.hosts[host].pool.shared.slots.flush();
    }
    ask.into_iter().for_each(|name| core.board.ask(name));
    core.board.on_look();
    core.report(events);
    match (has_answered, is_news) {
        (false, _) => Found::Nothing,
        (true, false) => Found::Same,
        (true, true) => Found::News,
    }
}

/// Asks once. Returns the answer, and the instant before the question was sent.
async fn ask(core: &Core, host: usize, session: &mut Option<Session>) -> Result<(Instant, Answer), String> {
    let limit = core.settings.looks.timeout;
    #[cfg(feature = "testing")]
    if core.settings.has_no_servers {
        return Ok((now(), pretended::answer(now(), host)));
    }
    if session.is_none() {
        *session = Some(connect(core, host).await?);
    }
    let Some(Session { connection, question }) = session else { return Err("not connected".to_owned()) };
    let asked = now();
    let row = connection.ask(question, limit).await?;
    let answer = read(now(), &row).ok_or_else(|| format!("an answer that makes no sense: {row:?}"))?;
    Ok((asked, answer))
}

async fn connect(core: &Core, host: usize) -> Result<Session, String> {
    let (limit, pool) = (core.settings.looks.timeout, &core.hosts[host].pool);
    let dialer = pool.shared.slots.dialer();
    // The dial is bounded by the pool's connect_timeout.
    let connection = dialer.scout().await?;
    let row = connection.ask(RIGHTS, limit).await?;
    let is_granted = |column: usize| matches!(row.get(column), Some(Some(granted)) if granted == "t");
    let question = question(Rights { system: is_granted(0), checkpoint: is_granted(1) });
    Ok(Session { connection, question })
}

/// The question. PostgreSQL refuses it if it names a function that the role may not call.
fn question(rights: Rights) -> String {
    let system = if rights.system { "(SELECT system_identifier FROM pg_catalog.pg_control_system())" } else { "NULL" };
    let checkpoint =
        if rights.checkpoint { "(SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())" } else { "NULL" };
    // Places are rounded by pages of 8 kB, so a primary with other pages gives none. A replica's checkpoint shows a new
    // timeline minutes late. Its receiver shows it at once, to roles that may see it.
    format!(
        "SELECT is_replica, \
         CASE WHEN is_replica THEN pg_catalog.pg_last_wal_replay_lsn() \
         WHEN pg_catalog.current_setting('wal_block_size') = '8192' THEN pg_catalog.pg_current_wal_insert_lsn() END, \
         CASE WHEN NOT is_replica THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END, \
         CASE WHEN is_replica THEN greatest({checkpoint}, \
         (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver)) END, \
         {system}, {STARTED} FROM pg_catalog.pg_is_in_recovery() is_replica"
    )
}

fn read(now: Instant, row: &[Option<String>]) -> Option<Answer> {
    let [is_replica, place, file, timeline, system, started] = row else { return None };
    let is_in_recovery = is_replica.as_deref()? == "t";
    let timeline = match file {
        Some(file) => u32::from_str_radix(file.get(..8)?, 16).ok(),
        None => timeline.as_deref().and_then(|timeline| timeline.parse().ok()),
    };
    let system = system.as_deref().and_then(|system| system.parse::<i64>().ok()).map(|system| system as u64);
    let started = started.as_deref()?.parse().ok()?;
    let place = place.as_deref().and_then(|place| place.parse().ok());
    Some(Answer { sighting: Sighting { at: now, is_in_recovery, timeline, system, started }, place })
}

/// How long until the next question, if no caller wants an answer before.
fn pause(core: &Core, host: usize) -> Duration {
    let every = core.settings.looks.every;
    let state = core.board.state();
    let is_replica = match state.primacy() {
        Primacy::Primary { host: primary, .. } => primary != host,
        Primacy::NoPrimary | Primacy::TwoPrimaries(..) | Primacy::TwoSystems(..) => return every / HURRY,
    };
    drop(state);
    match core.board.since_primary(now()) {
        Some(since) if is_replica && since < every => every - since + AFTER_PRIMARY.min(every / HURRY),
        _ => every,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_primary_sessions_are_renewed_at_longer_and_longer_intervals() {
        let (second, begun) = (Duration::from_secs(1), Instant::now());
        let mut renewal = Renewal::default();
        let times = |renewal: &mut Renewal, range: std::ops::Range<u32>| {
            let at = |quarter: u32| begun + second / 4 * quarter;
            range
                .filter(|quarter| renewal.begins(at(*quarter), false, second, 0.5))
                .map(|quarter| quarter / 4)
                .collect::<Vec<_>>()
        };
        assert_eq!(times(&mut renewal, 0..1_000), [1, 3, 7, 15, 31, 63, 123, 183, 243]);
        assert!(!renewal.begins(begun + second * 300, true, second, 0.5), "there is a primary");
        assert_eq!(times(&mut renewal, 1_204..1_220), [302, 304]);
    }

    #[test]
    fn looks_that_find_nothing_new_come_further_and_further_apart() {
        let rests = |every| [0, 1, 2, 3, 4, 100].map(|in_vain| rest(in_vain, every, 0.0).as_millis());
        assert_eq!(rests(Duration::from_secs(1)), [20, 40, 80, 160, 250, 250]);
        assert_eq!(rests(Duration::from_millis(100)), [20, 25, 25, 25, 25, 25]);
        assert_eq!(rest(0, Duration::from_secs(1), 1.0), Duration::from_millis(30));
    }
}

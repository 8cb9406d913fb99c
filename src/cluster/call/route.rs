//! Decides where one call goes: to the primary or to a replica, and to another host if the first one cannot serve it.
//!
//! Each attempt passes a gate when it gets its connection: a host that is not the primary any more serves no call of
//! the primary, and a replica serves what it can still prove. Until then nothing was sent, so a call that waits at a
//! host that has stopped being the primary leaves it at once.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use tokio::sync::watch;

use super::settings::ClusterCallOptions;
use crate::call::{Call, Gate, Prover};
use crate::clock::now;
use crate::cluster::board::changed_before;
use crate::cluster::core::{Core, ReadPlace};
use crate::cluster::failure::{Elsewhere, Failure, Seen};
use crate::cluster::state::Decision;
use crate::error::Error;
use crate::policy::{Deadline, Effect, Need, Primacy};
#[cfg(feature = "testing")]
use crate::pretend::Moment;

/// How long a call waits for another primary before it tries the same one again. Each wait is twice as long as the one
/// before, up to 16 times this.
const AGAIN: Duration = Duration::from_millis(100);

/// The pauses between the attempts of one call.
#[derive(Debug, Default)]
struct Pauses {
    made: u32,
}

impl Pauses {
    /// Returns the next pause, with jitter: many calls may wait.
    fn next(&mut self) -> Duration {
        let pause = AGAIN * (1 << self.made.min(4));
        self.made += 1;
        pause.mul_f64(0.5 + fastrand::f64())
    }
}

/// A call on its way.
pub(super) struct Route<'a> {
    call: ClusterCallOptions<'a>,
    is_statement: bool,
    begun: Instant,
    /// When the call stops looking for a host.
    limit: Instant,
    gate: Gate<'a>,
}

/// How an attempt at the primary ended.
enum Ended<T, E> {
    Result(Result<T, E>),
    /// Another host is the primary. The attempt was dropped.
    Moved,
}

impl<'a> Route<'a> {
    pub(super) fn new(call: ClusterCallOptions<'a>) -> Self {
        let core: &'a Core = call.core;
        let begun = now();
        // All hosts have the same settings.
        let wait = call.wait.unwrap_or(core.hosts[0].pool.shared.acquire_timeout);
        let limit = call.until.map_or_else(|| Deadline::after(begun, wait), |until| until.deadline()).instant();
        Self { call, is_statement: false, begun, limit, gate: Gate::new(core, call.need) }
    }

    pub(super) fn of_statement(call: ClusterCallOptions<'a>) -> Self {
        Self { is_statement: true, ..Self::new(call) }
    }

    fn core(&self) -> &'a Core {
        self.call.core
    }

    /// Runs `work` on a host, and after some failures on another one.
    pub(super) async fn run<'r, T, E, Fut>(&'r self, work: impl Fn(Call<'r>) -> Fut) -> Result<T, E>
    where
        Fut: Future<Output = Result<T, E>>,
        E: From<Error> + Failure,
    {
        self.call.core.start();
        self.core().first_answers(self.limit).await;
        match self.call.need {
            None => self.run_on_primary(&work).await,
            Some(need) => self.run_on_replica(need, &work).await,
        }
    }

    async fn run_on_primary<'r, T, E, Fut>(&'r self, work: &impl Fn(Call<'r>) -> Fut) -> Result<T, E>
    where
        Fut: Future<Output = Result<T, E>>,
        E: From<Error> + Failure,
    {
        let (core, mut doubt, mut earlier, mut pauses) = (self.core(), None, None, Pauses::default());
        loop {
            let mut decisions = core.board.decisions();
            let before = core.board.state().primacy();
            let mut refused = None;
            let (error, seen) = match self.primary() {
                Ok(host) => match self.attempt_at_primary(host, work).await {
                    Ended::Result(Ok(value)) => return Ok(value),
                    Ended::Result(Err(error)) => {
                        let seen = self.seen(host, false, &error);
                        if seen.elsewhere == Elsewhere::NoPrimary && self.has_moved_from(host) && now() < self.limit {
                            continue;
                        }
                        (error, seen)
                    }
                    Ended::Moved => {
                        if self.gate.is_passed() {
                            doubt = Some(E::from(self.unanswered()));
                        }
                        continue;
                    }
                },
                Err(error) => {
                    refused = Some(error.kind());
                    let error = E::from(error);
                    let seen = error.seen();
                    (error, seen)
                }
            };
            if seen.is_about_the_primary() {
                core.board.ask_now();
            }
            if !seen.is_about_the_primary() || !self.may_wait(seen.is_doubtful) {
                if let (None, Some(kind)) = (&doubt, refused) {
                    core.on_refused(kind);
                }
                // An attempt for which no time was left says nothing. The one before says why the call has failed.
                let is_late = seen.elsewhere == Elsewhere::Slow && !seen.is_doubtful && now() >= self.limit;
                let error = if is_late { earlier.unwrap_or(error) } else { error };
                return Err(doubt.unwrap_or(error));
            }
            if seen.is_doubtful {
                doubt = Some(error);
            } else {
                earlier = Some(error);
            }
            // Without a primary, another attempt would find none. With one, it may be reachable again.
            let is_there = matches!(before, Primacy::Primary { .. });
            let until = if is_there { self.limit.min(now() + pauses.next()) } else { self.limit };
            self.wait_for_another_primary(before, &mut decisions, until).await;
        }
    }

    async fn wait_for_another_primary(
        &self,
        before: Primacy,
        decisions: &mut watch::Receiver<Decision>,
        until: Instant,
    ) {
        let has_changed = || {
            let primacy = self.core().board.state().primacy();
            primacy != before && matches!(primacy, Primacy::Primary { .. })
        };
        while !has_changed() && changed_before(decisions, until).await {}
    }

    /// One attempt at the primary. It is dropped if another host becomes the primary before anything was sent. If the
    /// call may wait for a new primary, a statement that may run twice is dropped as well, even after it was sent: a
    /// host that has lost its network never answers.
    async fn attempt_at_primary<'r, T, E, Fut>(&'r self, host: usize, work: &impl Fn(Call<'r>) -> Fut) -> Ended<T, E>
    where
        Fut: Future<Output = Result<T, E>>,
    {
        let _under_way = self.core().hosts[host].begin();
        let mut decisions = self.core().board.decisions();
        let is_safe = self.is_statement && self.call.is_idempotent && self.call.across_failover;
        let left = pin!(async {
            loop {
                let may_leave = !self.gate.is_passed() || (is_safe && now() < self.limit);
                if may_leave && self.has_moved_from(host) {
                    return;
                }
                if decisions.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        });
        // `work` is polled first. Otherwise a call that has just got its connection might be dropped as one that waits.
        match select(pin!(work(self.on(host))), left).await {
            Either::Left((result, _)) => Ended::Result(result),
            Either::Right(_) => Ended::Moved,
        }
    }

    async fn run_on_replica<'r, T, E, Fut>(&'r self, need: Need, work: &impl Fn(Call<'r>) -> Fut) -> Result<T, E>
    where
        Fut: Future<Output = Result<T, E>>,
        E: From<Error> + Failure,
    {
        let core = self.core();
        let (mut excluded, mut failed, mut pauses) = (Vec::new(), None, Pauses::default());
        // A host that is full or slow is not stale. Its load must not move to the primary.
        let mut may_spill = true;
        loop {
            let mut decisions = core.board.decisions();
            let place = match self.place(need, &excluded, may_spill).await {
                Ok(place) => place,
                Err(error) => {
                    if self.is_without_primary() && self.may_wait(false) {
                        core.board.ask_now();
                        changed_before(&mut decisions, self.limit.min(now() + pauses.next())).await;
                        (excluded, may_spill) = (Vec::new(), true);
                        continue;
                    }
                    if failed.is_none() {
                        core.on_refused(error.kind());
                    }
                    return Err(failed.unwrap_or_else(|| E::from(error)));
                }
            };
            let ReadPlace { host, is_replica, spill_permit } = place;
            let result = if is_replica {
                let _under_way = core.hosts[host].begin();
                work(self.on(host)).await
            } else {
                match self.attempt_at_primary(host, work).await {
                    Ended::Result(result) => result,
                    Ended::Moved => continue,
                }
            };
            drop(spill_permit);
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let seen = self.seen(host, is_replica, &error);
            if matches!(seen.elsewhere, Elsewhere::ReadOnly | Elsewhere::Unreachable) {
                core.board.ask_now();
            }
            if !is_replica {
                let is_refused = seen.elsewhere == Elsewhere::NotFresh;
                if is_refused && self.has_moved_from(host) && now() < self.limit {
                    continue;
                }
                if (is_refused || seen.is_about_the_primary()) && self.may_wait(seen.is_doubtful) {
                    changed_before(&mut decisions, self.limit.min(now() + pauses.next())).await;
                    continue;
                }
                return Err(error);
            }
            // After a failure of the host itself, one other host is tried.
            let is_first = failed.is_none();
            match seen.elsewhere {
                _ if !self.is_safe(seen.is_doubtful) => return Err(error),
                Elsewhere::NotFresh => {}
                Elsewhere::Unreachable | Elsewhere::Conflict | Elsewhere::CircuitOpen if is_first => {
                    may_spill = seen.elsewhere == Elsewhere::Unreachable;
                    failed = Some(error);
                }
                _ => return Err(error),
            }
            excluded.push(host);
        }
    }

    /// What an error of this host says about another attempt. A host that is slow counts as one that cannot be reached,
    /// if it is silent, or if it got the call as the primary and is not the primary any more.
    fn seen(&self, host: usize, was_replica: bool, error: &impl Failure) -> Seen {
        let seen = error.seen();
        let is_dark = || {
            let state = self.core().board.state();
            state.is_silent(now(), host) || !(was_replica || state.is_primary(host))
        };
        if seen.elsewhere == Elsewhere::Slow && is_dark() {
            return Seen { elsewhere: Elsewhere::Unreachable, ..seen };
        }
        seen
    }

    fn is_safe(&self, is_doubtful: bool) -> bool {
        !is_doubtful || self.call.is_idempotent
    }

    /// Returns whether the call may wait for a new primary. `is_doubtful`: it may have been applied.
    fn may_wait(&self, is_doubtful: bool) -> bool {
        self.call.across_failover && self.is_safe(is_doubtful) && now() < self.limit
    }

    fn primary(&self) -> Result<usize, Error> {
        #[cfg(feature = "testing")]
        self.core().pretended(Moment::Primary, self.call.operation)?;
        self.core().primary()
    }

    async fn place(&self, need: Need, excluded: &[usize], may_spill: bool) -> Result<ReadPlace<'a>, Error> {
        #[cfg(feature = "testing")]
        self.core().pretended(Moment::Read, self.call.operation)?;
        self.core().place(need, excluded, may_spill).await
    }

    /// Returns whether another host is the primary.
    fn has_moved_from(&self, host: usize) -> bool {
        matches!(self.core().board.state().primacy(), Primacy::Primary { host: primary, .. } if primary != host)
    }

    /// Returns whether no host is the primary, or the primary is silent.
    fn is_without_primary(&self) -> bool {
        let state = self.core().board.state();
        match state.primacy() {
            Primacy::Primary { host, .. } => state.is_silent(now(), host),
            Primacy::NoPrimary | Primacy::TwoPrimaries(..) | Primacy::TwoSystems(..) => true,
        }
    }

    /// The error of a statement that had no answer when another host became the primary.
    fn unanswered(&self) -> Error {
        let (operation, after) = (self.call.operation, now().saturating_duration_since(self.begun));
        Error::QueryTimeout { operation, after, process_id: None, effect: Effect::Unknown }
    }

    /// The call of a host's pool with these settings.
    fn on<'r>(&'r self, host: usize) -> Call<'r> {
        let (core, settings) = (self.core(), &self.call);
        let shared = &core.hosts[host].pool.shared;
        // If an earlier attempt was sent, its work has used up time. The next attempt may wait as long as the first.
        let left = self.limit.saturating_duration_since(now());
        let wait = settings.wait.unwrap_or(shared.acquire_timeout);
        self.gate.on_attempt(host, if self.gate.has_ever_passed() { wait } else { left });
        let mut call = Call::new(shared, settings.taken).through(&self.gate);
        if let Some(until) = settings.until {
            call = call.deadline(until);
        }
        if let Some(timeout) = settings.timeout {
            call = call.timeout(timeout);
        }
        if let Some(operation) = settings.operation {
            call = call.name(operation);
        }
        if let Some(lane) = settings.lane {
            call = call.lane(lane);
        }
        if settings.is_uncached {
            call = call.uncached();
        }
        if settings.is_idempotent {
            call = call.idempotent();
        }
        if let Some(options) = settings.options {
            call = call.options(options);
        }
        if let Some(shedding) = settings.shedding {
            call = call.shedding(shedding);
        }
        call
    }
}

impl Prover for Core {
    fn check(&self, host: usize, need: Option<Need>) -> Result<(), Error> {
        let (now, state) = (now(), self.board.state());
        // The primary has whatever a read needs. A name that may lead elsewhere as well has not.
        let is_bounded = need.is_some_and(|need| need != Need::Any);
        if state.is_primary(host) && (!is_bounded || state.is_one_server(host)) {
            return Ok(());
        }
        let Some(need) = need else {
            drop(state);
            // Another host may be the primary. The call goes there at once, if it has time.
            return Err(self.primary().err().unwrap_or_else(|| {
                let hosts = format!("{} is the primary no longer", self.hosts[host].label).into();
                Error::NoPrimary { hosts, retry_after: Duration::ZERO }
            }));
        };
        if state.is_replica(host) && state.has(now, host, need) {
            return Ok(());
        }
        let nearest = state.candidates(now, need, &[]).nearest;
        drop(state);
        Err(self.not_fresh(nearest))
    }
}

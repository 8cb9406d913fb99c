//! A service in virtual time. Callers arrive at random, wait in order for at most a second, and hold one of a few
//! connections. The service refuses callers that would wait longer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::{Finding, Reading, Watch};
use crate::operation::Operation;
use crate::policy::{Lane, ShedReason};

/// The longest wait, in seconds.
const LIMIT: f64 = 1.0;

pub(super) struct Service<Load, Hold> {
    pub(super) limit: usize,
    /// The callers per second as a function of time.
    pub(super) load: Load,
    /// Returns the operation of a caller and how long it holds its connection, in seconds.
    pub(super) hold: Hold,
    /// Whether the watch sees the connections in use.
    pub(super) shows_running: bool,
}

/// What was found and when, in seconds.
pub(super) type Found = Vec<(f64, Finding)>;

/// A connection in use.
struct Lease {
    begun: f64,
    ends: f64,
    operation: Operation,
}

impl<Load, Hold> Service<Load, Hold>
where
    Load: Fn(f64) -> f64,
    Hold: Fn(f64, &mut fastrand::Rng) -> (Operation, f64),
{
    pub(super) fn run(&self, seed: u64, seconds: f64) -> Found {
        let (mut random, begun, mut watch) = (fastrand::Rng::with_seed(seed), Instant::now(), Watch::new());
        let (mut leases, mut queue) = (Vec::<Lease>::new(), VecDeque::<f64>::new());
        let (mut reading, mut found) = (Reading { limit: self.limit, ..Reading::default() }, Found::new());
        let (mut arrives, mut ticks, mut mean_hold) = (0.0, 0.25, 0.0);
        loop {
            let ends = leases.iter().map(|lease| lease.ends).fold(f64::INFINITY, f64::min);
            let now = f64::min(ends, f64::min(arrives, ticks));
            let instant = begun + Duration::from_secs_f64(now);
            if now >= seconds {
                return found;
            }
            if now == ends {
                let index = leases.iter().position(|lease| lease.ends == ends).unwrap();
                let lease = leases.swap_remove(index);
                let hold = ends - lease.begun;
                mean_hold += (hold - mean_hold) * 0.02;
                watch.record(instant, lease.operation, Lane::Normal, Duration::from_secs_f64(hold));
            } else if now == arrives {
                reading.arrivals += 1;
                arrives += -(1.0 - random.f64()).ln() / (self.load)(now);
                let wait = (queue.len() + 1) as f64 * mean_hold / self.limit as f64;
                if leases.len() == self.limit && wait > LIMIT {
                    reading.refused[ShedReason::Hopeless] += 1;
                } else {
                    queue.push_back(now);
                }
            } else {
                ticks += 0.25;
                let waited = |arrived: &f64| now - arrived > LIMIT;
                while queue.front().is_some_and(waited) {
                    queue.pop_front();
                    reading.refused.timed_out += 1;
                }
                (reading.in_use, reading.waiting) = (leases.len(), queue.len());
                let running = leases.iter().filter(|_| self.shows_running);
                let age = |lease: &Lease| Duration::from_secs_f64(now - lease.begun);
                let running = running.map(|lease| (lease.operation, Lane::Normal, age(lease)));
                found.extend(watch.tick(instant, &reading, running).into_iter().map(|finding| (now, finding)));
            }
            while leases.len() < self.limit && queue.pop_front().is_some() {
                let (operation, hold) = (self.hold)(now, &mut random);
                leases.push(Lease { begun: now, ends: now + hold, operation });
            }
        }
    }
}

/// Returns a random duration with an exponential distribution of this mean.
pub(super) fn about(mean: f64, random: &mut fastrand::Rng) -> f64 {
    -(1.0 - random.f64()).ln() * mean
}

pub(super) fn first(found: &Found, is: impl Fn(&Finding) -> bool) -> Option<f64> {
    found.iter().find(|(_, finding)| is(finding)).map(|(at, _)| *at)
}

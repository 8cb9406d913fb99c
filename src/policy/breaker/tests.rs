//! The rules of the breaker. Tests named `conformance_NN` come from opossum (O) or resilience4j (R), as the comment
//! above each says. The suffix `_as_opossum` marks tests of opossum's rule where this breaker's own rule differs on
//! purpose.

mod admin;
mod closed;
mod half_open;
mod model;
mod time;

use super::*;

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// This breaker's own rule. The circuit opens at 50% of at least one call, for 5 s, without jitter.
fn ours() -> BreakerParameters {
    BreakerParameters {
        rule: Rule::Ours,
        error_threshold: 50,
        volume_threshold: 1,
        window: 10 * SECOND,
        buckets: 10,
        count_window: None,
        reset_timeout: 5 * SECOND,
        jitter: 0,
        growth: None,
        permitted_probes: 1,
        probe_timeout: 10 * SECOND,
        slow_call: None,
        warm_up: false,
        latency: false,
    }
}

/// The same settings with opossum's rule.
fn opossum() -> BreakerParameters {
    BreakerParameters { rule: Rule::Opossum, volume_threshold: 0, ..ours() }
}

/// A breaker and its clock.
struct Scene {
    breaker: Breaker,
    now: Instant,
}

impl Scene {
    fn new(settings: BreakerParameters) -> Self {
        let now = Instant::now();
        Self { breaker: Breaker::new(now, settings, 0.0), now }
    }

    /// Returns a half-open breaker with an empty window.
    fn half_open(settings: BreakerParameters) -> Self {
        let mut scene = Self::new(settings);
        scene.breaker.import(scene.now, &Export { state: State::HalfOpen, ..Export::default() });
        scene.breaker.take_changes();
        scene
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    fn admit(&mut self) -> Ticket {
        self.breaker.admit(self.now).expect("a call should have been admitted")
    }

    fn denied(&mut self) -> Denied {
        self.breaker.admit(self.now).expect_err("a call should have been denied")
    }

    fn end(&mut self, ticket: Ticket, outcome: ResultKind) {
        self.breaker.record(self.now, ticket, outcome, Duration::ZERO, || 0.0);
    }

    /// Makes one call after another. `S` succeeds, `F` fails, `U` does not reach the server, `I` is ignored. A call
    /// with a lower-case letter takes a minute.
    fn calls(&mut self, outcomes: &str) -> State {
        for letter in outcomes.chars() {
            let ticket = self.admit();
            let outcome = match letter.to_ascii_uppercase() {
                'S' => ResultKind::Success,
                'F' => ResultKind::Failure,
                'U' => ResultKind::Unreachable,
                _ => ResultKind::Ignored,
            };
            let took = if letter.is_ascii_lowercase() { 60 * SECOND } else { Duration::ZERO };
            self.breaker.record(self.now, ticket, outcome, took, || 0.0);
        }
        self.state()
    }

    fn state(&mut self) -> State {
        self.breaker.state(self.now)
    }

    fn counts(&mut self) -> Counts {
        self.breaker.snapshot(self.now).counts
    }

    /// Returns the states that the breaker has entered since the last call.
    fn changes(&mut self) -> Vec<State> {
        self.breaker.take_changes().iter().map(|transition| transition.to).collect()
    }
}

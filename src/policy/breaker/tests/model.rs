//! Compares the breaker with a reference model that keeps every result in a list, over random calls and times.

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy)]
enum Step {
    Admit,
    /// Ends the call with this index, modulo the number of calls under way. The oldest call has index 0.
    End {
        call: usize,
        fails: bool,
    },
    Drop {
        call: usize,
    },
    Wait {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Admit),
        4 => (0usize..8, any::<bool>()).prop_map(|(call, fails)| Step::End { call, fails }),
        1 => (0usize..8).prop_map(|call| Step::Drop { call }),
        1 => (0u64..300).prop_map(|ms| Step::Wait { ms }),
        1 => (0u64..6_000).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// The reference model. Times are in milliseconds since the start.
#[derive(Debug)]
struct Model {
    settings: BreakerParameters,
    now: u64,
    mode: Mode,
    /// The number of changes of mode.
    epoch: u64,
    /// The time of each result, and whether it was a failure.
    results: Vec<(u64, bool)>,
    /// The times of the failures in this mode since the last success.
    streak: Vec<u64>,
}

#[derive(Debug, PartialEq)]
enum Mode {
    Closed,
    Open { until: u64 },
    HalfOpen { out: u32, since: u64, seen: Vec<bool> },
}

impl Model {
    fn become_(&mut self, mode: Mode) {
        self.mode = mode;
        self.streak.clear();
        self.epoch += 1;
    }

    fn open(&mut self, at: u64) {
        self.become_(Mode::Open { until: at + ms(self.settings.reset_timeout) });
    }

    fn pass_time(&mut self) {
        if let Mode::HalfOpen { out: 1.., since, .. } = self.mode {
            let end = since + ms(self.settings.probe_timeout);
            if end <= self.now {
                self.open(end);
            }
        }
        if let Mode::Open { until } = self.mode {
            if until <= self.now {
                self.become_(Mode::HalfOpen { out: 0, since: 0, seen: vec![] });
            }
        }
    }

    /// Returns the epoch in which the call was admitted. `None` if it was denied.
    fn admit(&mut self) -> Option<u64> {
        self.pass_time();
        let now = self.now;
        match &mut self.mode {
            Mode::Closed => Some(self.epoch),
            Mode::Open { .. } => None,
            Mode::HalfOpen { out, since, seen } => {
                if *out as usize + seen.len() == self.settings.permitted_probes as usize {
                    return None;
                }
                if *out == 0 {
                    *since = now;
                }
                *out += 1;
                Some(self.epoch)
            }
        }
    }

    fn end(&mut self, epoch: u64, fails: Option<bool>) {
        self.pass_time();
        if epoch != self.epoch {
            return;
        }
        if let Mode::HalfOpen { out, .. } = &mut self.mode {
            *out -= 1;
        }
        let Some(fails) = fails else { return };
        self.results.push((self.now, fails));
        if fails {
            self.streak.push(self.now);
        } else {
            self.streak.clear();
        }
        let is_blackout = self.streak.len() as u64 >= self.settings.volume_threshold
            && self.streak.first().is_some_and(|begun| self.now - begun >= 1_000);
        let (total, failures) = self.window();
        let is_bad = |failures: usize, total: usize| failures * 2 >= total;
        match &mut self.mode {
            Mode::Closed
                if is_blackout || (total as u64 >= self.settings.volume_threshold && is_bad(failures, total)) =>
            {
                self.open(self.now);
            }
            Mode::HalfOpen { seen, .. } => {
                seen.push(fails);
                if seen.len() == self.settings.permitted_probes as usize {
                    if is_bad(seen.iter().filter(|fails| **fails).count(), seen.len()) {
                        self.open(self.now);
                    } else {
                        self.results.clear();
                        self.become_(Mode::Closed);
                    }
                }
            }
            _ => {}
        }
    }

    /// Returns the number of results and of failures in the last ten seconds, by whole seconds.
    fn window(&self) -> (usize, usize) {
        let oldest = (self.now / 1_000).saturating_sub(9) * 1_000;
        let recent = self.results.iter().filter(|(at, _)| *at >= oldest);
        (recent.clone().count(), recent.filter(|(_, fails)| *fails).count())
    }

    fn state(&self) -> State {
        match self.mode {
            Mode::Closed => State::Closed,
            Mode::Open { .. } => State::Open,
            Mode::HalfOpen { .. } => State::HalfOpen,
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn agrees_with_the_reference_model(
        permitted_probes in 1u32..4,
        volume_threshold in 1u64..6,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let settings = BreakerParameters { permitted_probes, volume_threshold, probe_timeout: 2 * SECOND, ..ours() };
        let mut scene = Scene::new(settings);
        let mut model = Model { settings, now: 0, mode: Mode::Closed, epoch: 0, results: vec![], streak: vec![] };
        let mut under_way = VecDeque::new();
        for step in steps {
            match step {
                Step::Admit => {
                    let (ticket, epoch) = (scene.breaker.admit(scene.now), model.admit());
                    prop_assert_eq!(ticket.is_ok(), epoch.is_some());
                    under_way.extend(ticket.ok().zip(epoch));
                }
                Step::End { call, fails } if !under_way.is_empty() => {
                    let (ticket, epoch) = under_way.remove(call % under_way.len()).unwrap();
                    scene.end(ticket, if fails { ResultKind::Failure } else { ResultKind::Success });
                    model.end(epoch, Some(fails));
                }
                Step::Drop { call } if !under_way.is_empty() => {
                    let (ticket, epoch) = under_way.remove(call % under_way.len()).unwrap();
                    scene.breaker.release(scene.now, ticket);
                    model.end(epoch, None);
                }
                Step::End { .. } | Step::Drop { .. } => {}
                Step::Wait { ms } => {
                    scene.wait(MS * u32::try_from(ms).unwrap());
                    model.now += ms;
                }
            }
            model.pass_time();
            let snapshot = scene.breaker.snapshot(scene.now);
            prop_assert_eq!(snapshot.state, model.state());
            let (completed, failures) = model.window();
            prop_assert_eq!((snapshot.counts.completed, snapshot.counts.failures), (completed as u64, failures as u64));
            prop_assert_eq!(scene.breaker.check(scene.now).is_ok(), snapshot.retry_after.is_none());
            prop_assert!(snapshot.retry_after.is_none_or(|retry_after| !retry_after.is_zero()));
            let probes = under_way.iter().filter(|(_, epoch)| *epoch == model.epoch).count();
            let expected = if snapshot.state == State::HalfOpen { probes } else { 0 };
            prop_assert_eq!(snapshot.probes as usize, expected);
            prop_assert!(snapshot.probes <= permitted_probes);
        }
    }
}

//! The scenarios: each is a calm, an incident, and another calm.

use std::time::Duration;

use super::{DEADLINE, HOLD};

/// The load of a calm, as a share of the capacity.
const USUAL: f64 = 0.7;
/// The load of a calm in which callers arrive together.
const USUAL_TOGETHER: f64 = 0.6;

/// One incident.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// A description in one line.
    pub(crate) story: &'static str,
    /// The durations of the calm before, the incident, and the calm after.
    pub(crate) lasts: [Duration; 3],
    /// The load before and after the incident, as a share of the usual capacity.
    pub(crate) usual_load: f64,
    /// The load during the incident, as a share of the usual capacity.
    pub(crate) load: f64,
    pub(crate) pattern: Pattern,
    /// How long a query holds its connection during the incident.
    pub(crate) hold: Duration,
    pub(crate) fault: Fault,
}

/// How arrivals are distributed over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// At random, one by one: a Poisson process.
    AtRandom,
    /// All callers of a period arrive at its beginning.
    Together { every: Duration },
}

/// What happens to the server during the incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The server is stopped and started.
    Outage,
    /// The server is paused and resumed. It closes nothing, and answers nothing.
    Freeze,
    /// The server ends all connections of the pools.
    Kill,
}

impl Fault {
    pub(crate) fn needs_our_server(self) -> bool {
        matches!(self, Self::Outage | Self::Freeze)
    }
}

/// Every scenario, in the order in which they are played.
pub(crate) fn all(is_quick: bool) -> Vec<Scenario> {
    let lasts = |quick: [f64; 3], full: [f64; 3]| (if is_quick { quick } else { full }).map(Duration::from_secs_f64);
    let calm = Scenario {
        name: "calm",
        story: "",
        lasts: lasts([1.0, 4.0, 2.0], [1.5, 7.0, 4.0]),
        usual_load: USUAL,
        load: USUAL,
        pattern: Pattern::AtRandom,
        hold: HOLD,
        fault: Fault::None,
    };
    let surge = |name, story, load| Scenario { name, story, load, ..calm.clone() };
    let bursty = |name, story, every_ms| Scenario {
        lasts: lasts([1.0, 3.0, 1.5], [2.0, 7.0, 4.0]),
        usual_load: USUAL_TOGETHER,
        pattern: Pattern::Together { every: Duration::from_millis(every_ms) },
        ..surge(name, story, 3.0)
    };
    vec![
        surge("surge-2x", "twice of what the pool can do is asked of it", 2.0),
        surge("surge-3x", "a campaign nobody was told of: three times of what the pool can do", 3.0),
        surge("surge-5x", "five times of what the pool can do", 5.0),
        surge("surge-10x", "ten times of what the pool can do", 10.0),
        bursty("bursty-20ms", "callers arrive together every 20 ms: three times of what the pool can do, then 0.6", 20),
        bursty("bursty-50ms", "the same every 50 ms", 50),
        bursty("bursty-100ms", "the same every 100 ms", 100),
        Scenario {
            name: "slow",
            story: "a deploy makes the query nine times slower, at the usual load",
            lasts: lasts([1.5, 8.0, 2.0], [2.0, 20.0, 4.0]),
            hold: 9 * HOLD,
            ..calm.clone()
        },
        Scenario {
            name: "outage",
            story: "the server is stopped, and started again",
            lasts: lasts([1.0, 2.0, 5.0], [2.0, 4.0, 8.0]),
            fault: Fault::Outage,
            ..calm.clone()
        },
        Scenario {
            name: "freeze",
            story: "the server is paused, and resumed: no connection is closed, and none answers",
            lasts: lasts([1.0, 2.5, 3.5], [2.0, 4.0, 6.0]),
            fault: Fault::Freeze,
            ..calm.clone()
        },
        Scenario {
            name: "stale",
            story: "all connections are ended by the server while nobody uses them",
            lasts: lasts([1.0, 0.7, 2.0], [2.0, 1.0, 4.0]),
            load: 0.0,
            fault: Fault::Kill,
            ..calm.clone()
        },
        Scenario {
            name: "storm",
            story: "every query takes four times longer than its deadline",
            lasts: lasts([1.0, 4.0, 2.0], [2.0, 6.0, 34.0]),
            hold: 4 * DEADLINE,
            ..calm
        },
    ]
}

impl Scenario {
    /// From the beginning of the calm to the end of the calm after.
    pub(crate) fn length(&self) -> Duration {
        self.lasts.iter().sum()
    }

    /// When the incident begins.
    pub(crate) fn begins(&self) -> Duration {
        self.lasts[0]
    }

    /// When the incident ends, or when the repair begins.
    pub(crate) fn ends(&self) -> Duration {
        self.lasts[0] + self.lasts[1]
    }

    /// The load in each part, as a share of the usual capacity.
    pub(crate) fn loads(&self) -> [f64; 3] {
        [self.usual_load, self.load, self.usual_load]
    }

    /// How long a query that begins at this time holds its connection.
    pub(crate) fn hold_at(&self, asked: Duration) -> Duration {
        if (self.begins()..self.ends()).contains(&asked) { self.hold } else { HOLD }
    }

    /// Whether `wanted` is the name or its first word: `surge` means all four surges.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        self.name == wanted || self.name.split('-').next() == Some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_called_by_its_first_word() {
        let called = |wanted: &str| all(true).iter().filter(|scenario| scenario.is(wanted)).count();
        assert_eq!(called("surge"), 4);
        assert_eq!(called("surge-3x"), 1);
        assert_eq!(called("surge-3"), 0);
        assert_eq!(called("bursty"), 3);
        assert_eq!(called("bursty-50ms"), 1);
        assert_eq!(called("storm"), 1);
    }

    #[test]
    fn quick_leaves_time_to_start() {
        let length: Duration = all(true).iter().map(Scenario::length).sum();
        assert!(length < Duration::from_secs(85), "{length:?}");
    }

    #[test]
    fn only_what_is_asked_during_the_incident_is_slow() {
        let slow = all(true).into_iter().find(|scenario| scenario.is("slow")).unwrap();
        let asked = |seconds| slow.hold_at(Duration::from_secs_f64(seconds));
        assert_eq!([asked(1.4), asked(1.5), asked(9.4), asked(9.5)], [HOLD, 9 * HOLD, 9 * HOLD, HOLD]);
    }
}

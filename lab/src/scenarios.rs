//! The scenarios: each is a calm, an incident, and another calm.

use std::time::Duration;

use crate::terms::{DEADLINE, HOLD};
use crate::work::Work;

/// The load of a calm, as a share of the capacity.
const USUAL: f64 = 0.7;
/// The load of a calm in which callers arrive together.
const USUAL_TOGETHER: f64 = 0.6;
/// The load of the usual callers while others compete with them. The connections that are left can serve it.
const USUAL_BESIDE_OTHERS: f64 = 0.5;

/// The deadlines of callers of which some are in a hurry and some can wait.
const MIXED: &[Duration] = &[Duration::from_millis(150), DEADLINE, Duration::from_secs(2)];

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
    /// Each caller has one of these deadlines, at random.
    pub(crate) deadlines: &'static [Duration],
    /// Callers with other work, who come during the incident besides the usual ones.
    pub(crate) others: Option<Others>,
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

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Others {
    pub(crate) work: Work,
    pub(crate) per_second: f64,
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
    /// The processes of the service are replaced.
    Deploy,
    /// The primary of a cluster is killed, and another server takes over.
    Failover,
}

impl Fault {
    pub(crate) fn needs_our_server(self) -> bool {
        matches!(self, Self::Outage | Self::Freeze)
    }

    /// Whether nobody can be served for a while. Then the callers count who come when it is over.
    pub(crate) fn is_outage(self) -> bool {
        matches!(self, Self::Outage | Self::Freeze | Self::Kill | Self::Failover)
    }
}

/// Every scenario, in the order in which they are played. `is_long`: with longer phases.
pub(crate) fn all(is_long: bool) -> Vec<Scenario> {
    let lasts = |short: [f64; 3], long: [f64; 3]| (if is_long { long } else { short }).map(Duration::from_secs_f64);
    let calm = Scenario {
        name: "calm",
        story: "",
        lasts: lasts([1.0, 4.0, 2.0], [1.5, 7.0, 4.0]),
        usual_load: USUAL,
        load: USUAL,
        pattern: Pattern::AtRandom,
        hold: HOLD,
        deadlines: &[DEADLINE],
        others: None,
        fault: Fault::None,
    };
    let surge = |name, story, load| Scenario { name, story, load, ..calm.clone() };
    let bursty = |name, story, every_ms| Scenario {
        lasts: lasts([1.0, 3.0, 1.5], [2.0, 7.0, 4.0]),
        usual_load: USUAL_TOGETHER,
        pattern: Pattern::Together { every: Duration::from_millis(every_ms) },
        ..surge(name, story, 3.0)
    };
    let beside = |name, story, work, per_second| Scenario {
        name,
        story,
        usual_load: USUAL_BESIDE_OTHERS,
        load: USUAL_BESIDE_OTHERS,
        others: Some(Others { work, per_second }),
        ..calm.clone()
    };
    vec![
        surge("surge-2x", "callers ask for twice what the pool can do", 2.0),
        surge("surge-3x", "a campaign: callers ask for three times what the pool can do", 3.0),
        surge("surge-5x", "callers ask for five times what the pool can do", 5.0),
        surge("surge-10x", "callers ask for ten times what the pool can do", 10.0),
        bursty("bursty-20ms", "callers arrive together every 20 ms, three times what the pool can do", 20),
        bursty("bursty-50ms", "callers arrive together every 50 ms, three times what the pool can do", 50),
        bursty("bursty-100ms", "callers arrive together every 100 ms, three times what the pool can do", 100),
        Scenario {
            deadlines: MIXED,
            ..surge("mixed-deadlines", "twice what the pool can do; deadlines of 150 ms, 500 ms and 2 s", 2.0)
        },
        beside("lock", "a sale: others queue for the lock of one hot row, each with a connection", Work::HotRow, 100.0),
        beside("flood", "others ask for reports, twice what the pool can do", Work::Report, 100.0),
        beside("slow-clients", "others ask for many rows and read none of them for 3 s", Work::Unread, 6.0),
        Scenario {
            name: "slow-query",
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
            story: "the server is paused and resumed: no connection is closed, and none answers",
            lasts: lasts([1.0, 2.5, 3.5], [2.0, 4.0, 6.0]),
            fault: Fault::Freeze,
            ..calm.clone()
        },
        Scenario {
            name: "stale",
            story: "the server ends all connections while nobody uses them",
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
            ..calm.clone()
        },
        // A fleet needs some seconds to divide the connections. Real deploys take minutes.
        Scenario {
            name: "fleet",
            story: "a rolling deploy: four processes are replaced by four others, on a role with 24 connections",
            lasts: lasts([6.0, 16.0, 4.0], [6.0, 32.0, 6.0]),
            fault: Fault::Deploy,
            ..calm.clone()
        },
        // Patroni's lease is 7 s here.
        Scenario {
            name: "failover",
            story: "the primary of a Patroni cluster is killed, and the standby takes over",
            lasts: lasts([1.0, 11.0, 5.0], [2.0, 12.0, 10.0]),
            fault: Fault::Failover,
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

    /// The deadline of the callers that can wait the longest.
    pub(crate) fn longest_deadline(&self) -> Duration {
        self.deadlines.iter().max().copied().unwrap_or(DEADLINE)
    }

    /// Whether callers ask for more than the pool can do.
    pub(crate) fn is_overload(&self) -> bool {
        self.load * self.hold.as_secs_f64() > HOLD.as_secs_f64()
    }

    /// Of what a goodput of 100% is, in words.
    pub(crate) fn whole(&self) -> &'static str {
        match self.fault {
            Fault::None if self.others.is_some() => "all usual callers of the incident, without the others",
            Fault::None if self.hold > DEADLINE => "nothing: no query can be in time",
            Fault::None if self.is_overload() => "the most answers that ten connections can give in the incident",
            Fault::None | Fault::Deploy => "all callers of the incident",
            Fault::Outage | Fault::Freeze | Fault::Kill | Fault::Failover => {
                "all callers who came once the server served again"
            }
        }
    }

    /// Whether `wanted` is the name or its first word: `surge` means all four surges.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        self.name == wanted || self.name.split('-').next() == Some(wanted)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn named(name: &str) -> Scenario {
        all(false).into_iter().find(|scenario| scenario.is(name)).unwrap()
    }

    #[test]
    fn a_family_is_called_by_its_first_word() {
        let called = |wanted: &str| all(false).iter().filter(|scenario| scenario.is(wanted)).count();
        assert_eq!(called("surge"), 4);
        assert_eq!(called("surge-3x"), 1);
        assert_eq!(called("surge-3"), 0);
        assert_eq!(called("bursty"), 3);
        assert_eq!(called("bursty-50ms"), 1);
        assert_eq!(called("mixed"), 1);
        assert_eq!(called("slow"), 2);
    }

    #[test]
    fn one_seed_takes_little_more_than_two_minutes() {
        let length: Duration = all(false).iter().map(Scenario::length).sum();
        assert!(length < Duration::from_secs(160), "{length:?}");
    }

    #[test]
    fn only_what_is_asked_during_the_incident_is_slow() {
        let slow = all(false).into_iter().find(|scenario| scenario.name == "slow-query").unwrap();
        let asked = |seconds| slow.hold_at(Duration::from_secs_f64(seconds));
        assert_eq!([asked(1.4), asked(1.5), asked(9.4), asked(9.5)], [HOLD, 9 * HOLD, 9 * HOLD, HOLD]);
    }

    #[test]
    fn overload_is_more_than_the_pool_can_do() {
        let overloads: Vec<_> = all(false).into_iter().filter(Scenario::is_overload).map(|one| one.name).collect();
        assert_eq!(overloads.len(), 10, "{overloads:?}");
        assert!(
            ["slow-query", "storm", "mixed-deadlines"].iter().all(|name| overloads.contains(name)),
            "{overloads:?}"
        );
        assert!(!overloads.contains(&"flood"), "the usual callers alone are none");
    }
}

//! The arguments of the command line.

use std::path::PathBuf;

use crate::peers::Peer;
use crate::scenarios::{self, Scenario};

/// Also printed by `./dev demo --help` and `./dev lab --help`, which build nothing.
pub(crate) const USAGE: &str = include_str!("usage.txt");

#[derive(Debug, PartialEq)]
pub(crate) struct Arguments {
    /// Each pool alone, and with longer phases.
    pub(crate) alone: bool,
    pub(crate) json: bool,
    pub(crate) check: bool,
    pub(crate) readme: bool,
    /// The first seed, and how many there are.
    pub(crate) seed: u64,
    pub(crate) seeds: u64,
    pub(crate) out: PathBuf,
    pub(crate) peers: Vec<Peer>,
    /// As they were named; empty: all.
    scenarios: Vec<String>,
}

impl Arguments {
    pub(crate) fn parse(given: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self {
            alone: false,
            json: false,
            check: false,
            readme: false,
            seed: fastrand::u64(..1_000_000),
            seeds: 1,
            out: "target/lab".into(),
            peers: Peer::built(),
            scenarios: Vec::new(),
        };
        let mut given = given.into_iter();
        while let Some(argument) = given.next() {
            let mut value = || given.next().ok_or_else(|| format!("{argument} wants a value"));
            match argument.as_str() {
                "--alone" => arguments.alone = true,
                "--json" => arguments.json = true,
                "--check" => arguments.check = true,
                "--readme" => arguments.readme = true,
                "--out" => arguments.out = value()?.into(),
                "--seed" => arguments.seed = number(&argument, &value()?)?,
                "--seeds" => arguments.seeds = number(&argument, &value()?)?,
                "--peers" => arguments.peers = value()?.split(',').map(peer).collect::<Result<_, _>>()?,
                "--scenario" => arguments.scenarios = value()?.split(',').map(scenario).collect::<Result<_, _>>()?,
                _ => return Err(format!("there is no argument {argument:?}")),
            }
        }
        if !(1..=100).contains(&arguments.seeds) {
            return Err(format!("--seeds wants 1 to 100, not {}", arguments.seeds));
        }
        arguments.peers.sort();
        arguments.peers.dedup();
        Ok(arguments)
    }

    pub(crate) fn wants(&self, scenario: &Scenario) -> bool {
        self.scenarios.is_empty() || self.scenarios.iter().any(|wanted| scenario.is(wanted))
    }

    /// The seeds that are played.
    pub(crate) fn seeds(&self) -> impl Iterator<Item = u64> + use<> {
        let first = self.seed;
        (0..self.seeds).map(move |index| first.wrapping_add(index))
    }
}

fn number(argument: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{argument} wants a whole number, not {text:?}"))
}

fn peer(name: &str) -> Result<Peer, String> {
    let Some(peer) = Peer::ALL.into_iter().find(|peer| peer.name() == name) else {
        return Err(format!("there is no peer {name:?}; there are {}", Peer::ALL.map(Peer::name).join(", ")));
    };
    if !Peer::built().contains(&peer) {
        return Err(format!("{name} is not built into the demo: use ./dev lab"));
    }
    Ok(peer)
}

fn scenario(name: &str) -> Result<String, String> {
    let all = scenarios::all(false);
    if all.iter().any(|scenario| scenario.is(name)) {
        return Ok(name.to_owned());
    }
    let names: Vec<_> = all.iter().map(|scenario| scenario.name).collect();
    Err(format!("there is no scenario {name:?}; there are surge (all of it), {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn without_any_everything_is_played() {
        let arguments = parse("").unwrap();
        assert_eq!(arguments.peers, Peer::built());
        assert!(scenarios::all(false).iter().all(|scenario| arguments.wants(scenario)));
        assert!(!arguments.alone && !arguments.json && !arguments.check && !arguments.readme);
        assert_eq!(arguments.seeds().count(), 1);
    }

    #[test]
    fn what_is_named_is_played() {
        let arguments =
            "--alone --scenario storm,surge-3x --peers deadpool,failfast,deadpool --seed 7 --seeds 3 --out x";
        let arguments = parse(arguments).unwrap();
        assert_eq!(arguments.peers, [Peer::Failfast, Peer::Deadpool]);
        let wanted = scenarios::all(false).into_iter().filter(|scenario| arguments.wants(scenario));
        assert_eq!(wanted.map(|scenario| scenario.name).collect::<Vec<_>>(), ["surge-3x", "storm"]);
        assert_eq!((arguments.seeds().collect(), arguments.out, arguments.alone), (vec![7, 8, 9], "x".into(), true));
    }

    #[test]
    fn the_last_of_two_wins() {
        let arguments = parse("--scenario storm --scenario slow-clients").unwrap();
        assert!(!arguments.wants(&scenarios::tests::named("storm")));
    }

    #[test]
    fn what_does_not_exist_is_named() {
        for (line, named) in [
            ("--scenario tide", "\"tide\""),
            ("--scenario surge,", "\"\""),
            ("--peers r2d2", "\"r2d2\""),
            ("--seed many", "\"many\""),
            ("--seeds 0", "1 to 100"),
            ("--seed", "--seed wants a value"),
            ("--slow", "\"--slow\""),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
        assert!(parse("--scenario tide").unwrap_err().contains("surge-10x"));
        assert!(parse("--peers r2d2").unwrap_err().contains("deadpool-tuned"));
    }

    #[test]
    fn the_usage_names_everything_and_fits_80_columns() {
        assert!(USAGE.lines().all(|line| line.chars().count() <= 80), "{USAGE}");
        let names = scenarios::all(false).into_iter().map(|scenario| scenario.name);
        for name in names.chain(Peer::ALL.map(Peer::name)) {
            assert!(USAGE.contains(name), "{name}");
        }
    }
}

//! The arguments of the command line.

use std::path::PathBuf;

use super::peers::Peer;
use super::scenarios::{self, Scenario};

pub(crate) const USAGE: &str = "\
./dev demo [ARGS]
  --quick                  within two minutes: shorter, and all pools at once; otherwise a quarter of an hour, each pool alone
  --scenario NAME[,NAME]   only these: surge (or surge-2x, -3x, -5x, -10x), bursty (or bursty-20ms, -50ms, -100ms), slow,
                           outage, freeze, stale, storm
  --peers NAME[,NAME]      only these: failfast, deadpool, deadpool-tuned, bb8, sqlx
  --seed N                 of the arrivals; default: another one each time
  --svg DIR                where the charts are written; default: target/incident
  --json                   the figures for machines on stdout, and nothing else there
  --check                  fail if a figure of failfast is short of what is promised
";

#[derive(Debug, PartialEq)]
pub(crate) struct Arguments {
    pub(crate) quick: bool,
    pub(crate) json: bool,
    pub(crate) check: bool,
    pub(crate) seed: u64,
    pub(crate) svg: PathBuf,
    pub(crate) peers: Vec<Peer>,
    /// As they were named; empty: all.
    scenarios: Vec<String>,
}

impl Arguments {
    pub(crate) fn parse(given: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self {
            quick: false,
            json: false,
            check: false,
            seed: fastrand::u64(..1_000_000),
            svg: "target/incident".into(),
            peers: Peer::ALL.to_vec(),
            scenarios: Vec::new(),
        };
        let mut given = given.into_iter();
        while let Some(argument) = given.next() {
            let mut value = || given.next().ok_or_else(|| format!("{argument} wants a value"));
            match argument.as_str() {
                "--quick" => arguments.quick = true,
                "--json" => arguments.json = true,
                "--check" => arguments.check = true,
                "--svg" => arguments.svg = value()?.into(),
                "--seed" => {
                    let seed = value()?;
                    arguments.seed = seed.parse().map_err(|_| format!("--seed wants a whole number, not {seed:?}"))?;
                }
                "--peers" => arguments.peers = value()?.split(',').map(peer).collect::<Result<_, _>>()?,
                "--scenario" => arguments.scenarios = value()?.split(',').map(scenario).collect::<Result<_, _>>()?,
                _ => return Err(format!("there is no argument {argument:?}")),
            }
        }
        arguments.peers.sort();
        arguments.peers.dedup();
        Ok(arguments)
    }

    pub(crate) fn wants(&self, scenario: &Scenario) -> bool {
        self.scenarios.is_empty() || self.scenarios.iter().any(|wanted| scenario.is(wanted))
    }
}

fn peer(name: &str) -> Result<Peer, String> {
    let found = Peer::ALL.into_iter().find(|peer| peer.name() == name);
    found.ok_or_else(|| format!("there is no peer {name:?}; there are {}", Peer::ALL.map(Peer::name).join(", ")))
}

fn scenario(name: &str) -> Result<String, String> {
    let all = scenarios::all(true);
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
        assert_eq!(arguments.peers, Peer::ALL);
        assert!(scenarios::all(true).iter().all(|scenario| arguments.wants(scenario)));
        assert!(!arguments.quick && !arguments.json && !arguments.check);
    }

    #[test]
    fn what_is_named_is_played() {
        let arguments = parse("--quick --scenario slow,surge-3x --peers sqlx,failfast,sqlx --seed 7 --svg x").unwrap();
        assert_eq!(arguments.peers, [Peer::Failfast, Peer::Sqlx]);
        let wanted = scenarios::all(true).into_iter().filter(|scenario| arguments.wants(scenario));
        assert_eq!(wanted.map(|scenario| scenario.name).collect::<Vec<_>>(), ["surge-3x", "slow"]);
        assert_eq!((arguments.seed, arguments.svg, arguments.quick), (7, "x".into(), true));
    }

    #[test]
    fn what_does_not_exist_is_named() {
        for (line, named) in [
            ("--scenario flood", "\"flood\""),
            ("--scenario surge,", "\"\""),
            ("--peers r2d2", "\"r2d2\""),
            ("--seed many", "\"many\""),
            ("--seed", "--seed wants a value"),
            ("--slow", "\"--slow\""),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
        assert!(parse("--scenario flood").unwrap_err().contains("surge-10x"));
        assert!(parse("--peers r2d2").unwrap_err().contains("deadpool-tuned"));
    }
}

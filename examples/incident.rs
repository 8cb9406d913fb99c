//! Replays the incidents that this library is made for, with failfast and other pools on the same server and with the
//! same arrivals.
//!
//! `./dev demo --quick`, or `cargo run --release --package failfast-benches --example incident -- --help`. Uses
//! `DATABASE_URL`, or starts a throwaway server.

#[path = "incident/mod.rs"]
mod lab;
mod support;

use std::env;
use std::io::stdout;
use std::process::ExitCode;

use lab::arguments::{Arguments, USAGE};
use lab::checks::{self, Check};
use lab::load::AFTERMATH;
use lab::measure::Figures;
use lab::peers::Peer;
use lab::play::{Trace, play};
use lab::progress::Progress;
use lab::scenarios::{self, Scenario};
use lab::world::World;
use lab::{CONNECTIONS, DEADLINE, HOLD, Result, capacity, chart, json, svg, table};

#[tokio::main]
async fn main() -> ExitCode {
    let given: Vec<String> = env::args().skip(1).collect();
    if given.iter().any(|argument| argument == "--help") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match Arguments::parse(given) {
        Ok(arguments) => match run(&arguments).await {
            Ok(is_short) if is_short && arguments.check => ExitCode::FAILURE,
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Replays the chosen scenarios one after the other. Returns whether a figure of failfast is below its limit.
async fn run(arguments: &Arguments) -> Result<bool> {
    let mut world = World::start().await?;
    if !arguments.json {
        println!("{}", preface(arguments, &world));
    }
    let (mut all, mut is_any_short) = (Vec::new(), false);
    for scenario in scenarios::all(arguments.quick).into_iter().filter(|scenario| arguments.wants(scenario)) {
        if scenario.fault.needs_our_server() && !world.server_is_ours() {
            eprintln!("{} is left out: it would stop a server that is not ours (DATABASE_URL)", scenario.name);
            continue;
        }
        let (figures, is_short) = show(&scenario, arguments, &mut world).await?;
        all.extend(figures);
        is_any_short |= is_short;
    }
    if arguments.json {
        json::write(&mut stdout().lock(), arguments, &all)?;
    } else {
        println!("the charts as files: {}", arguments.svg.display());
    }
    world.end().await?;
    Ok(is_any_short)
}

/// Replays a scenario and prints its results.
async fn show(scenario: &Scenario, arguments: &Arguments, world: &mut World) -> Result<(Vec<Figures>, bool)> {
    let traces = replay(scenario, arguments, world).await?;
    let figures: Vec<Figures> = traces.iter().map(Figures::of).collect();
    let checks = checks::of(scenario, &figures);
    svg::write(&arguments.svg, scenario, &traces)?;
    if !arguments.json {
        let lines: String = checks.iter().map(|check| format!("{check}\n")).collect();
        let (table, chart) = (table::of(&figures), chart::of(scenario, &traces));
        println!("\n# {}: {}\n\n{table}{chart}{lines}", scenario.name, scenario.story);
    }
    Ok((figures, checks.iter().any(Check::is_short)))
}

/// Prints what all scenarios have in common.
fn preface(arguments: &Arguments, world: &World) -> String {
    let order = if arguments.quick { "all pools at once" } else { "each pool alone, one after the other" };
    let mut text = format!(
        "seed {}; {order}; {CONNECTIONS} connections each; a query holds one for {HOLD:?}: a pool can do {:.0} a second at most\n\
         this server needs {:.1?} for one without load\n\
         in time is an answer within {DEADLINE:?}; callers arrive at random, if the scenario does not say otherwise, the same for each pool, and wait until their pool says no or the scenario has been over for {AFTERMATH:?}\n",
        arguments.seed,
        capacity(HOLD),
        world.service(HOLD)
    );
    for peer in &arguments.peers {
        text.push_str(&format!("  {peer:<15}{}\n", peer.settings()));
    }
    text + table::LEGEND
}

/// Quick: all pools at once, which is fair because the server has little to do. Otherwise one pool after the other.
async fn replay(scenario: &Scenario, arguments: &Arguments, world: &mut World) -> Result<Vec<Trace>> {
    let groups: Vec<&[Peer]> =
        arguments.peers.chunks(if arguments.quick { arguments.peers.len() } else { 1 }).collect();
    let mut traces = Vec::new();
    for peers in groups {
        let progress = Progress::begin(scenario, peers);
        traces.extend(play(scenario, peers, arguments.seed, world).await?);
        progress.end();
    }
    Ok(traces)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_incident_is_played_from_end_to_end() {
        let folder = env::temp_dir().join(format!("failfast-incident-{}", std::process::id()));
        let svg = folder.to_string_lossy();
        let arguments = ["--quick", "--scenario", "stale", "--seed", "7", "--svg", svg.as_ref()].map(str::to_owned);
        let arguments = Arguments::parse(arguments).unwrap();
        let mut world = World::start().await.unwrap();
        let mut scenarios = scenarios::all(true).into_iter().filter(|scenario| arguments.wants(scenario));
        let (results, _) = show(&scenarios.next().unwrap(), &arguments, &mut world).await.unwrap();
        world.end().await.unwrap();

        assert_eq!(results.iter().map(|figures| figures.peer).collect::<Vec<_>>(), Peer::ALL);
        for figures in &results {
            assert!(figures.made >= CONNECTIONS as i64, "all had been killed: {figures:?}");
            assert!(figures.served_in.is_some(), "and made anew: {figures:?}");
        }
        assert!(results[0].warned.is_some(), "failfast has noticed: {:?}", results[0]);
        assert!(fs::read_to_string(folder.join("stale.svg")).unwrap().ends_with("</svg>\n"));
        fs::remove_dir_all(folder).unwrap();
    }
}

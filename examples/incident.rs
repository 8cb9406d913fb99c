//! The incidents this library is for, replayed: failfast beside other pools, on the same server, under the same arrivals.
//!
//! `./dev demo --quick`, or `cargo run --release --package failfast-benches --example incident -- --help`. Uses `DATABASE_URL`, or starts a throwaway server.

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
use lab::{CONNECTIONS, DEADLINE, HOLD, Result, chart, json, svg, table};

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

/// Replays what was asked for, one scenario after the other. Whether a figure of failfast is short.
async fn run(arguments: &Arguments) -> Result<bool> {
    let say = |text: String| {
        if !arguments.json {
            println!("{text}")
        }
    };
    let mut world = World::start().await?;
    say(preface(arguments, &world));
    let mut results = Vec::new();
    let mut is_short = false;
    for scenario in scenarios::all(arguments.quick).into_iter().filter(|scenario| arguments.wants(scenario)) {
        if scenario.fault.needs_our_server() && !world.server_is_ours() {
            eprintln!("{} is left out: it would stop a server that is not ours (DATABASE_URL)", scenario.name);
            continue;
        }
        let traces = replay(&scenario, arguments, &mut world).await?;
        let figures: Vec<Figures> = traces.iter().map(Figures::of).collect();
        let checks = checks::of(&scenario, &figures);
        is_short |= checks.iter().any(Check::is_short);
        let checks: String = checks.iter().map(|check| format!("{check}\n")).collect();
        let (table, chart) = (table::of(&figures), chart::of(&scenario, &traces));
        say(format!("\n# {}: {}\n\n{table}{chart}{checks}", scenario.name, scenario.story));
        svg::write(&arguments.svg, &scenario, &traces)?;
        results.extend(figures);
    }
    say(format!("the charts as files: {}", arguments.svg.display()));
    if arguments.json {
        json::write(&mut stdout().lock(), arguments, &results)?;
    }
    world.end().await?;
    Ok(is_short)
}

/// What a reader has to know of all that follows.
fn preface(arguments: &Arguments, world: &World) -> String {
    let order = if arguments.quick { "all pools at once" } else { "each pool alone, one after the other" };
    let mut text = format!(
        "seed {}; {order}; {CONNECTIONS} connections each; a query holds one for {HOLD:?} and takes {:.1?} without load: a pool can do {:.0} a second\n\
         in time is an answer within {DEADLINE:?}; callers arrive at random, the same for each pool, and wait until their pool says no or the scenario has been over for {AFTERMATH:?}\n",
        arguments.seed,
        world.service(HOLD),
        world.capacity(HOLD)
    );
    for peer in &arguments.peers {
        text.push_str(&format!("  {peer:<15}{}\n", peer.settings()));
    }
    text + table::LEGEND
}

/// Quick: all pools at once, which is fair because the server has little to do. Otherwise each alone.
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

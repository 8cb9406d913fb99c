//! The lab: replays incidents with failfast and other pools on the same server and with the same callers.
//!
//! In reading order: `scenarios` (the incidents), `callers` (who comes when) and `work` (what they ask for), `peers`
//! (the pools), `play` (runs a scenario in the `world`), `figures` and `series` (what came out), `checks` (what is
//! expected of failfast), `scene` (all of it for one scenario), `better` (where another pool wins). Then what shows it:
//! `terminal`, `page`, `json`, `readme`.
//!
//! `./dev demo` is one incident, `./dev lab` is all of them. Uses `DATABASE_URL`, or starts a throwaway server.

mod arguments;
mod better;
mod callers;
mod checks;
mod figures;
mod json;
mod page;
mod peers;
mod play;
mod readme;
mod scenarios;
mod scene;
mod series;
#[path = "../../examples/support/mod.rs"]
mod support;
mod terminal;
mod terms;
mod text;
mod work;
mod world;

use std::env;
use std::io::stdout;
use std::path::Path;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Duration;

use self::arguments::{Arguments, USAGE};
use self::page::Setting;
use self::peers::{Peer, processes};
use self::play::play;
use self::scenarios::{Fault, Scenario};
use self::scene::Scene;
use self::terminal::progress::Progress;
use self::terminal::{chart, summary, table, wrapped};
use self::terms::{AFTERMATH, CONNECTIONS, DEADLINE, HOLD, Result, capacity};
use self::text::{counted, minutes, short};
use self::world::World;

/// How many pools are played at once, unless each is played alone. The server has little to do, so this is fair.
const TOGETHER: usize = 8;

/// What it takes on average to connect all pools before a scenario, and to close them after it.
const AROUND: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> ExitCode {
    let given: Vec<String> = env::args().skip(1).collect();
    if given.first().is_some_and(|argument| argument == processes::ARGUMENT) {
        return exit(processes::run().await.map(|()| false));
    }
    if given.iter().any(|argument| argument == "--help") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let mut arguments = match Arguments::parse(given.clone()) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\n--help lists the arguments");
            return ExitCode::from(2);
        }
    };
    if arguments.peers.contains(&Peer::Pgbouncer) && world::pgbouncer_program().is_none() {
        eprintln!("pgbouncer is left out: it is not installed");
        arguments.peers.retain(|peer| *peer != Peer::Pgbouncer);
    }
    exit(run(&arguments, &given).await.map(|is_short| is_short && arguments.check))
}

fn exit(is_short: Result<bool>) -> ExitCode {
    match is_short {
        Ok(true) => ExitCode::FAILURE,
        Ok(false) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Replays the chosen scenarios one after the other. Returns whether a figure of failfast is below its limit.
async fn run(arguments: &Arguments, given: &[String]) -> Result<bool> {
    let mut world = World::start(&arguments.peers).await?;
    let setting = Setting {
        postgres: world.version().to_owned(),
        processors: available_parallelism()?.get(),
        alone: arguments.alone,
        command: command(arguments, given),
    };
    let scenarios = chosen(arguments, &world).await;
    let groups: usize = scenarios.iter().map(|scenario| groups(scenario, arguments).len()).sum();
    let mut progress = Progress::new(groups * arguments.seeds as usize);
    if !arguments.json {
        print!("{}", preface(arguments, &world, &scenarios));
    }
    let mut scenes = Vec::new();
    for scenario in &scenarios {
        let scene = replay(scenario, arguments, &mut world, &mut progress).await?;
        if !arguments.json {
            let title = wrapped(&format!("# {}: {}", scenario.name, scenario.story), "  ");
            println!("\n{title}\n{}{}", table::of(&scene), chart::of(&scene));
        }
        scenes.push(scene);
    }
    world.end().await?;
    let report = page::write(&arguments.out, &scenes, &setting)?;
    if arguments.readme {
        readme::write(Path::new("."), &scenes, &setting)?;
    }
    if arguments.json {
        json::write(&mut stdout().lock(), &scenes)?;
    } else {
        println!("{}\nthe report: {}", summary::of(&scenes), report.display());
    }
    Ok(scenes.iter().any(|scene| scene.short_checks().0 > 0))
}

/// The scenarios that were asked for and can be played on this server.
async fn chosen(arguments: &Arguments, world: &World) -> Vec<Scenario> {
    let mut chosen = Vec::new();
    for scenario in scenarios::all(arguments.alone).into_iter().filter(|scenario| arguments.wants(scenario)) {
        if scenario.fault.needs_our_server() && !world.server_is_ours() {
            eprintln!("{} is left out: it would stop a server that is not ours (DATABASE_URL)", scenario.name);
        } else if scenario.fault == Fault::Failover && !world::cluster_is_possible().await {
            eprintln!("{} is left out: it needs the image of scripts/patroni-image", scenario.name);
        } else {
            chosen.push(scenario);
        }
    }
    chosen
}

/// The pools of a scenario, in groups that are played at once. In front of a cluster, a PgBouncer would need a load
/// balancer of its own.
fn groups(scenario: &Scenario, arguments: &Arguments) -> Vec<Vec<Peer>> {
    let is_left_out = |peer: &Peer| scenario.fault == Fault::Failover && *peer == Peer::Pgbouncer;
    let peers: Vec<_> = arguments.peers.iter().copied().filter(|peer| !is_left_out(peer)).collect();
    peers.chunks(if arguments.alone { 1 } else { TOGETHER }).map(<[Peer]>::to_vec).collect()
}

/// Plays a scenario with all seeds and all pools.
async fn replay(
    scenario: &Scenario,
    arguments: &Arguments,
    world: &mut World,
    progress: &mut Progress,
) -> Result<Scene> {
    let mut seeds = Vec::new();
    for seed in arguments.seeds() {
        let mut traces = Vec::new();
        for peers in groups(scenario, arguments) {
            let step = progress.begin(scenario, seed, &peers);
            traces.extend(play(scenario, &peers, seed, world).await?);
            progress.end(step, scenario);
        }
        seeds.push((seed, traces));
    }
    Ok(Scene::of(scenario, seeds))
}

/// Prints what all scenarios have in common.
fn preface(arguments: &Arguments, world: &World, scenarios: &[Scenario]) -> String {
    let length =
        |scenario: &Scenario| (scenario.length() + AFTERMATH + AROUND) * groups(scenario, arguments).len() as u32;
    let length: Duration = scenarios.iter().map(length).sum();
    let mut text = format!(
        "PostgreSQL {}; {} from {}; about {}\n\
         {CONNECTIONS} connections each; a query holds one for {}: at most {:.0} a second\n\
         (this server needs {} for one without load). In time: within {}.\n",
        world.version(),
        counted(arguments.seeds as usize, "seed"),
        arguments.seed,
        minutes(length * arguments.seeds as u32),
        short(HOLD),
        capacity(HOLD),
        short(world.service(HOLD)),
        short(DEADLINE)
    );
    for peer in &arguments.peers {
        text += &wrapped(&format!("  {peer:<15}{}", peer.settings(scenarios)), &" ".repeat(17));
    }
    text + table::LEGEND
}

/// The command that plays the same again, with the seed that this run has chosen.
fn command(arguments: &Arguments, given: &[String]) -> String {
    let mut command = env::var("FAILFAST_LAB_COMMAND").unwrap_or_else(|_| "./dev lab".to_owned());
    for argument in given {
        command += &format!(" {argument}");
    }
    if !given.iter().any(|argument| argument == "--seed") {
        command += &format!(" --seed {}", arguments.seed);
    }
    command
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn arguments(line: &str) -> (Arguments, Vec<String>) {
        let given: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        (Arguments::parse(given.clone()).unwrap(), given)
    }

    /// Plays what the line says and returns the scenes.
    async fn played(line: &str) -> Vec<Scene> {
        let (mut arguments, _) = arguments(line);
        arguments.peers.retain(|peer| *peer != Peer::Pgbouncer || world::pgbouncer_program().is_some());
        let mut world = World::start(&arguments.peers).await.unwrap();
        let mut progress = Progress::new(1);
        let mut scenes = Vec::new();
        for scenario in chosen(&arguments, &world).await {
            scenes.push(replay(&scenario, &arguments, &mut world, &mut progress).await.unwrap());
        }
        world.end().await.unwrap();
        scenes
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_incident_is_played_from_end_to_end() {
        let scenes = played("--scenario stale --seed 7").await;
        for played in &scenes[0].pools {
            assert_eq!((played.figures.len(), played.curve.len()), (1, scene::POINTS), "{:?}", played.peer);
        }
        if scenes[0].lag() <= LAG {
            for played in &scenes[0].pools {
                let figures = &played.figures[0];
                assert!(figures.made.is_some_and(|made| made > 0), "all had been killed: {figures:?}");
                assert!(figures.served_in.is_some(), "and made anew: {figures:?}");
                assert!(played.curve.iter().any(|bin| bin.connections.is_some_and(|all| all > 0.0)), "{played:?}");
            }
            let ours = scenes[0].pool(Peer::Failfast).unwrap();
            assert!(ours.figures[0].warned.is_some(), "failfast has noticed: {:?}", ours.figures[0]);
        } else {
            eprintln!("the machine is too busy to judge the figures: {:?}", scenes[0].lag());
        }

        let folder = env::temp_dir().join(format!("failfast-lab-{}", std::process::id()));
        let setting =
            Setting { postgres: "17".to_owned(), processors: 2, alone: false, command: "./dev lab".to_owned() };
        let report = page::write(&folder, &scenes, &setting).unwrap();
        assert!(fs::read_to_string(report).unwrap().ends_with("</html>\n"));
        fs::remove_dir_all(folder).unwrap();
    }

    /// A machine on which callers are sent later than this measures itself.
    const LAG: Duration = Duration::from_millis(50);

    /// Other work must not take the connections of the usual callers.
    #[tokio::test(flavor = "multi_thread")]
    async fn other_work_harms_a_plain_pool_and_not_this_one() {
        for (scenario, least) in [("lock", 0.85), ("flood", 0.85), ("slow-clients", 0.5)] {
            let scenes = played(&format!("--scenario {scenario} --peers failfast,deadpool --seed 7")).await;
            let figures = |peer| &scenes[0].pool(peer).unwrap().figures[0];
            assert!(figures(Peer::Failfast).others.is_some_and(|(came, _)| came > 10), "{scenario}: others came");
            if scenes[0].lag() > LAG {
                eprintln!("{scenario}: the machine is too busy to judge it: {:?}", scenes[0].lag());
                continue;
            }
            let (ours, theirs) = (figures(Peer::Failfast).goodput, figures(Peer::Deadpool).goodput);
            assert!(ours > Some(least) && theirs < Some(0.7), "{scenario}: {ours:?} beside {theirs:?}");
        }
    }

    #[test]
    fn the_command_says_which_seed_was_played() {
        let (arguments, given) = arguments("--scenario flood");
        assert_eq!(command(&arguments, &given), format!("./dev lab --scenario flood --seed {}", arguments.seed));
    }

    #[test]
    fn the_seed_is_not_named_twice() {
        let (arguments, given) = arguments("--seed 7");
        assert_eq!(command(&arguments, &given), "./dev lab --seed 7");
    }
}

//! Measures the figures that have a limit, each beside its reference. `instructions` counts instructions, which noise
//! does not change. `turns` times two sides in turns.
//!
//! `./dev ratios [NAME...]` prints one line per figure, `name value limit ok|SHORT|NOISY`, and fails if one is short.
//! `NOISY` is a timed ratio that could not be judged, because the machine was too noisy. Lines that begin with `#` say
//! what was measured.

mod acquire;
mod below;
mod breaker;
mod bulk;
mod bursts;
#[cfg(feature = "cluster")]
mod cluster;
mod holders;
mod instructions;
mod lanes;
mod overload;
#[path = "../peers.rs"]
mod peers;
mod queries;
#[path = "../report.rs"]
mod report;
mod rows;
#[path = "../../examples/support/mod.rs"]
mod support;
mod turns;

use std::process::ExitCode;
use std::time::Duration;

use report::Report;
use support::Throwaway;

fn main() -> ExitCode {
    if bursts::burner::is_asked_for() { bursts::burner::burn() } else { measure() }
}

#[tokio::main]
async fn measure() -> ExitCode {
    let mut report = Report::from_arguments();
    let server = match Throwaway::start().await {
        Ok(server) => server,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    instructions::measure(&server, &mut report).await;
    breaker::measure(&mut report).await;
    acquire::measure(&server, &mut report).await;
    queries::measure(&server, &mut report).await;
    holders::measure(&server, &mut report).await;
    overload::measure(&server, &mut report).await;
    bursts::measure(&server, &mut report).await;
    lanes::measure(&server, &mut report).await;
    #[cfg(feature = "cluster")]
    cluster::measure(&server, &mut report).await;
    rows::measure(&server, &mut report).await;
    bulk::measure(&server, &mut report).await;
    below::measure(&server, &mut report).await;
    report.end()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

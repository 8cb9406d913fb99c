//! The figures that have a limit, each measured beside its yardstick in one process: batches of both take turns, and the medians
//! are compared, so that a noisy machine slows both.
//!
//! `./dev ratios [NAME...]` prints one line per figure, `name value limit ok|SHORT`, and fails if one is short. Lines that begin with `#` say
//! what was measured.

mod acquire;
mod below;
mod breaker;
mod memory;
mod overload;
#[path = "../peers.rs"]
mod peers;
mod queries;
mod rows;
#[path = "../../examples/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::Throwaway;

/// Collects the figures that were asked for.
struct Report {
    wanted: Vec<String>,
    is_short: bool,
}

impl Report {
    fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|want| name.starts_with(want))
    }

    /// A figure that may be as high as its limit.
    fn at_most(&mut self, name: &str, value: f64, limit: f64) {
        self.line(name, value, limit, value <= limit);
    }

    /// A figure that may be as low as its limit.
    fn at_least(&mut self, name: &str, value: f64, limit: f64) {
        self.line(name, value, limit, value >= limit);
    }

    fn line(&mut self, name: &str, value: f64, limit: f64, is_ok: bool) {
        println!("{name} {value:.3} {limit} {}", if is_ok { "ok" } else { "SHORT" });
        self.is_short |= !is_ok;
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let wanted = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let mut report = Report { wanted, is_short: false };
    let server = match Throwaway::start().await {
        Ok(server) => server,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    breaker::measure(&mut report);
    acquire::measure(&server, &mut report).await;
    memory::measure(&server, &mut report).await;
    queries::measure(&server, &mut report).await;
    overload::measure(&server, &mut report).await;
    rows::measure(&server, &mut report).await;
    below::measure(&server, &mut report).await;
    if report.is_short { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

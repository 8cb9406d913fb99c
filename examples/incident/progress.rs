//! The progress on stderr: one changing line on a terminal, otherwise a line for each step.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::interval;

use super::peers::Peer;
use super::scenarios::Scenario;

const OFTEN: Duration = Duration::from_millis(250);

/// Is shown until [`end`](Self::end).
#[derive(Debug)]
pub(crate) struct Progress {
    line: Option<JoinHandle<()>>,
}

impl Progress {
    pub(crate) fn begin(scenario: &Scenario, peers: &[Peer]) -> Self {
        let names: Vec<_> = peers.iter().map(|peer| peer.name()).collect();
        let (what, length) = (format!("{}: {}", scenario.name, names.join(", ")), scenario.length());
        if !stderr().is_terminal() {
            eprintln!("{what}: {:.1} s", length.as_secs_f64());
            return Self { line: None };
        }
        let begun = Instant::now();
        let line = tokio::spawn(async move {
            let mut tick = interval(OFTEN);
            loop {
                tick.tick().await;
                let seconds = begun.elapsed().as_secs_f64();
                eprint!("\r\x1b[K{what}: {seconds:.0} of {:.0} s", length.as_secs_f64());
            }
        });
        Self { line: Some(line) }
    }

    pub(crate) fn end(self) {
        if let Some(line) = self.line {
            line.abort();
            eprint!("\r\x1b[K");
        }
    }
}

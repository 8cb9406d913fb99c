//! The progress on stderr: one changing line on a terminal, otherwise a line for each step and for each 10 s.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::{Interval, interval, interval_at};

use super::COLUMNS;
use crate::peers::Peer;
use crate::scenarios::Scenario;
use crate::terms::AFTERMATH;
use crate::text::minutes;

/// How often the line on a terminal changes.
const OFTEN: Duration = Duration::from_millis(250);
/// How often there is a line in a file.
const SELDOM: Duration = Duration::from_secs(10);

/// The steps of a run: each scenario with each seed and each group of pools.
#[derive(Debug)]
pub(crate) struct Progress {
    begun: Instant,
    steps: usize,
    done: usize,
}

/// A step that is under way. It is shown until [`Progress::end`].
#[derive(Debug)]
pub(crate) struct Step {
    what: String,
    line: JoinHandle<()>,
}

impl Progress {
    pub(crate) fn new(steps: usize) -> Self {
        Self { begun: Instant::now(), steps, done: 0 }
    }

    pub(crate) fn begin(&self, scenario: &Scenario, seed: u64, peers: &[Peer]) -> Step {
        let names: Vec<_> = peers.iter().map(|peer| peer.name()).collect();
        let what = format!("{}/{} {}, seed {seed}: {}", self.done + 1, self.steps, scenario.name, names.join(", "));
        let total = scenario.length() + AFTERMATH;
        let is_terminal = stderr().is_terminal();
        if !is_terminal {
            eprintln!("{}", fitting(&what, &format!(": {}", minutes(total))));
        }
        let (begun, shown) = (Instant::now(), what.clone());
        let line = tokio::spawn(async move {
            let mut tick = ticks(is_terminal);
            loop {
                tick.tick().await;
                show(is_terminal, &shown, begun.elapsed().min(total), total);
            }
        });
        Step { what, line }
    }

    /// Ends the step at its total, and the run at its last step.
    pub(crate) fn end(&mut self, step: Step, scenario: &Scenario) {
        step.line.abort();
        self.done += 1;
        let total = scenario.length() + AFTERMATH;
        if stderr().is_terminal() {
            show(true, &step.what, total, total);
            eprintln!();
        }
        if self.done == self.steps {
            eprintln!("{} of {} played in {}", self.done, self.steps, minutes(self.begun.elapsed()));
        }
    }
}

fn ticks(is_terminal: bool) -> Interval {
    if is_terminal { interval(OFTEN) } else { interval_at(tokio::time::Instant::now() + SELDOM, SELDOM) }
}

fn show(is_terminal: bool, what: &str, elapsed: Duration, total: Duration) {
    let line = fitting(what, &format!(": {:.0} of {}", elapsed.as_secs_f64(), minutes(total)));
    if is_terminal { eprint!("\r\x1b[K{line}") } else { eprintln!("{line}") }
}

/// Both texts in one line. If it is too long, the end of the first one is left out.
fn fitting(what: &str, end: &str) -> String {
    let room = COLUMNS - 1 - end.chars().count();
    if what.chars().count() <= room {
        return format!("{what}{end}");
    }
    let kept: String = what.chars().take(room - 3).collect();
    format!("{kept}...{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_the_terminal() {
        assert_eq!(fitting("surge", ": 3 of 7 s"), "surge: 3 of 7 s");
        let long = fitting(&"name ".repeat(30), ": 3 of 7 s");
        assert!(long.ends_with("...: 3 of 7 s"), "{long}");
        assert_eq!(long.chars().count(), COLUMNS - 1);
    }
}

//! Prints figures that have a limit, one in each line: `name value limit ok|SHORT|NOISY`.

use std::env;
use std::process::ExitCode;

/// Collects the figures that the command line asks for.
pub(crate) struct Report {
    wanted: Vec<String>,
    is_short: bool,
}

impl Report {
    /// Collects the figures named on the command line, or all figures if there are no names.
    pub(crate) fn from_arguments() -> Self {
        let wanted = env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
        Self { wanted, is_short: false }
    }

    pub(crate) fn end(&self) -> ExitCode {
        if self.is_short { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|want| name.starts_with(want))
    }

    /// Reports a figure that must not exceed its limit.
    pub(crate) fn at_most(&mut self, name: &str, value: f64, limit: f64) {
        self.line(name, value, limit, value <= limit);
    }

    /// Reports a figure that must not be below its limit.
    pub(crate) fn at_least(&mut self, name: &str, value: f64, limit: f64) {
        self.line(name, value, limit, value >= limit);
    }

    /// Reports a figure that cannot be judged, because the machine was too noisy. It does not fail the run.
    pub(crate) fn too_noisy(&self, name: &str, value: f64, limit: f64) {
        println!("{name} {value:.3} {limit} NOISY");
    }

    fn line(&mut self, name: &str, value: f64, limit: f64, is_ok: bool) {
        println!("{name} {value:.3} {limit} {}", if is_ok { "ok" } else { "SHORT" });
        self.is_short |= !is_ok;
    }
}

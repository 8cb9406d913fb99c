//! How long operations take, by name and by error. Each pair has a series, which is made when the pair first occurs.
//!
//! The numbers of names and of errors are bounded, whatever callers and servers send.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use metrics::Histogram;
use parking_lot::RwLock;

use super::handles::Source;
use crate::metrics::{ERROR, OPERATION, OPERATION_DURATION, SYSTEM};
use crate::telemetry::Fault;

/// The number of names that have series of their own. All other names share one.
const MOST_NAMES: usize = 64;
/// The number of errors that have series of their own. All other errors are recorded by their kind.
const MOST_FAULTS: usize = 64;
const OTHER: &str = "_OTHER";

type Series = (Option<&'static str>, Option<Fault>);

#[derive(Default)]
pub(super) struct Operations(RwLock<Known>);

#[derive(Default)]
struct Known {
    series: HashMap<Series, Histogram>,
    names: HashSet<&'static str>,
    faults: HashSet<Fault>,
}

impl Operations {
    pub(super) fn record(&self, source: &Source, name: Option<&'static str>, fault: Option<Fault>, took: Duration) {
        let known = self.0.read().series.get(&(name, fault)).cloned();
        known.unwrap_or_else(|| self.series(source, name, fault)).record(took);
    }

    #[cold]
    fn series(&self, source: &Source, name: Option<&'static str>, fault: Option<Fault>) -> Histogram {
        let series = self.0.write().bounded(name, fault);
        if let Some(known) = self.0.read().series.get(&series).cloned() {
            return known;
        }
        let made = make(source, series);
        self.0.write().series.entry(series).or_insert(made).clone()
    }
}

impl Known {
    fn bounded(&mut self, name: Option<&'static str>, fault: Option<Fault>) -> Series {
        let name = name.map(|name| if remember(&mut self.names, name, MOST_NAMES) { name } else { OTHER });
        let fault = fault
            .map(|fault| if remember(&mut self.faults, fault, MOST_FAULTS) { fault } else { fault.without_state() });
        (name, fault)
    }
}

/// Adds `one` while there are fewer than `most`. Returns whether it is among the few.
fn remember<T: Eq + std::hash::Hash>(few: &mut HashSet<T>, one: T, most: usize) -> bool {
    few.contains(&one) || few.len() < most && few.insert(one)
}

fn make(source: &Source, (name, fault): Series) -> Histogram {
    let system = [(SYSTEM, "postgresql".into())];
    let name = name.map(|name| (OPERATION, name.into()));
    let fault = fault.map(|fault| (ERROR, fault.error_type().to_owned().into()));
    source.histogram(&OPERATION_DURATION, system.into_iter().chain(name).chain(fault))
}

//! How long operations take, by name and by error, and how many of them a fallback answered. Each pair of a name and an
//! error has a series, which is made when the pair first occurs.
//!
//! The numbers of names and of errors are bounded, whatever callers and servers send.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use metrics::{Counter, Histogram, SharedString};
use parking_lot::RwLock;

use super::handles::Source;
use crate::metrics::{ERROR, FALLBACKS, OPERATION, OPERATION_DURATION, SYSTEM};
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
    fallbacks: HashMap<Series, Counter>,
    names: HashSet<&'static str>,
    faults: HashSet<Fault>,
}

impl Operations {
    pub(super) fn record(&self, source: &Source, name: Option<&'static str>, fault: Option<Fault>, took: Duration) {
        let known = self.0.read().series.get(&(name, fault)).cloned();
        known.unwrap_or_else(|| self.series(source, name, fault)).record(took);
    }

    /// A fallback has answered, because of `fault`.
    pub(super) fn count_fallback(&self, source: &Source, name: Option<&'static str>, fault: Fault) {
        let known = self.0.read().fallbacks.get(&(name, Some(fault))).cloned();
        known.unwrap_or_else(|| self.fallbacks(source, name, fault)).increment(1);
    }

    #[cold]
    fn fallbacks(&self, source: &Source, name: Option<&'static str>, fault: Fault) -> Counter {
        let series = self.0.write().bounded(name, Some(fault));
        if let Some(known) = self.0.read().fallbacks.get(&series).cloned() {
            return known;
        }
        let made = source.counter(&FALLBACKS, labels(series));
        self.0.write().fallbacks.entry(series).or_insert(made).clone()
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

fn make(source: &Source, series: Series) -> Histogram {
    let system = [(SYSTEM, "postgresql".into())];
    source.histogram(&OPERATION_DURATION, system.into_iter().chain(labels(series)))
}

fn labels((name, fault): Series) -> impl Iterator<Item = (&'static str, SharedString)> {
    let name = name.map(|name| (OPERATION, name.into()));
    let fault = fault.map(|fault| (ERROR, fault.error_type().to_owned().into()));
    name.into_iter().chain(fault)
}

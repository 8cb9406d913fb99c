//! The lanes of operations by name: what the owner has set, when the pool was built or later. It wins over the lane
//! that a call asks for, so that an operation is demoted without a new release.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::RwLock;

use crate::error::ConfigError;
use crate::policy::Lane;

/// The most names that have a lane at a time.
pub(crate) const MOST_NAMES: usize = 1_000;

#[derive(Debug)]
pub(crate) struct LaneNames {
    /// What the owner set when the pool was built.
    initial: HashMap<String, Lane>,
    names: RwLock<HashMap<String, Lane>>,
    is_empty: AtomicBool,
}

impl LaneNames {
    pub(crate) fn new(initial: impl IntoIterator<Item = (String, Lane)>) -> Self {
        let initial: HashMap<_, _> = initial.into_iter().collect();
        let is_empty = AtomicBool::new(initial.is_empty());
        Self { names: RwLock::new(initial.clone()), initial, is_empty }
    }

    /// The lane of a call of this operation that asks for `lane`.
    #[inline]
    pub(crate) fn lane_of(&self, operation: Option<&'static str>, lane: Lane) -> Lane {
        match operation {
            Some(name) if !self.is_empty.load(Relaxed) => self.names.read().get(name).copied().unwrap_or(lane),
            Some(_) | None => lane,
        }
    }

    /// Sets the lane of an operation. `None`: what it was when the pool was built. Returns what was set before, and
    /// what is set now.
    pub(crate) fn set(&self, name: &str, lane: Option<Lane>) -> Result<(Option<Lane>, Option<Lane>), ConfigError> {
        let lane = lane.or_else(|| self.initial.get(name).copied());
        let mut names = self.names.write();
        let before = match lane {
            Some(_) if names.len() >= MOST_NAMES && !names.contains_key(name) => {
                return Err(ConfigError::new("set_lane", name, format!("at most {MOST_NAMES} operations have a lane")));
            }
            Some(lane) => names.insert(name.to_owned(), lane),
            None => names.remove(name),
        };
        self.is_empty.store(names.is_empty(), Relaxed);
        Ok((before, lane))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_wins_over_the_call_until_it_is_reset() {
        let names = LaneNames::new([("report".to_owned(), Lane::Background)]);
        let lane_of = |name| names.lane_of(Some(name), Lane::Critical);
        assert_eq!((lane_of("report"), lane_of("login")), (Lane::Background, Lane::Critical));
        assert_eq!(names.set("login", Some(Lane::Normal)).unwrap(), (None, Some(Lane::Normal)));
        assert_eq!(names.set("report", Some(Lane::Normal)).unwrap(), (Some(Lane::Background), Some(Lane::Normal)));
        assert_eq!((lane_of("report"), lane_of("login")), (Lane::Normal, Lane::Normal));
        assert_eq!(names.set("login", None).unwrap(), (Some(Lane::Normal), None));
        assert_eq!(names.set("report", None).unwrap(), (Some(Lane::Normal), Some(Lane::Background)));
        assert_eq!((lane_of("report"), lane_of("login")), (Lane::Background, Lane::Critical));
        assert_eq!(names.lane_of(None, Lane::Critical), Lane::Critical);
    }

    #[test]
    fn the_number_of_names_is_bounded() {
        let names = LaneNames::new([]);
        for n in 0..MOST_NAMES {
            names.set(&n.to_string(), Some(Lane::Normal)).unwrap();
        }
        let error = names.set("one more", Some(Lane::Normal)).unwrap_err();
        assert_eq!(error.to_string(), "set_lane = one more: at most 1000 operations have a lane");
        names.set("7", Some(Lane::Critical)).unwrap();
    }
}

//! What the core promises: by examples, against a model, and under load in virtual time.

use super::*;
use crate::policy::{Deadline, Shedding};

mod examples;
mod napkin;
mod promises;
mod simulation;

const MS: Duration = Duration::from_millis(1);

fn patient(now: Instant, millis: u64) -> Patience {
    Patience {
        deadline: Deadline::after(now, Duration::from_millis(millis)),
        includes_work: false,
        shedding: Shedding::QueueOnly,
    }
}

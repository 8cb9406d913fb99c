//! What the core promises: by examples, against a model, and under load in virtual time.

use super::held::Use;
use super::*;
use crate::policy::{Deadline, Lifetimes, ShedReason, Shedding, Trouble};

mod ages;
mod examples;
mod lanes;
mod promises;
mod reference_model;
mod slow_readers;
mod traces;
mod world;

/// The end of a lease of which nothing is known.
const ENDED: Ended = Ended { lane: Some(Lane::Normal), since: None, used: Use::Used };
const MS: Duration = Duration::from_millis(1);

fn patient(now: Instant, millis: u64) -> WaitPolicy {
    WaitPolicy {
        deadline: Deadline::after(now, Duration::from_millis(millis)),
        includes_work: false,
        shedding: Shedding::QueueOnly,
        lane: Lane::Normal,
    }
}

/// Gives a connection back as the shell does: on the fast path if possible.
fn release<W>(core: &mut Core<u32, W>, now: Instant, held: Held<u32>) -> Placed<u32, W> {
    let held = if held.is_untimed() { core.release_fast(held) } else { Some(held) };
    held.map_or(Placed { to: Place::Idle, refused: Vec::new() }, |held| core.release(now, core.time(now), held))
}

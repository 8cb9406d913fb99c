//! What one call has taken of its rates. Dropping it settles all of them, however the call has ended.

use std::fmt;
use std::sync::Arc;

use super::limiter::{Limiter, Taken};

/// A call's charge to the rates of its lane and its operation, and to the limit that the pool itself has set.
///
/// If the charge is dropped before [`begin`](Self::begin), the call got no connection, and all of it is given back.
/// Otherwise the call has used the time since then.
pub(crate) struct Charge([Option<Part>; 3]);

/// The charge to one rate.
struct Part {
    limiter: Arc<Limiter>,
    taken: Taken,
}

impl Part {
    fn new(limiter: &Arc<Limiter>, now: u64) -> Result<Self, u64> {
        limiter.enter()?;
        // From here on, dropping the part gives back what it has taken.
        let mut part = Self { limiter: Arc::clone(limiter), taken: Taken::default() };
        part.limiter.charge(now, &mut part.taken)?;
        Ok(part)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.limiter.leave(&self.taken);
    }
}

impl Charge {
    /// Charges a call to these rates, or to none of them.
    ///
    /// # Errors
    ///
    /// In how many nanoseconds all of them have enough.
    pub(super) fn new(limiters: [Option<&Arc<Limiter>>; 3]) -> Result<Self, u64> {
        let given = || limiters.iter().flatten();
        let now = given().next().map_or(0, |limiter| limiter.now());
        // Looks before it takes, so that a call that one of them refuses does not keep others from the other.
        match given().map(|limiter| limiter.wait(now)).max() {
            None | Some(0) => {}
            Some(wait) => return Err(wait),
        }
        let [of_lane, of_operation, cap] =
            limiters.map(|limiter| limiter.map(|limiter| Part::new(limiter, now)).transpose());
        Ok(Self([of_lane?, of_operation?, cap?]))
    }

    /// The call has got its connection.
    pub(crate) fn begin(&mut self) {
        for Part { limiter, taken } in self.0.iter_mut().flatten() {
            limiter.begin(taken);
        }
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charge").finish_non_exhaustive()
    }
}

//! How far away the server is, as its own connection has shown: what has to be waited for in the background is counted in round trips.
//!
//! The floors are for the work of the server and of this process. They decide when a connection is given up that nobody uses; a caller never waits for them.

use std::time::Duration;

/// For one answer, whatever the network takes.
const FLOOR: Duration = Duration::from_secs(1);
/// For a statement given up to end by itself: most were about to.
const GRACE: Duration = Duration::from_millis(2);
/// For a cancel to have its effect.
const EFFECT: Duration = Duration::from_millis(250);

/// Measured when the connection was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoundTrips {
    /// The shortest time between something written and the answer to it.
    trip: Duration,
    /// From the first packet until the stream could be used: several round trips, if TLS is among them.
    opening: Duration,
}

impl RoundTrips {
    pub(super) fn new(trip: Duration, opening: Duration) -> Self {
        Self { trip, opening }
    }

    /// Until the server answers a question that costs it nothing.
    pub(super) fn answer(&self) -> Duration {
        FLOOR + 4 * self.trip
    }

    /// Until a statement that ends by itself has ended.
    pub(super) fn grace(&self) -> Duration {
        GRACE + self.trip
    }

    /// Until a cancel has had its effect.
    pub(super) fn effect(&self) -> Duration {
        EFFECT + 2 * self.trip
    }

    /// Until the server has taken a cancel: a connection of its own.
    pub(super) fn cancel(&self) -> Duration {
        FLOOR + 2 * self.opening + 4 * self.trip
    }

    /// Until all is cleaned up: a few cancels, which may wait for their turn, and a few statements.
    pub(super) fn settling(&self) -> Duration {
        2 * FLOOR + 4 * self.opening + 32 * self.trip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_by_the_floors_count_and_far_away_the_network() {
        let millis = Duration::from_millis;
        let near = RoundTrips::new(Duration::from_micros(100), Duration::from_micros(200));
        assert!(near.cancel() < millis(1_010) && near.settling() < millis(2_010) && near.grace() < millis(3));
        // TCP, the question for TLS, its handshake.
        let far = RoundTrips::new(millis(600), millis(1_800));
        assert!(far.answer() > FLOOR + millis(600) && far.grace() > millis(600) && far.effect() > millis(600));
        assert!(far.cancel() > millis(1_800 + 600), "as many as it takes");
        assert!(far.settling() > 2 * far.cancel() + 4 * millis(600));
    }
}

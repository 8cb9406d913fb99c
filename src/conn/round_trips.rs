//! How far away the server is, as measured on its connection, and how long work in the background may therefore take.
//!
//! Each limit is a number of round trips and a floor. The floor is for the work of the server and of this process. The
//! limits decide when the pool closes a connection that no caller uses. No caller waits for them.

use std::time::Duration;

/// The time for one answer, besides the time on the network.
const FLOOR: Duration = Duration::from_secs(1);
/// The time for an abandoned statement to end by itself. Most are about to end.
const GRACE: Duration = Duration::from_millis(2);
/// The time for a cancel to take effect.
const EFFECT: Duration = Duration::from_millis(250);

/// Measured when the connection was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoundTrips {
    /// The shortest time between a request and its answer.
    trip: Duration,
    /// The time from the first packet until the stream was usable. With TLS, that is several round trips.
    opening: Duration,
}

impl RoundTrips {
    pub(super) fn new(trip: Duration, opening: Duration) -> Self {
        Self { trip, opening }
    }

    /// Returns how long the server may take to answer a trivial request.
    pub(super) fn answer(&self) -> Duration {
        FLOOR + 4 * self.trip
    }

    /// Returns how long an abandoned statement may take to end by itself.
    pub(super) fn grace(&self) -> Duration {
        GRACE + self.trip
    }

    /// Returns how long a cancel may take to take effect, once the server has it.
    pub(super) fn effect(&self) -> Duration {
        EFFECT + 2 * self.trip
    }

    /// Returns how long the server may take to accept a cancel, which is a connection of its own.
    pub(super) fn cancel(&self) -> Duration {
        FLOOR + 2 * self.opening + 4 * self.trip
    }

    /// Returns how long it may take to settle a connection. That is a few cancels, which may wait for their turn, and a
    /// few statements.
    pub(super) fn settling(&self) -> Duration {
        2 * FLOOR + 4 * self.opening + 32 * self.trip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_by_the_floors_decide_and_far_away_the_round_trips() {
        let millis = Duration::from_millis;
        let near = RoundTrips::new(Duration::from_micros(100), Duration::from_micros(200));
        assert!(near.cancel() < millis(1_010) && near.settling() < millis(2_010) && near.grace() < millis(3));
        // TCP, the request for TLS, the TLS handshake.
        let far = RoundTrips::new(millis(600), millis(1_800));
        assert!(far.answer() > FLOOR + millis(600) && far.grace() > millis(600) && far.effect() > millis(600));
        assert!(far.cancel() > millis(1_800 + 600), "the round trips of the opening are added");
        assert!(far.settling() > 2 * far.cancel() + 4 * millis(600));
    }
}

//! Tries the addresses of one name almost together (RFC 8305, "Happy Eyeballs").
//!
//! The race begins the next address when the earlier ones have been silent for a moment, and uses the first that takes
//! the connection. So a dead address costs a moment and not a timeout. While only silent addresses are left, the race
//! tries those that failed again, because a server may be back before a dead address times out.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time;

/// How long an address is tried alone before the race begins the next one beside it.
pub(super) const HEAD_START: Duration = Duration::from_millis(250);
/// How long the others must be silent before the race tries failed addresses again.
const AGAIN: Duration = Duration::from_secs(1);

/// The result of a race.
pub(super) struct Raced<P, S> {
    /// The first address that took the connection.
    pub(super) first: Option<(P, S)>,
    /// The addresses that failed in this race, each with its latest error.
    pub(super) failed: Vec<(P, io::Error)>,
    /// The addresses that failed in this race or before it.
    pub(super) tried: Vec<P>,
    /// The addresses that were begun before the first and did not answer.
    pub(super) silent: Vec<P>,
    /// The addresses of which nothing is known.
    pub(super) untried: Vec<P>,
}

/// Tries `places` in their order. The addresses in `tried` have failed before this race, and are only tried again.
pub(super) async fn race<P, S, F>(places: Vec<P>, mut tried: Vec<P>, connect: impl Fn(P) -> F) -> Raced<P, S>
where
    P: Clone + PartialEq,
    F: Future<Output = io::Result<S>>,
{
    let (mut left, mut begun, mut failed) = (VecDeque::from(places), Vec::new(), Vec::new());
    let mut under_way = FuturesUnordered::new();
    let first = loop {
        if let Some(place) = left.pop_front() {
            begun.push(place.clone());
            let connecting = connect(place.clone());
            under_way.push(async move { (place, connecting.await) });
        }
        let pause = match (left.is_empty(), tried.is_empty()) {
            (false, _) => HEAD_START,
            (true, false) => AGAIN,
            (true, true) => Duration::MAX,
        };
        match select(under_way.next(), pin!(time::sleep(pause))).await {
            Either::Left((Some((place, Ok(stream))), _)) => break Some((place, stream)),
            Either::Left((Some((place, Err(error))), _)) => {
                begun.retain(|other| *other != place);
                failed.retain(|(other, _)| *other != place);
                tried.push(place.clone());
                failed.push((place, error));
            }
            Either::Left((None, _)) => break None,
            Either::Right(_) if left.is_empty() => left.extend(tried.drain(..)),
            Either::Right(_) => {}
        }
    };
    let before = begun.iter().position(|place| first.as_ref().is_some_and(|(first, _)| first == place));
    let (silent, after) = begun.split_at(before.unwrap_or(begun.len()));
    let untried = after.iter().skip(1).cloned().chain(left).collect();
    Raced { failed, tried, silent: silent.to_vec(), untried, first }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use tokio::time::Instant;

    use super::*;

    /// The outcome of the attempt: after this many milliseconds a success (`true`) or a failure. `None`: silence.
    type Place = Option<(u64, bool)>;

    async fn connect(place: Place) -> io::Result<u64> {
        let Some((millis, is_good)) = place else { return pending().await };
        time::sleep(Duration::from_millis(millis)).await;
        if is_good { Ok(millis) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
    }

    async fn raced(places: &[Place]) -> (Option<u64>, [usize; 3], u128) {
        let begun = Instant::now();
        let raced = race(places.to_vec(), Vec::new(), connect).await;
        let counts = [raced.failed.len(), raced.silent.len(), raced.untried.len()];
        (raced.first.map(|(_, millis)| millis), counts, begun.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_address_that_takes_the_connection_is_used() {
        assert_eq!(raced(&[Some((10, true)), Some((0, true))]).await, (Some(10), [0, 0, 1], 10), "in order");
        assert_eq!(raced(&[None, Some((10, true)), None]).await, (Some(10), [0, 1, 1], 260), "after a moment");
        assert_eq!(raced(&[Some((5, false)), Some((7, true))]).await, (Some(7), [1, 0, 0], 12), "at once");
        assert_eq!(raced(&[Some((300, true)), None]).await, (Some(300), [0, 0, 1], 300), "the other had no head start");
        assert_eq!(raced(&[Some((5, false)), Some((6, false))]).await, (None, [2, 0, 0], 11));
    }

    #[tokio::test(start_paused = true)]
    async fn failed_addresses_are_tried_again_while_the_others_are_silent() {
        let (begun, tries) = (Instant::now(), AtomicU64::new(0));
        let connect = |place: char| {
            let tries = &tries;
            async move {
                if place == 'd' {
                    pending::<()>().await;
                }
                let is_back = tries.fetch_add(1, Relaxed) >= 3;
                if is_back {
                    Ok(begun.elapsed().as_secs())
                } else {
                    Err(io::Error::from(io::ErrorKind::ConnectionRefused))
                }
            }
        };
        let raced = race(vec!['a', 'd'], Vec::new(), connect).await;
        assert_eq!(
            (raced.first, raced.silent, raced.failed.len()),
            (Some(('a', 3)), vec!['d'], 1),
            "after 1, 2 and 3 s"
        );
        // It took a connection before the race, and answered then that it was not ready.
        let raced = race(vec!['d'], vec!['a'], connect).await;
        assert_eq!((raced.first, raced.silent), (Some(('a', 4)), vec!['d']));
        let raced = race(Vec::new(), vec!['a'], connect).await;
        assert!(raced.first.is_none(), "the race does not wait");
    }
}

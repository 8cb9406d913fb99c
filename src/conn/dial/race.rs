//! The addresses of one name, tried almost together: the next is begun when those before have been silent for a moment, and the first that takes the connection
//! is used. So an address that nobody answers, as a dead IPv6 one, costs a moment and not a timeout. (RFC 8305 calls it Happy Eyeballs.)

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time;

/// What an address has before the next is tried beside it.
pub(super) const HEAD_START: Duration = Duration::from_millis(250);

/// What has come of it.
pub(super) struct Raced<P, S> {
    /// The first that took the connection.
    pub(super) first: Option<(P, S)>,
    /// Those that failed before.
    pub(super) failed: Vec<(P, io::Error)>,
    /// Those that were begun before the first and have said nothing.
    pub(super) silent: Vec<P>,
    /// Those of which nothing is known.
    pub(super) untried: Vec<P>,
}

/// `places`: in the order in which they are to be tried.
pub(super) async fn race<P, S, F>(places: Vec<P>, connect: impl Fn(P) -> F) -> Raced<P, S>
where
    P: Clone + PartialEq,
    F: Future<Output = io::Result<S>>,
{
    let (mut left, mut begun, mut failed) = (places.into_iter(), Vec::new(), Vec::new());
    let mut under_way = FuturesUnordered::new();
    let first = loop {
        if let Some(place) = left.next() {
            begun.push(place.clone());
            let connecting = connect(place.clone());
            under_way.push(async move { (place, connecting.await) });
        }
        let head_start = if left.len() > 0 { HEAD_START } else { Duration::MAX };
        match select(under_way.next(), pin!(time::sleep(head_start))).await {
            Either::Left((Some((place, Ok(stream))), _)) => break Some((place, stream)),
            Either::Left((Some((place, Err(error))), _)) => {
                begun.retain(|other| *other != place);
                failed.push((place, error));
            }
            Either::Left((None, _)) => break None,
            Either::Right(_) => {}
        }
    };
    let before = begun.iter().position(|place| first.as_ref().is_some_and(|(first, _)| first == place));
    let (silent, after) = begun.split_at(before.unwrap_or(begun.len()));
    let untried = after.iter().skip(1).cloned().chain(left).collect();
    Raced { failed, silent: silent.to_vec(), untried, first }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;

    /// Each place is what becomes of it: a success or a failure after so many milliseconds, or nothing ever.
    type Place = Option<(u64, bool)>;

    async fn connect(place: Place) -> io::Result<u64> {
        let Some((millis, is_good)) = place else { return pending().await };
        time::sleep(Duration::from_millis(millis)).await;
        if is_good { Ok(millis) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
    }

    async fn raced(places: &[Place]) -> (Option<u64>, [usize; 3], u128) {
        let begun = Instant::now();
        let raced = race(places.to_vec(), connect).await;
        let counts = [raced.failed.len(), raced.silent.len(), raced.untried.len()];
        (raced.first.map(|(_, millis)| millis), counts, begun.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_that_takes_the_connection_is_used() {
        assert_eq!(raced(&[Some((10, true)), Some((0, true))]).await, (Some(10), [0, 0, 1], 10), "in order");
        assert_eq!(raced(&[None, Some((10, true)), None]).await, (Some(10), [0, 1, 1], 260), "after a moment");
        assert_eq!(raced(&[Some((5, false)), Some((7, true))]).await, (Some(7), [1, 0, 0], 12), "at once");
        assert_eq!(raced(&[Some((300, true)), None]).await, (Some(300), [0, 0, 1], 300), "the other had no head start");
        assert_eq!(raced(&[Some((5, false)), Some((6, false))]).await, (None, [2, 0, 0], 11));
    }
}

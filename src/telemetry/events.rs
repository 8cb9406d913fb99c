//! A pool's events as a stream.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::event::Event;

/// The events of a pool since the call of [`Pool::events`](crate::Pool::events). Read it as a `futures::Stream`, or
/// with [`next`](Self::next).
///
/// It keeps the last 1,024 events for its reader. If the reader is slower, the oldest are lost, and
/// [`dropped`](Self::dropped) counts them. The stream ends after the last event of a pool that was dropped.
#[must_use = "events are lost until they are read"]
pub struct Events {
    /// The wait for the next event. It owns the receiver, so a reader that stops polling loses no event.
    next: Pin<Box<dyn Future<Output = Received> + Send + Sync>>,
    dropped: u64,
    has_ended: bool,
}

type Received = (Receiver<Arc<Event>>, Result<Arc<Event>, RecvError>);

async fn receive(mut receiver: Receiver<Arc<Event>>) -> Received {
    let received = receiver.recv().await;
    (receiver, received)
}

impl Events {
    pub(super) fn new(receiver: Receiver<Arc<Event>>) -> Self {
        Self { next: Box::pin(receive(receiver)), dropped: 0, has_ended: false }
    }

    /// Waits for the next event. Returns `None` after the pool was dropped. Cancel safe: a dropped future loses no
    /// event.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Returns the number of events that were lost because this stream was not read in time.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl Stream for Events {
    type Item = Arc<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Arc<Event>>> {
        while !self.has_ended {
            let (receiver, received) = ready!(self.next.as_mut().poll(cx));
            self.next = Box::pin(receive(receiver));
            match received {
                Ok(event) => return Poll::Ready(Some(event)),
                Err(RecvError::Lagged(missed)) => self.dropped += missed,
                Err(RecvError::Closed) => self.has_ended = true,
            }
        }
        Poll::Ready(None)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dropped, has_ended, .. } = self;
        f.debug_struct("Events").field("dropped", dropped).field("has_ended", has_ended).finish_non_exhaustive()
    }
}

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

/// What happens to a pool, from [`Pool::events`](crate::Pool::events) on: a [`Stream`], or [`next`](Self::next) after `next`.
///
/// It keeps the last 1,024 events for its reader. One who comes later than that has lost the oldest, and [`dropped`](Self::dropped) says how many. It
/// ends when the pool is gone, after the last event.
#[must_use = "events are lost until they are read"]
pub struct Events {
    /// The wait for the next one. It owns the receiver, so that nothing is lost when whoever polls it goes away.
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

    /// The next event; `None` when the pool is gone. Cancel safe: one that is dropped has taken nothing.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Events that were dropped so far because this stream was not read in time.
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

//! The bounds of a stream: each item under the query timeout, all of it under the deadline.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{self, Sleep};

use super::Flight;
use super::queries::{Terms, now};
use crate::error::Error;

/// A call that has begun to answer.
pub(crate) struct Pace {
    /// `None` once the call is over.
    flight: Option<Flight>,
    terms: Terms,
    /// How long the next item is waited for.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub(crate) fn new(flight: Flight, terms: Terms) -> Self {
        Self { flight: Some(flight), terms, waiting: None }
    }

    /// Bounds what one step of the stream has come to. `None` is the end.
    pub(crate) fn bound<T>(
        &mut self,
        cx: &mut Context<'_>,
        step: Poll<Option<Result<T, tokio_postgres::Error>>>,
    ) -> Poll<Option<Result<T, Error>>> {
        let Some(flight) = self.flight.take() else { return Poll::Ready(None) };
        match step {
            Poll::Ready(Some(Ok(item))) => {
                self.waiting = None;
                self.flight = Some(flight);
                Poll::Ready(Some(Ok(item)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(flight.explain_now(error)))),
            Poll::Ready(None) => {
                flight.answered();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let patience = self.waiting.get_or_insert_with(|| {
                    let limit = self.terms.limit(now()).instant();
                    Box::pin(time::sleep_until(limit.into()))
                });
                if patience.as_mut().poll(cx).is_pending() {
                    self.flight = Some(flight);
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(flight.timed_out())))
            }
        }
    }

    /// Whether the call is over, well or not.
    pub(crate) fn is_over(&self) -> bool {
        self.flight.is_none()
    }
}

//! The end of a COPY from the server.
//!
//! The driver's streams end with the data. Only then does the server fire AFTER triggers, check constraints and commit,
//! and each of these may fail. So this stream reads on until the server is ready for the next request. The driver
//! expects no message there, and reports each as an error.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use tokio_postgres::binary_copy::BinaryCopyOutStream;
use tokio_postgres::{CopyOutStream, Error};

use super::not_binary;

/// A stream of the driver that ends when the server has finished the command, or with the error of that end.
pub(super) struct Confirmed<S> {
    data: Pin<Box<S>>,
    next: Next,
    after_data: Next,
    /// The data had an end, but not the one of the binary format.
    is_not_binary: bool,
}

/// What the server sends next, unless it sends an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Data,
    CopyDone,
    CommandComplete,
    ReadyForQuery,
}

impl Confirmed<CopyOutStream> {
    /// The driver has read the CopyDone when its stream ends.
    pub(super) fn of_data(data: CopyOutStream) -> Self {
        Self { data: Box::pin(data), next: Next::Data, after_data: Next::CommandComplete, is_not_binary: false }
    }
}

impl Confirmed<BinaryCopyOutStream> {
    /// The driver ends its stream at the mark that follows the last row. It reports the CopyDone as a closed
    /// connection, also if there was no such mark: other formats have nothing before it if there are no rows. If the
    /// connection has ended, the driver reports that again and again.
    pub(super) fn of_rows(rows: BinaryCopyOutStream) -> Self {
        Self { data: Box::pin(rows), next: Next::Data, after_data: Next::CopyDone, is_not_binary: false }
    }
}

impl<S, T> Stream for Confirmed<S>
where
    S: Stream<Item = Result<T, Error>>,
{
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            this.next = match (this.next, ready!(this.data.as_mut().poll_next(cx))) {
                (Next::Data, None) => this.after_data,
                (Next::Data, Some(Err(error))) if error.is_closed() && this.after_data == Next::CopyDone => {
                    this.is_not_binary = true;
                    Next::CommandComplete
                }
                (Next::CopyDone, Some(Err(error))) if error.is_closed() => Next::CommandComplete,
                (Next::CommandComplete, Some(Err(error))) if is_other_message(&error) => Next::ReadyForQuery,
                (Next::ReadyForQuery, Some(Err(error))) if is_other_message(&error) => {
                    let error = if this.is_not_binary { not_binary::error() } else { None };
                    return Poll::Ready(error.map(Err));
                }
                (_, item) => return Poll::Ready(item),
            };
        }
    }
}

/// Returns whether the driver got a message that it does not expect. Otherwise the server has reported an error, or the
/// connection has ended.
fn is_other_message(error: &Error) -> bool {
    error.as_db_error().is_none() && !error.is_closed()
}

//! Replaces `traced` without the feature `tracing`: the same names, which do nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio_postgres::Config;

use super::{Fault, Observer};
use crate::error::Error;

#[derive(Debug, Clone)]
pub(crate) struct Tracer;

#[derive(Debug, Clone, Default)]
pub(crate) struct Span(());

#[derive(Debug)]
pub(crate) struct Server;

// They take no memory in a call, a statement or a connection.
const _: () = assert!(size_of::<(Tracer, Span, Server)>() == 0);

impl Tracer {
    #[inline]
    pub(crate) fn new(_: &str, _: &Config) -> Self {
        Self
    }

    #[inline]
    pub(crate) fn log(&self) -> Option<Arc<dyn Observer>> {
        None
    }

    #[inline]
    pub(crate) fn call(&self, _: Option<&'static str>, _: &'static str) -> Span {
        Span(())
    }

    #[inline]
    pub(crate) fn statement(&self, _: Option<&'static str>, _: &'static str, _: &Server) -> Span {
        Span(())
    }

    #[inline]
    pub(crate) fn wait<F: Future + Unpin>(&self, wait: F) -> Wait<F> {
        Wait(Some(wait))
    }
}

impl Server {
    #[inline]
    pub(crate) fn at(_: &str) -> Self {
        Self
    }
}

impl Span {
    #[inline]
    pub(crate) fn scope<F: Future>(&self, work: F) -> F {
        work
    }

    #[inline]
    pub(crate) fn set_server(&self, _: &Server) {}

    #[inline]
    pub(crate) fn set_attempts(&self, _: u32) {}

    #[inline]
    pub(crate) fn failed(&self, _: Fault) {}

    #[inline]
    pub(crate) fn fell_back(&self, _: Fault) {}

    #[inline]
    pub(crate) fn with(&self, error: Error) -> Error {
        error
    }
}

#[must_use = "futures do nothing unless awaited"]
pub(crate) struct Wait<F>(Option<F>);

impl<F: Future + Unpin> Future for Wait<F> {
    type Output = (F::Output, F, Span);

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let wait = self.0.as_mut().expect(super::POLLED);
        let output = ready!(Pin::new(wait).poll(context));
        Poll::Ready((output, self.0.take().expect(super::POLLED), Span(())))
    }
}

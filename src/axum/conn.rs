//! The extractor for calls that end with the request.

use std::convert::Infallible;

use axum_core::extract::{FromRef, FromRequestParts};
use http::request::Parts;

use super::deadline::RequestDeadline;
use crate::call::Call;
#[cfg(feature = "cluster")]
use crate::cluster::{Cluster, ClusterCall};
use crate::pool::Pool;

/// An extractor: the pool, with the deadline of the request. `Conn<Cluster>` is that of a cluster.
///
/// It takes no connection. Each [`call`](Self::call) takes one and gives it back, as [`Pool::call`] does.
#[derive(Debug, Clone)]
pub struct Conn<P = Pool> {
    pool: P,
    deadline: Option<RequestDeadline>,
}

impl<P> Conn<P> {
    pub(super) fn of<S>(parts: &Parts, state: &S) -> Self
    where
        P: FromRef<S>,
    {
        Self { pool: P::from_ref(state), deadline: parts.extensions.get().copied() }
    }
}

impl Conn {
    /// Starts a call that has to be over by the [deadline of the request](super::DeadlineLayer). Without that layer,
    /// the call has no deadline.
    #[track_caller]
    pub fn call(&self) -> Call<'_> {
        let call = self.pool.call();
        match self.deadline {
            Some(deadline) => call.deadline(deadline.instant()),
            None => call,
        }
    }

    /// The pool.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}

#[cfg(feature = "cluster")]
impl Conn<Cluster> {
    /// Starts a call that has to be over by the [deadline of the request](super::DeadlineLayer). Without that layer,
    /// the call has no deadline.
    #[track_caller]
    pub fn call(&self) -> ClusterCall<'_> {
        let call = self.pool.call();
        match self.deadline {
            Some(deadline) => call.deadline(deadline.instant()),
            None => call,
        }
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.pool
    }
}

impl<S, P> FromRequestParts<S> for Conn<P>
where
    S: Send + Sync,
    P: FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts, state))
    }
}

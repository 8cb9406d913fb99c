//! One transaction for a request: it begins at the first statement, and its end depends on the response.
//!
//! The layer keeps a slot, and puts a weak handle of it into the extensions of the request: a middleware may keep a
//! clone of the request beyond the response. The extractor begins the transaction in the slot. After the handler, the
//! layer takes the transaction out and ends it. If the request is dropped before, because the client has gone or the
//! handler panics, the slot is dropped, and the pool rolls back.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use axum_core::extract::{FromRef, FromRequestParts};
use axum_core::response::{IntoResponse, Response};
use futures_util::TryFutureExt;
use http::request::Parts;
use http::{Request, StatusCode};
use tokio::sync::OnceCell;
use tower_layer::Layer;
use tower_service::Service;

use super::conn::Conn;
use super::response::problem;
use crate::call::Call;
use crate::call::transactions::MeasuredTransaction;
#[cfg(feature = "cluster")]
use crate::cluster::{Cluster, ClusterCall};
use crate::conn::Transaction;
use crate::error::Error;
use crate::pool::Pool;

/// The transaction of a request, once it has begun.
type Slot = OnceCell<MeasuredTransaction>;

/// An extractor: the transaction of the request, which [`TxLayer`] ends. `Tx<Cluster>` is that of a cluster.
///
/// It takes no connection before [`begin`](Self::begin). If the response is a success (2xx or 3xx), the transaction is
/// committed before the client gets the response. If the commit fails, the client gets the response of that error
/// instead. After every other response the transaction is rolled back. So it is if the client goes away, or the handler
/// panics.
///
/// All extractors of a request share the transaction. After the handler nothing may hold it any more: a response that
/// streams rows of the transaction, or a spawned task that has a clone, makes the commit fail
/// ([`Error::TransactionAborted`]).
///
/// The handler runs once, also after a conflict. [`Pool::transaction`] runs again. Use that if
/// conflicts are to be expected, or if the handler needs the error of the commit.
///
/// The [metrics](crate#features) count the transaction as one operation, from its begin to its end. If it is rolled
/// back, the operation has failed: with the error of the last statement that failed, or with `_OTHER` if none failed.
///
/// The handler does not see an error of the commit. To map the violation of a deferred constraint, run `SET CONSTRAINTS
/// ALL IMMEDIATE` as the last statement: it fails as the commit would.
#[derive(Debug, Clone)]
pub struct Tx<P = Pool> {
    conn: Conn<P>,
    slot: Arc<Slot>,
}

impl Tx {
    /// Returns the transaction. The first call begins it, by the [deadline of the request](super::DeadlineLayer).
    ///
    /// # Errors
    ///
    /// As [`Pool::get`] and [`Client::transaction`](crate::Client::transaction). A later call tries again.
    #[track_caller]
    pub fn begin(&self) -> impl Future<Output = Result<&Transaction, Error>> + Send {
        self.begin_with(|call| call)
    }

    /// [`begin`](Self::begin) with settings: a [name](Call::name), or an [isolation level](Call::options).
    ///
    /// ```no_run
    /// # use failfast::axum::Tx;
    /// # async fn handler(tx: Tx) -> Result<(), failfast::Error> {
    /// let tx = tx.begin_with(|call| call.name("place_order")).await?;
    /// # tx.execute("SELECT 1", &[]).await.map(drop)
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin).
    #[track_caller]
    pub fn begin_with(
        &self,
        settings: impl FnOnce(Call<'_>) -> Call<'_> + Send,
    ) -> impl Future<Output = Result<&Transaction, Error>> + Send {
        let call = settings(self.conn.call());
        let beginning = self.slot.get_or_try_init(move || call.begin_measured());
        beginning.map_ok(MeasuredTransaction::transaction)
    }
}

#[cfg(feature = "cluster")]
impl Tx<Cluster> {
    /// Returns the transaction, at the primary. The first call begins it, by the [deadline of the
    /// request](super::DeadlineLayer).
    ///
    /// # Errors
    ///
    /// As [`Cluster::get`] and [`Client::transaction`](crate::Client::transaction). A later call tries again.
    #[track_caller]
    pub fn begin(&self) -> impl Future<Output = Result<&Transaction, Error>> + Send {
        self.begin_with(|call| call)
    }

    /// [`begin`](Self::begin) with settings: a [name](ClusterCall::name), or at a replica ([`ClusterCall::read`]).
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin).
    #[track_caller]
    pub fn begin_with(
        &self,
        settings: impl FnOnce(ClusterCall<'_>) -> ClusterCall<'_> + Send,
    ) -> impl Future<Output = Result<&Transaction, Error>> + Send {
        let call = settings(self.conn.call());
        let beginning = self.slot.get_or_try_init(move || call.begin_measured());
        beginning.map_ok(MeasuredTransaction::transaction)
    }
}

impl<S, P> FromRequestParts<S> for Tx<P>
where
    S: Send + Sync,
    P: FromRef<S>,
{
    type Rejection = NoTxLayer;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, NoTxLayer> {
        let slot = parts.extensions.get::<Weak<Slot>>().and_then(Weak::upgrade).ok_or(NoTxLayer)?;
        Ok(Self { slot, conn: Conn::of(parts, state) })
    }
}

/// A handler takes a [`Tx`], and its route has no [`TxLayer`], or the request has already been answered. This is a 500.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a handler takes a Tx, and its route has no TxLayer that would commit it: add .layer(TxLayer::new())")]
#[non_exhaustive]
pub struct NoTxLayer;

impl IntoResponse for NoTxLayer {
    fn into_response(self) -> Response {
        let mut response = problem(StatusCode::INTERNAL_SERVER_ERROR, None);
        response.extensions_mut().insert(self);
        response
    }
}

/// The layer that ends the transactions of [`Tx`].
///
/// Layers that are added later run around it. One that changes a status, such as a handler of errors, belongs inside:
/// add it before this one.
#[derive(Debug, Clone, Copy, Default)]
pub struct TxLayer(());

impl TxLayer {
    /// Returns the layer.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S> Layer<S> for TxLayer {
    type Service = TxService<S>;

    fn layer(&self, inner: S) -> TxService<S> {
        TxService { inner }
    }
}

/// The service of a [`TxLayer`].
#[derive(Debug, Clone)]
pub struct TxService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for TxService<S>
where
    S: Service<Request<B>>,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let slot: Arc<Slot> = Arc::default();
        request.extensions_mut().insert(Arc::downgrade(&slot));
        let responding = self.inner.call(request);
        Box::pin(async move {
            let response = responding.await?.into_response();
            Ok(match end(slot, response.status()).await {
                Ok(()) => response,
                Err(error) => error.into_response(),
            })
        })
    }
}

/// Ends the transaction of a response with this status.
async fn end(slot: Arc<Slot>, status: StatusCode) -> Result<(), Error> {
    // If the response or a task still has the extractor, the commit fails, because it finds another handle.
    let transaction = Arc::try_unwrap(slot).map_or_else(|slot| slot.get().cloned(), OnceCell::into_inner);
    match transaction {
        Some(transaction) if status.is_success() || status.is_redirection() => transaction.commit().await,
        Some(transaction) => {
            transaction.rollback().await;
            Ok(())
        }
        None => Ok(()),
    }
}

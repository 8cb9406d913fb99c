//! LISTEN on a cluster: the listener is at the primary, and moves with it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};

use super::Cluster;
use super::board::Board;
use super::host::Host;
use crate::clock::now;
use crate::conn::{Inbox, Listening};
use crate::error::{ConfigError, Error};
use crate::listen::listener::Listener;
use crate::listen::{Notifications, begin_on, check};
use crate::policy::Primacy;

impl Cluster {
    /// Listens on channels at the primary, and returns a stream of their notifications: see
    /// [`Pool::listen`](crate::Pool::listen).
    ///
    /// When another host becomes the primary, the listener moves there, and the stream yields
    /// [`Received::Gap`](crate::Received::Gap): what the old primary sent meanwhile is missing. Asynchronous
    /// replication may also have lost changes that were announced before. So read the state again at the new primary.
    ///
    /// # Errors
    ///
    /// As [`Pool::listen`](crate::Pool::listen) and [`primary`](Self::primary). It waits for the first answers of the
    /// hosts within [`acquire_timeout`](crate::PoolBuilder::acquire_timeout).
    ///
    /// # Panics
    ///
    /// As [`Pool::listen`](crate::Pool::listen).
    pub fn listen<I>(
        &self,
        channels: I,
    ) -> Result<impl Future<Output = Result<Notifications, Error>> + Send + use<I>, ConfigError>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let (channels, core) = (check(channels)?, Arc::clone(&self.core));
        Ok(begin_on(core.runtime.clone(), async move {
            core.start();
            core.first_answers(now() + core.hosts[0].pool.shared.acquire_timeout).await;
            let (primary, inbox) = (core.primary()?, Arc::<Inbox>::default());
            let listener = |host: &Host| Listener::new(&host.pool.shared, channels.clone(), Arc::clone(&inbox));
            let mut listeners: Vec<_> = core.hosts.iter().map(listener).collect();
            let board = Arc::clone(&core.board);
            // A listener keeps no pool open.
            drop(core);
            let first = listeners[primary].begin().await?;
            let task = async move { follow(&board, first, primary, &mut listeners).await };
            Ok(Notifications::fed_by(&inbox, task))
        }))
    }
}

/// Listens at whichever host is the primary, until its pool is closed.
async fn follow(board: &Board, first: Listening, primary: usize, listeners: &mut [Listener]) {
    let mut host = primary;
    let mut next = stay(board, host, listeners[host].run(first)).await;
    while let Some(other) = next {
        let reason = format!("{} is the primary instead of {}", board.label(other), board.label(host));
        host = other;
        next = stay(board, host, listeners[host].take_over(reason)).await;
    }
}

/// Listens at a host until another one is the primary, and returns that one. `None` if the pool was closed before.
async fn stay(board: &Board, host: usize, listening: impl Future<Output = ()>) -> Option<usize> {
    let mut decisions = board.decisions();
    let moved = async {
        loop {
            match board.state().primacy() {
                Primacy::Primary { host: primary, .. } if primary != host => return primary,
                _ => {}
            }
            if decisions.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    match select(pin!(listening), pin!(moved)).await {
        Either::Left(_) => None,
        Either::Right((primary, _)) => Some(primary),
    }
}

//! One connection to the server: made by [`dial`], held as a [`Conn`], handed out as a [`Client`].

mod client;
mod dial;
mod factory;
mod hooks;
mod hosts;
mod secure;
mod session;
mod socket;
mod stream;

use std::sync::Arc;

use deadpool_postgres::{ClientWrapper, Object, StatementCache};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use self::client::Client;
pub(crate) use self::dial::Dialer;
pub use self::hooks::Credentials;
pub(crate) use self::hooks::Hooks;
pub(crate) use self::secure::Connector;
pub use self::socket::Socket;
use crate::slots::Connection;

/// A connection, and the task that drives it.
///
/// Its deadpool object never goes back to deadpool, which would hand it out again as if it were new: it is taken out of deadpool's
/// books when the connection ends, and nowhere else.
#[derive(Debug)]
pub(crate) struct Conn {
    /// `None` once ended.
    object: Option<Object>,
    /// Tells whether `object` is still the one that was dialed: a guard gives `&mut` access, so a caller could swap it.
    statements: Arc<StatementCache>,
    task: JoinHandle<()>,
    /// Dropped with the connection: the task then has a second left. Used to tell it that the connection is no longer the pool's.
    alive: Option<oneshot::Sender<()>>,
}

impl Conn {
    fn end(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
        self.alive = None;
    }

    fn object(&self) -> &Object {
        self.object.as_ref().expect(CONNECTED)
    }

    fn object_mut(&mut self) -> &mut Object {
        self.object.as_mut().expect(CONNECTED)
    }

    fn detach(mut self) -> ClientWrapper {
        if let Some(alive) = self.alive.take() {
            let _ = alive.send(());
        }
        Object::take(self.object.take().expect(CONNECTED))
    }
}

/// Why `object` is never `None` while somebody holds the connection: it ends only after its lease.
const CONNECTED: &str = "a leased connection has not ended";

impl Drop for Conn {
    fn drop(&mut self) {
        self.end();
    }
}

impl Connection for Box<Conn> {
    fn is_usable(&self) -> bool {
        self.object
            .as_ref()
            .is_some_and(|object| !object.is_closed() && Arc::ptr_eq(&object.statement_cache, &self.statements))
    }

    /// Says goodbye to the server and waits for the task to end.
    async fn close(mut self) {
        self.end();
        let _ = (&mut self.task).await;
    }
}

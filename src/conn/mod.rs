//! One connection to the server: made by [`dial`], held as a [`Conn`], handed out as a [`Client`].

mod client;
mod dial;
#[allow(dead_code, reason = "settling and transactions ask")]
mod epitaph;
mod factory;
mod hooks;
mod hosts;
mod identity;
mod questions;
mod secure;
mod session;
mod socket;
mod stream;
#[allow(dead_code, reason = "settling and transactions ask")]
mod task;
#[allow(dead_code, reason = "settling and transactions ask")]
mod wire;

use std::sync::Arc;

use deadpool_postgres::{ClientWrapper, Object, StatementCache};

pub use self::client::Client;
pub(crate) use self::dial::Dialer;
pub use self::hooks::Credentials;
pub(crate) use self::hooks::Hooks;
use self::identity::Identity;
pub(crate) use self::secure::Connector;
pub use self::socket::Socket;
use self::task::Task;
use crate::slots::Connection;

/// A connection, and the task that drives it.
///
/// Its deadpool object never goes back to deadpool: the pool that made it is gone, so the connection ends where the object is dropped.
#[derive(Debug)]
pub(crate) struct Conn {
    object: Object,
    /// Tells whether `object` is still the one that was dialed: a guard gives `&mut` access, so a caller could swap it,
    statements: Arc<StatementCache>,
    /// or only the driver's client inside it.
    client: Identity,
    /// Whether `&mut` access was given.
    touched: bool,
    task: Task,
}

impl Conn {
    async fn new(client: tokio_postgres::Client, task: Task) -> Self {
        let identity = Identity::of(&client);
        let object = factory::wrap(client).await;
        Self { statements: Arc::clone(&object.statement_cache), object, client: identity, touched: false, task }
    }

    fn object_mut(&mut self) -> &mut Object {
        self.touched = true;
        &mut self.object
    }

    fn detach(self) -> ClientWrapper {
        self.task.release();
        Object::take(self.object)
    }
}

impl Connection for Box<Conn> {
    fn is_usable(&self) -> bool {
        !self.object.is_closed()
            && Arc::ptr_eq(&self.object.statement_cache, &self.statements)
            && (!self.touched || Identity::of(&self.object) == self.client)
    }

    /// Says goodbye to the server and waits for the task to end.
    async fn close(self) {
        let Conn { object, task, .. } = *self;
        drop(object);
        task.ended().await;
    }
}

//! Deadpool as the factory of `deadpool_postgres::Object`s.
//!
//! An `Object` can only come out of a deadpool pool. Ours dials first, by itself, and then lets deadpool wrap what is finished: a pool
//! of one, made for it and gone at once, picks it up in one poll. So deadpool never sees a dial that fails, hangs or is cancelled, never
//! decides who gets a connection, and has no pool that a caller could reach through an object, close or use up; an object that is
//! dropped is closed.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use deadpool_postgres::{Connect, Manager, ManagerConfig, Object, PoolConfig};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error};

/// Makes an object of a finished connection.
pub(crate) async fn wrap(client: Client) -> Object {
    let connect = PickUp(Mutex::new(Some(client)));
    let manager = Manager::from_connect(Config::new(), connect, ManagerConfig::default());
    let pool = deadpool_postgres::Pool::builder(manager).config(PoolConfig::new(1)).build();
    let pool = pool.expect("a pool without timeouts needs no runtime");
    pool.get().await.expect("one is free, and its connection is ready")
}

/// Hands deadpool the connection that is waiting for it.
struct PickUp(Mutex<Option<Client>>);

impl Connect for PickUp {
    fn connect(
        &self,
        _: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        let client = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let client = client.expect("a pool of one, gone at once, connects once");
        // A handle to nothing: deadpool aborts the task it is given when a client is dropped, and an aborted connection says no
        // Terminate. The real task ends by itself.
        Box::pin(ready(Ok((client, tokio::spawn(async {})))))
    }
}

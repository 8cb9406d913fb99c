//! Makes a `deadpool_postgres::Object` of a connection that the pool has dialed.
//!
//! Only a deadpool pool can make an `Object`. So our pool dials, and then builds a deadpool pool of size one, which
//! takes over the finished connection in one poll and is dropped at once. Deadpool never sees a dial that fails, hangs
//! or is cancelled. It never decides who gets a connection. No caller can reach its pool through an object, and an
//! object that is dropped is closed.

use std::future::{Future, ready};
use std::pin::Pin;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Object, PoolConfig};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error};

/// Makes an object of a finished connection.
pub(crate) async fn wrap(client: Client) -> Object {
    let connect = Finished(Mutex::new(Some(client)));
    let manager = Manager::from_connect(Config::new(), connect, ManagerConfig::default());
    let pool = deadpool_postgres::Pool::builder(manager).config(PoolConfig::new(1)).build();
    let pool = pool.expect("a pool without timeouts needs no runtime");
    pool.get().await.expect("one is free, and its connection is ready")
}

/// "Connects" deadpool to the connection that already exists.
struct Finished(Mutex<Option<Client>>);

impl Connect for Finished {
    fn connect(
        &self,
        _: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        let client = self.0.lock().take();
        let client = client.expect("the pool of one is dropped after its first connection");
        // The handle is that of an empty task. Deadpool aborts the task when a client is dropped, and an aborted task
        // would send no Terminate. The real task ends by itself.
        Box::pin(ready(Ok((client, tokio::spawn(async {})))))
    }
}

//! Deadpool as the factory of `deadpool_postgres::Object`s.
//!
//! An `Object` can only come out of a deadpool pool. Ours dials first, by itself, and then lets deadpool wrap what is finished: the
//! pair waits in a task-local while deadpool's `get` runs, which picks it up in one poll. So deadpool never sees a dial that fails,
//! hangs or is cancelled, and never decides who gets a connection.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Object, PoolConfig, PoolError, Timeouts};
use tokio::task::JoinHandle;
use tokio_postgres::Config;

tokio::task_local! {
    static FINISHED: Cell<Option<tokio_postgres::Client>>;
}

/// Makes objects of finished connections.
#[derive(Debug)]
pub(super) struct Factory(deadpool_postgres::Pool);

impl Factory {
    pub(super) fn new(config: Config) -> Self {
        let manager = Manager::from_connect(config, PickUp, ManagerConfig::default());
        let pool = deadpool_postgres::Pool::builder(manager)
            .config(PoolConfig::new(1))
            .build();
        Self(pool.expect("a pool without timeouts needs no runtime"))
    }

    /// `None` only if somebody reached deadpool's pool through an object and closed it.
    pub(super) async fn wrap(&self, client: tokio_postgres::Client) -> Option<Object> {
        FINISHED
            .scope(Cell::new(Some(client)), async {
                loop {
                    let object = match self.0.timeout_get(&Timeouts::wait_millis(0)).await {
                        Ok(object) => object,
                        // How many there may be is not deadpool's to decide: its limit grows on demand, and never shrinks.
                        Err(PoolError::Timeout(_)) => {
                            self.0.resize(self.0.status().max_size + 1);
                            continue;
                        }
                        Err(_) => return None,
                    };
                    let picked_up = FINISHED.with(|finished| {
                        let client = finished.take();
                        let picked_up = client.is_none();
                        finished.set(client);
                        picked_up
                    });
                    if picked_up {
                        return Some(object);
                    }
                    // One that a caller swapped out of its guard and dropped: deadpool kept it.
                    drop(Object::take(object));
                }
            })
            .await
    }
}

/// Hands deadpool the connection that is waiting for it.
struct PickUp;

impl Connect for PickUp {
    fn connect(
        &self,
        _: &Config,
    ) -> Pin<
        Box<dyn Future<Output = Result<(tokio_postgres::Client, JoinHandle<()>), tokio_postgres::Error>> + Send + '_>,
    > {
        let finished = FINISHED.try_with(Cell::take).ok().flatten();
        Box::pin(async move {
            match finished {
                // A handle to nothing: deadpool aborts the task it is given when a client is dropped, and an aborted connection says no
                // Terminate. The real task ends by itself.
                Some(client) => Ok((client, tokio::spawn(async {}))),
                None => Err(nothing_to_pick_up()),
            }
        })
    }
}

/// For somebody who reached deadpool's pool through an object and asked it for a connection. The driver has no error that can be
/// made from outside; this is its answer to an unknown setting.
fn nothing_to_pick_up() -> tokio_postgres::Error {
    match "connections_come_from=the_failfast_pool_only".parse::<Config>() {
        Err(error) => error,
        Ok(_) => unreachable!("the driver knows no such setting"),
    }
}

//! What the `after_connect` hook may leave on a connection: no transaction, and no request without its answer.

use std::mem::forget;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::Object;
use failfast::{ConnectErrorKind, Pool, Reset};
use futures_util::{SinkExt, StreamExt};

use super::{LONG, refusal};
use crate::support::{eventually, server::Server};

const NO_PARAMETERS: [&str; 0] = [];

/// How a hook returns although something is unfinished.
#[derive(Debug, Clone, Copy)]
enum Leave {
    Transaction,
    FailedTransaction,
    /// The driver has not even sent the BEGIN.
    UnsentBegin,
    UnfinishedCopy,
    /// The rest of its rows never comes.
    DroppedStream,
    /// The driver waits until somebody takes the rows.
    UnreadStream,
    /// The rest of its rows comes at once.
    ShortStream,
    Nothing,
}

async fn leave(client: &Object, what: Leave) -> Result<(), tokio_postgres::Error> {
    client.batch_execute("SET search_path = pg_temp, public; CREATE TEMP TABLE hook (id int)").await?;
    match what {
        Leave::Transaction => client.batch_execute("BEGIN; SELECT 1").await?,
        Leave::FailedTransaction => {
            client.batch_execute("BEGIN").await?;
            assert!(client.batch_execute("SELECT 1/0").await.is_err());
        }
        Leave::UnsentBegin => {
            let begin = pin!(client.batch_execute("BEGIN"));
            assert!(futures_util::poll!(begin).is_pending());
        }
        Leave::UnfinishedCopy => {
            let mut copy = pin!(client.copy_in::<_, Bytes>("COPY hook FROM STDIN").await?);
            copy.send(Bytes::from("1\n")).await?;
        }
        Leave::DroppedStream => {
            // The server sends nothing before its buffer is full.
            let sql = "SELECT n, CASE WHEN n > 9999 THEN pg_sleep(60) END FROM generate_series(1, 10000) n";
            drop(client.query_raw(sql, NO_PARAMETERS).await?);
        }
        Leave::UnreadStream => forget(client.query_raw("SELECT generate_series(1, 100000)", NO_PARAMETERS).await?),
        Leave::ShortStream => {
            let mut rows = pin!(client.query_raw("SELECT generate_series(1, 1000)", NO_PARAMETERS).await?);
            rows.next().await.transpose()?;
        }
        Leave::Nothing => {}
    }
    Ok(())
}

fn pool(server: &Server, what: Leave, connect_timeout: Duration) -> Pool {
    let builder = Pool::builder(server.config()).name(format!("hook_{what:?}")).connect_timeout(connect_timeout);
    builder.max_size(1).after_connect(move |client| Box::pin(leave(client, what))).build().unwrap()
}

#[tokio::test]
async fn a_hook_that_leaves_something_unfinished_fails_the_dial() {
    let server = Server::shared().await;
    for (what, expected) in [
        (Leave::Transaction, "left a transaction open: end it with COMMIT"),
        (Leave::FailedTransaction, "left a failed transaction: end it with ROLLBACK, and return its error"),
        (Leave::UnsentBegin, "left a transaction open: end it with COMMIT"),
        (Leave::UnfinishedCopy, "did not wait for a request, which failed: finish each COPY, and await each request"),
    ] {
        let pool = pool(server, what, LONG);
        let error = refusal(&pool).await;
        assert_eq!(*error.kind(), ConnectErrorKind::AfterConnect, "{what:?}");
        assert_eq!(error.to_string(), format!("{}: the after_connect hook {expected}", server.addr()), "{what:?}");
        assert_eq!(pool.status().idle, 0, "{what:?}");
    }
}

/// The owner's limit decides how long the pool waits for the rest.
#[tokio::test]
async fn a_hook_that_leaves_an_endless_stream_has_only_connect_timeout() {
    let (server, limit) = (Server::shared().await, Duration::from_secs(3));
    for what in [Leave::DroppedStream, Leave::UnreadStream] {
        let error = refusal(&pool(server, what, limit)).await;
        assert_eq!(*error.kind(), ConnectErrorKind::Timeout(limit), "{what:?}");
        let expected = "not ready within 3 s: the after_connect hook left a request without its answer: \
                        read each stream to its end";
        assert_eq!(error.to_string(), format!("{}: {expected}", server.addr()), "{what:?}");
    }
}

/// The pool waits for the rest of a stream that the hook no longer wants.
#[tokio::test]
async fn a_hook_need_not_read_what_comes_at_once() {
    for what in [Leave::Nothing, Leave::ShortStream] {
        let pool = pool(Server::shared().await, what, LONG);
        let row = pool.query_one("SELECT count(*) FROM hook", &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 0, "{what:?}");
    }
}

/// After a reset, the hook runs again on the same connection, which then serves nobody else.
#[tokio::test]
async fn a_hook_that_leaves_a_transaction_after_a_reset_loses_no_write() {
    let server = Server::shared().await;
    server.execute("CREATE TABLE hook_writes (id int)").await;
    let runs = Arc::new(AtomicUsize::new(0));
    let builder = Pool::builder(server.config()).name("hook_reset").max_size(1).reset(Reset::WhenSeen);
    let pool = builder
        .after_connect(move |client| {
            let sql = if runs.fetch_add(1, SeqCst) % 2 == 0 { "SELECT 1" } else { "BEGIN" };
            Box::pin(client.batch_execute(sql))
        })
        .build()
        .unwrap();
    for id in 0..4 {
        let client = pool.get_timeout(LONG).await.unwrap();
        let pid = client.process_id();
        assert_eq!(client.execute("INSERT INTO hook_writes VALUES ($1)", &[&id]).await.unwrap(), 1);
        client.batch_execute("SET work_mem = '77kB'").await.unwrap();
        drop(client);
        eventually("the connection has a new session or is closed", LONG, async || pool.status().settling == 0).await;
        assert_ne!(pool.get_timeout(LONG).await.unwrap().process_id(), pid);
    }
    assert_eq!(server.scalar("SELECT count(*) FROM hook_writes").await, "4");
}

//! The outcome of a stream is the outcome of its end. A stream that breaks after its first row is a failed operation
//! and is reported.

use std::pin::pin;
use std::time::Duration;

use failfast::{Error, EventKind, Events, Pool, RetryConfig};
use futures_util::{Stream, TryStreamExt};
use tokio::time::timeout;
use tokio_postgres::types::Type;

use crate::metrics::{Scraper, recorded};
use crate::pool::LONG;
use crate::support::proxy::{Close, Proxy};
use crate::support::server::Server;

const OPERATIONS: &str = "db_client_operation_duration_seconds_count";
/// More than fits into all buffers between the server and a reader.
const ROWS: &str = "SELECT repeat('x', 9000) FROM generate_series(1, 20000)";

/// How a caller gets a stream.
#[derive(Debug, Clone, Copy)]
enum Source {
    Pool,
    Client,
    Copy,
    PoolsStream,
    PoolsCopy,
    PoolsRows,
}

const SOURCES: [Source; 6] =
    [Source::Pool, Source::Client, Source::Copy, Source::PoolsStream, Source::PoolsCopy, Source::PoolsRows];

struct Scene {
    proxy: Proxy,
    pool: Pool,
    scraper: Scraper,
    events: Events,
}

impl Scene {
    async fn new(name: &str) -> Self {
        let server = Server::shared().await;
        let proxy = Proxy::start(server.addr()).await;
        let builder = Pool::builder(server.config_at(proxy.addr())).name(name).max_size(1).retry(RetryConfig::off());
        let (builder, scraper) = recorded(builder.query_timeout(LONG));
        let pool = builder.build().unwrap();
        let events = pool.events();
        Self { proxy, pool, scraper, events }
    }

    /// Reads this many items, calls `then`, and reads on.
    async fn read(&self, source: Source, items: usize, then: impl AsyncFn()) -> Result<usize, Error> {
        let call = self.pool.call().name("read");
        match source {
            Source::Pool => count(call.query_raw::<&str, _>(ROWS, []).await?, items, then).await,
            Source::Client => {
                let client = call.get().await?;
                count(client.query_raw::<_, &str, _>(ROWS, []).await?, items, then).await
            }
            Source::Copy => {
                let client = call.get().await?;
                count(client.copy_out(&format!("COPY ({ROWS}) TO STDOUT")).await?, items, then).await
            }
            Source::PoolsStream => count(call.query_stream(ROWS, &[]).await?, items, then).await,
            Source::PoolsCopy => count(call.copy_out(&format!("COPY ({ROWS}) TO STDOUT")).await?, items, then).await,
            Source::PoolsRows => {
                let sql = format!("COPY ({ROWS}) TO STDOUT (FORMAT binary)");
                count(call.copy_out_rows(&sql, &[Type::TEXT]).await?, items, then).await
            }
        }
    }

    /// Returns how many operations have ended, and how many failed.
    fn operations(&self) -> (f64, f64) {
        let scrape = self.scraper.scrape();
        let of_all = scrape.series.iter().filter(|series| series.name == OPERATIONS);
        let (failed, done): (Vec<_>, Vec<_>) = of_all.partition(|series| series.labels.contains_key("error_type"));
        let sum = |series: Vec<&crate::metrics::Series>| series.iter().map(|series| series.value).sum();
        (sum(done), sum(failed))
    }

    async fn lost(&mut self) -> String {
        let lost = async {
            loop {
                let event = self.events.next().await.unwrap();
                if matches!(event.kind, EventKind::ConnectionLost { .. }) {
                    break event.to_string();
                }
            }
        };
        timeout(LONG, lost).await.expect("no event reported the loss")
    }
}

async fn count<T>(
    items: impl Stream<Item = Result<T, Error>>,
    first: usize,
    then: impl AsyncFn(),
) -> Result<usize, Error> {
    let mut items = pin!(items);
    for _ in 0..first {
        items.try_next().await?;
    }
    then().await;
    items.try_fold(first, async |count, _| Ok(count + 1)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_after_its_first_row_is_a_failed_operation() {
    for source in SOURCES {
        let mut scene = Scene::new(&format!("broken_{source:?}").to_lowercase()).await;
        let cut = async || scene.proxy.cut(Close::Reset);
        let broken = scene.read(source, 3, cut).await.unwrap_err();
        assert!(broken.to_string().contains("connection lost"), "{source:?}: {broken}");
        assert_eq!(scene.operations(), (0.0, 1.0), "{source:?}");
        assert_eq!(scene.pool.breaker().snapshot().counts.failures, 1, "{source:?}");
        println!("{source:?}: {broken}; {}", scene.lost().await);
    }
}

/// The server answers the call with the reason. The pool then closes the connection, and the event still names the
/// server as the cause.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_ended_in_mid_stream_is_reported() {
    for source in SOURCES {
        let mut scene = Scene::new(&format!("ended_{source:?}").to_lowercase()).await;
        let name = scene.pool.status().name.to_string();
        let end = async || {
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name";
            Server::shared().await.execute(&format!("{end} = '{name}'")).await;
        };
        scene.read(source, 3, end).await.unwrap_err();
        assert_eq!(scene.operations(), (0.0, 1.0), "{source:?}");
        scene.lost().await;
        // A stream without rows to send when its session ended is reported too.
        let mut events = scene.pool.events();
        std::mem::swap(&mut events, &mut scene.events);
        let sleeping = async {
            let running = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND wait_event = 'PgSleep'"
            );
            let server = Server::shared().await;
            crate::support::eventually("the statement runs", LONG, async || server.scalar(&running).await == "1").await;
            end().await;
        };
        let call = scene.pool.call().timeout(LONG).execute("SELECT pg_sleep(60)", &[]);
        let (ended, ()) = tokio::join!(call, sleeping);
        assert_eq!(ended.unwrap_err().sqlstate().unwrap().code(), "57P01");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_or_dropped_stream_succeeds_and_a_late_one_fails() {
    for source in SOURCES {
        let scene = Scene::new(&format!("whole_{source:?}").to_lowercase()).await;
        scene.read(source, 3, async || ()).await.unwrap();
        assert_eq!(scene.operations(), (1.0, 0.0), "{source:?}");
        let dropped = timeout(Duration::from_millis(200), scene.read(source, 3, async || std::future::pending().await));
        dropped.await.unwrap_err();
        assert_eq!(scene.operations(), (2.0, 0.0), "{source:?}");
    }
    let scene = Scene::new("whole_late").await;
    let call = scene.pool.call().name("late").deadline(Duration::from_millis(500));
    let rows = call.query_raw::<&str, _>("SELECT repeat('x', 9000), pg_sleep(0.05) FROM generate_series(1, 1000)", []);
    let late = rows.await.unwrap().try_collect::<Vec<_>>().await.unwrap_err();
    assert!(matches!(late, Error::QueryTimeout { operation: Some("late"), .. }), "{late}");
    assert_eq!(scene.operations(), (0.0, 1.0));
    assert_eq!(scene.scraper.value(OPERATIONS, &[("error_type", "query_timeout")]), Some(1.0));
}

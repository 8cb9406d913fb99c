//! The server's notices reach the log, as they do without a pool. Its warnings also become events of the pool.

use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use failfast::{EventKind, Pool};
use log::{Level, LevelFilter, Log, Metadata, Record};
use tokio::time::timeout;

use crate::support::server::Server;

const LONG: Duration = Duration::from_secs(20);

/// Every line that this process logs under the driver's target.
struct Lines(Mutex<Vec<(Level, String)>>);

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "tokio_postgres::connection"
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push((record.level(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

fn lines() -> &'static Lines {
    static LINES: OnceLock<Lines> = OnceLock::new();
    let lines = LINES.get_or_init(|| Lines(Mutex::default()));
    if log::set_logger(lines).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
    lines
}

async fn pool(name: &str) -> Pool {
    Pool::builder(Server::shared().await.config()).name(name).max_size(1).acquire_timeout(LONG).build().unwrap()
}

#[tokio::test]
async fn a_notice_is_logged_as_without_a_pool() {
    let (lines, pool) = (lines(), pool("said_notice").await);
    let mut events = pool.events();
    pool.batch_execute("DO $$ BEGIN RAISE NOTICE E'said a\\rforged'; RAISE WARNING 'said b'; END $$").await.unwrap();
    // The severity before the colon is in the language of the server.
    let text = |(level, line): &(Level, String)| Some((*level, line.split_once(": ")?.1.to_owned()));
    let mut said: Vec<_> = lines.0.lock().unwrap().iter().filter_map(text).collect();
    said.retain(|(_, text)| text.starts_with("said "));
    let expected = [r"said a\rforged", "said b"].map(|text| (Level::Info, text.to_owned()));
    assert_eq!(said, expected);
    let warned = async {
        loop {
            if let EventKind::ServerWarning { message, sqlstate, count, .. } = &events.next().await.unwrap().kind {
                break (message.clone(), sqlstate.code().to_owned(), *count);
            }
        }
    };
    let warned = timeout(LONG, warned).await.unwrap();
    assert_eq!(warned, ("said b".to_owned(), "01000".to_owned(), 1), "a notice became a warning event");
}

/// A statement that warns for each row causes one event. The circuit and the connection stay as they are.
#[tokio::test]
async fn many_warnings_are_one_event() {
    let pool = pool("said_many").await;
    let mut events = pool.events();
    pool.batch_execute("DO $$ BEGIN FOR i IN 1..5000 LOOP RAISE WARNING 'row %', i; END LOOP; END $$").await.unwrap();
    let first = async {
        loop {
            if let EventKind::ServerWarning { count, .. } = events.next().await.unwrap().kind {
                break count;
            }
        }
    };
    assert!(timeout(LONG, first).await.unwrap() > 1);
    assert_eq!(pool.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
    assert_eq!(pool.breaker().snapshot().counts.failures, 0);
}

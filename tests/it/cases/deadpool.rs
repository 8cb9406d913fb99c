//! Bare deadpool-postgres in the same cases. It has its defaults, and a timeout where it would hang.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use deadpool_postgres::{Manager, Object, Pool};
use tokio::time::timeout;
use tokio_postgres::{Config, NoTls};

/// A call without an answer after this time counts as hanging. No call here has to dial.
const BOUND: Duration = Duration::from_secs(1);

/// The outcome of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Failed(String),
    Hangs,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Failed(why) => write!(f, "{why}"),
            Self::Hangs => f.write_str("no answer"),
        }
    }
}

pub(crate) fn bare(mut config: Config, name: &str, max_size: usize) -> Pool {
    config.application_name(format!("{name}_deadpool"));
    Pool::builder(Manager::new(config, NoTls)).max_size(max_size).build().unwrap()
}

/// Returns the only client of a pool of its own.
pub(super) async fn client(config: Config, name: &str) -> Object {
    bare(config, name, 1).get().await.unwrap()
}

/// Returns a result and its causes as a caller would see them.
pub(super) fn said<T, E: Error + 'static>(result: &Result<T, E>) -> String {
    match result {
        Ok(_) => "Ok".to_owned(),
        Err(error) => chain(error),
    }
}

/// Runs one statement on a connection of its own, like a one-shot call of failfast.
pub(super) async fn call(pool: &Pool, sql: &str) -> Outcome {
    call_within(BOUND, pool, sql).await
}

pub(super) async fn call_within(bound: Duration, pool: &Pool, sql: &str) -> Outcome {
    let call = async {
        pool.get().await?.query(sql, &[]).await?;
        Ok::<_, Box<dyn Error>>(())
    };
    match timeout(bound, call).await {
        Ok(Ok(())) => Outcome::Done,
        Ok(Err(error)) => Outcome::Failed(chain(&*error)),
        Err(_) => Outcome::Hangs,
    }
}

/// Joins an error with its causes, each once, because some errors print their cause themselves.
pub(super) fn chain(mut error: &dyn Error) -> String {
    let mut line = error.to_string();
    while let Some(cause) = error.source() {
        if !line.contains(&cause.to_string()) {
            line = format!("{line}: {cause}");
        }
        error = cause;
    }
    line
}

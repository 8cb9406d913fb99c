//! Bare deadpool-postgres, as it comes: what failfast is compared with.

use std::error::Error;

use deadpool_postgres::{Manager, Object, Pool};
use tokio_postgres::{Config, NoTls};

pub(super) fn bare(config: Config, max_size: usize) -> Pool {
    Pool::builder(Manager::new(config, NoTls)).max_size(max_size).build().unwrap()
}

/// The only client of a pool of its own.
pub(super) async fn client(mut config: Config, name: &str) -> Object {
    bare(config.application_name(name).clone(), 1).get().await.unwrap()
}

/// What a caller would see of a result, and of its cause.
pub(super) fn said<T, E: Error>(result: &Result<T, E>) -> String {
    match result {
        Ok(_) => "Ok".to_owned(),
        Err(error) => error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")),
    }
}

//! Getting a connection and giving it back, on an idle pool: failfast beside deadpool (bare, and with its three timeouts), bb8 and
//! sqlx. `./dev bench acquire`.

#[path = "../examples/support/mod.rs"]
mod support;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use support::Throwaway;
use tokio::runtime::Runtime;

const CONNECTIONS: usize = 10;
const PATIENCE: Duration = Duration::from_secs(60);

fn acquire(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let server = runtime.block_on(Throwaway::start()).expect("a server");
    let mut group = criterion.benchmark_group("get and drop, idle");

    let failfast = failfast::Pool::builder(server.config()).max_size(CONNECTIONS).build().expect("good settings");
    group.bench_function("failfast", |bencher| {
        bencher.to_async(&runtime).iter(|| async { drop(failfast.get().await.expect("idle")) });
    });

    let timeouts =
        deadpool_postgres::Timeouts { wait: Some(PATIENCE), create: Some(PATIENCE), recycle: Some(PATIENCE) };
    for (name, timeouts) in [("deadpool", deadpool_postgres::Timeouts::new()), ("deadpool, three timeouts", timeouts)] {
        let manager = deadpool_postgres::Manager::new(server.config(), tokio_postgres::NoTls);
        let builder = deadpool_postgres::Pool::builder(manager).max_size(CONNECTIONS).timeouts(timeouts);
        let pool = builder.runtime(deadpool_postgres::Runtime::Tokio1).build().expect("good settings");
        group.bench_function(name, |bencher| {
            bencher.to_async(&runtime).iter(|| async { drop(pool.get().await.expect("idle")) });
        });
    }

    let manager = bb8_postgres::PostgresConnectionManager::new(server.config(), tokio_postgres::NoTls);
    let builder = bb8::Pool::builder().max_size(CONNECTIONS as u32).test_on_check_out(false);
    let bb8 = runtime.block_on(builder.build(manager)).expect("a pool");
    group.bench_function("bb8, unchecked", |bencher| {
        bencher.to_async(&runtime).iter(|| async { drop(bb8.get().await.expect("idle")) });
    });

    let config = server.config();
    let password = String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned();
    let options = sqlx::postgres::PgConnectOptions::new()
        .host("127.0.0.1")
        .port(config.get_ports()[0])
        .username(config.get_user().unwrap_or("postgres"))
        .password(&password);
    let options = sqlx::postgres::PgPoolOptions::new()
        .max_connections(CONNECTIONS as u32)
        .test_before_acquire(false)
        .connect_with(options);
    let sqlx = runtime.block_on(options).expect("a pool");
    group.bench_function("sqlx, unchecked", |bencher| {
        bencher.to_async(&runtime).iter(|| async { drop(sqlx.acquire().await.expect("idle")) });
    });
    group.finish();
}

criterion_group!(benches, acquire);
criterion_main!(benches);

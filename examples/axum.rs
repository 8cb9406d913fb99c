//! A service with a pool: its errors are responses, `/metrics` is for Prometheus, `/readyz` and `/livez` are for the
//! orchestrator, and a shutdown interrupts no request.
//!
//! `cargo run --release --example axum --features axum,prometheus`. Uses `DATABASE_URL`, or starts a throwaway server.
//! Listens on `LISTEN`, or on 127.0.0.1:3000. Try `curl -i localhost:3000/items/1`. If the database is your own, stop
//! it and try again. `/readyz` fails after ten seconds without an answer of the database.

mod support;

use std::env;
use std::error::Error;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use failfast::metrics::PrometheusHandle;
use failfast::{Event, Pool};
use support::Throwaway;
use tokio::net::TcpListener;
use tokio::signal;
use tokio::time::sleep;

/// At shutdown, `/readyz` fails for this long before the service closes its port, so that load balancers notice.
const NOTICE: Duration = Duration::from_secs(1);
/// At shutdown, how long running requests may take to end, and connections to be returned.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Service {
    pool: Pool,
    metrics: PrometheusHandle,
    is_leaving: Arc<AtomicBool>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let metrics = failfast::metrics::prometheus()?.install_recorder()?;
    let server = Throwaway::start().await?;
    let pool = Pool::builder(server.config())
        .name("items")
        .max_size(10)
        .min_idle(2)
        .acquire_timeout(Duration::from_millis(500))
        .query_timeout(Duration::from_secs(2))
        .observer(|event: &Event| eprintln!("{:8} {event}", event.severity().as_str()))
        .build()?;
    let service = Service { pool: pool.clone(), metrics: metrics.clone(), is_leaving: Arc::default() };
    prepare(&pool).await;
    tokio::spawn(async move {
        loop {
            metrics.run_upkeep();
            sleep(Duration::from_secs(5)).await;
        }
    });

    let app = Router::new()
        .route("/items/{id}", get(find_item))
        .route("/items/{id}/orders", post(order_item))
        .route("/metrics", get(async |State(service): State<Service>| service.metrics.render()))
        .route("/readyz", get(ready))
        .route("/livez", get("alive\n"))
        .with_state(service.clone());
    let listener = TcpListener::bind(env::var("LISTEN").as_deref().unwrap_or("127.0.0.1:3000")).await?;
    eprintln!("listening on {}", listener.local_addr()?);

    let leave = async move {
        asked_to_stop().await;
        service.is_leaving.store(true, Relaxed);
        sleep(NOTICE).await;
    };
    let serving = axum::serve(listener, app).with_graceful_shutdown(leave);
    let too_late = async {
        asked_to_stop().await;
        sleep(NOTICE + GRACE).await;
    };
    tokio::select! {
        result = serving => result?,
        () = too_late => eprintln!("requests are still under way"),
    }
    let left = pool.drain(GRACE).await;
    eprintln!("stopped; {left} connections had not come back");
    Ok(())
}

/// It only reads, so it is idempotent.
async fn find_item(
    State(service): State<Service>,
    Path(id): Path<i64>,
) -> Result<(StatusCode, String), failfast::Error> {
    let call = service.pool.call().name("find_item").idempotent();
    let row = call.query_opt("SELECT name, stock FROM items WHERE id = $1", &[&id]).await?;
    Ok(match row {
        Some(row) => (StatusCode::OK, format!("{}: {} left\n", row.get::<_, &str>(0), row.get::<_, i64>(1))),
        None => (StatusCode::NOT_FOUND, "no such item\n".to_owned()),
    })
}

/// One statement is applied as a whole or not at all. The pool does not retry it if it may have been applied.
async fn order_item(State(service): State<Service>, Path(id): Path<i64>) -> Result<StatusCode, failfast::Error> {
    const SQL: &str = "WITH taken AS (UPDATE items SET stock = stock - 1 WHERE id = $1 AND stock > 0 RETURNING id)
        INSERT INTO orders (item) SELECT id FROM taken";
    let placed = service.pool.call().name("order_item").execute(SQL, &[&id]).await?;
    Ok(if placed == 1 { StatusCode::CREATED } else { StatusCode::CONFLICT })
}

/// Whether this instance should get requests. It sends no query: the pool knows when the database last answered.
async fn ready(State(service): State<Service>) -> Result<&'static str, (StatusCode, String)> {
    if service.is_leaving.load(Relaxed) {
        return Err((StatusCode::SERVICE_UNAVAILABLE, "about to stop\n".to_owned()));
    }
    match service.pool.ready() {
        Ok(()) => Ok("ready\n"),
        Err(reason) => Err((StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"))),
    }
}

/// A real service has migrations instead. The service starts even without its database.
async fn prepare(pool: &Pool) {
    const SQL: &str = "CREATE TABLE IF NOT EXISTS items (id bigint PRIMARY KEY, name text NOT NULL, stock bigint NOT NULL);
        CREATE TABLE IF NOT EXISTS orders (id bigint GENERATED ALWAYS AS IDENTITY, item bigint NOT NULL REFERENCES items);
        INSERT INTO items SELECT n, 'item ' || n, 1000000 FROM generate_series(1, 100) n ON CONFLICT DO NOTHING";
    if let Err(error) = pool.batch_execute(SQL).await {
        eprintln!("not prepared: {error}");
    }
}

/// Waits for Ctrl-C, or for the signal of the orchestrator.
async fn asked_to_stop() {
    let terminated = async {
        #[cfg(unix)]
        match signal::unix::signal(signal::unix::SignalKind::terminate()) {
            Ok(mut terminated) => _ = terminated.recv().await,
            Err(_) => pending().await,
        }
        #[cfg(not(unix))]
        pending::<()>().await;
    };
    tokio::select! {
        _ = signal::ctrl_c() => {}
        () = terminated => {}
    }
}

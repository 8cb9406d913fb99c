//! A service with a pool: its errors are responses, requests have deadlines, `/metrics` is for Prometheus, `/readyz`
//! and `/livez` are for the orchestrator, and a shutdown interrupts no request.
//!
//! `cargo run --release --example axum --features axum,prometheus`. Uses `DATABASE_URL`, or starts a throwaway server.
//! Listens on `LISTEN`, or on 127.0.0.1:3000. Try `curl -i localhost:3000/items/1`, and with the header
//! `x-request-timeout: 250ms`. If the database is your own, stop it and try again. `/readyz` fails after ten seconds
//! without an answer of the database. `tests/it/example_axum.rs` tests what the service answers when calls fail.

mod support;

use std::env;
use std::error::Error;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use failfast::axum::{Conn, DeadlineLayer, Tx, TxLayer};
use failfast::{Client, Event, Lane, Pool};
use support::Throwaway;
use tokio::net::TcpListener;
use tokio::signal;
use tokio::time::sleep;

/// The longest that a request may take. A client may ask for less.
const LONGEST: Duration = Duration::from_secs(2);
/// At shutdown, `/readyz` fails for this long before the service closes its port, so that load balancers notice.
const NOTICE: Duration = Duration::from_secs(1);
/// At shutdown, how long running requests may take to end, and connections to be returned.
const GRACE: Duration = Duration::from_secs(5);

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
        // What nobody waits for gives way.
        .lane_of("stock", Lane::Background)
        .observer(|event: &Event| eprintln!("{:8} {event}", event.severity().as_str()))
        .build()?;
    prepare(&pool).await;
    tokio::spawn(failfast::metrics::upkeep(metrics.clone()));

    let is_leaving = Arc::new(AtomicBool::new(false));
    let app = routes(pool.clone(), Arc::clone(&is_leaving)).route("/metrics", get(async move || metrics.render()));
    let listener = TcpListener::bind(env::var("LISTEN").as_deref().unwrap_or("127.0.0.1:3000")).await?;
    eprintln!("listening on {}", listener.local_addr()?);

    let leave = async move {
        asked_to_stop().await;
        is_leaving.store(true, Relaxed);
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

/// The service without `/metrics`. While it is leaving, it is not ready.
pub(crate) fn routes(pool: Pool, is_leaving: Arc<AtomicBool>) -> Router {
    let ready = async move |conn: Conn| match is_leaving.load(Relaxed) {
        true => (StatusCode::SERVICE_UNAVAILABLE, "about to stop\n").into_response(),
        false => failfast::axum::ready(conn).await.into_response(),
    };
    Router::new()
        .route("/stock", get(stock))
        .route("/items/{id}", get(find_item))
        .route("/items/{id}/orders", post(order_item))
        .layer(TxLayer::new())
        .layer(DeadlineLayer::new(LONGEST))
        .route("/readyz", get(ready))
        .route("/livez", get("alive\n"))
        .with_state(pool)
}

/// It only reads, so it is idempotent.
async fn find_item(conn: Conn, Path(id): Path<i64>) -> Result<Response, failfast::Error> {
    let call = conn.call().name("find_item").idempotent();
    let row = call.query_opt("SELECT name, stock FROM items WHERE id = $1", &[&id]).await?;
    Ok(match row {
        Some(row) => format!("{}: {} left\n", row.get::<_, &str>(0), row.get::<_, i64>(1)).into_response(),
        None => (StatusCode::NOT_FOUND, "no such item\n").into_response(),
    })
}

/// How much is in stock. While the database gives no answer, the last answer will do.
async fn stock(conn: Conn) -> Result<String, failfast::Error> {
    static LAST: AtomicI64 = AtomicI64::new(-1);
    let last = Some(LAST.load(Relaxed)).filter(|stock| *stock >= 0);
    let ask = async |client: Client| {
        let row = client.query_one("SELECT sum(stock)::bigint FROM items", &[]).await?;
        Ok::<i64, failfast::Error>(row.get(0))
    };
    let stock = conn.call().name("stock").fallback(|_: &failfast::Error| last).run(ask).await?;
    LAST.store(stock, Relaxed);
    Ok(format!("{stock} in stock\n"))
}

/// Both statements are applied or neither. After a conflict the client gets a 409, and the transaction is rolled back.
async fn order_item(tx: Tx, Path(id): Path<i64>) -> Result<StatusCode, failfast::Error> {
    let tx = tx.begin_with(|call| call.name("order_item")).await?;
    tx.execute("INSERT INTO orders (item) SELECT id FROM items WHERE id = $1", &[&id]).await?;
    let taken = tx.execute("UPDATE items SET stock = stock - 1 WHERE id = $1 AND stock > 0", &[&id]).await?;
    Ok(if taken == 1 { StatusCode::CREATED } else { StatusCode::CONFLICT })
}

/// A real service has migrations instead. The service starts even without its database.
pub(crate) async fn prepare(pool: &Pool) {
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

//! What PgBouncer does to its clients in operation: it pauses, and it closes clients that are idle.

use std::time::{Duration, Instant};

use failfast::{BreakerConfig, Error, Pool};

use super::LONG;
use crate::support::{eventually, pgbouncer::PgBouncer, server::Server};

const TIMEOUT: Duration = Duration::from_millis(300);

async fn pool(bouncer: &PgBouncer, name: &str) -> Pool {
    let config = Server::shared().await.config_at(bouncer.addr());
    // Timeouts may open the circuit, which then stays open for so long.
    let breaker = BreakerConfig::default().reset_timeout(Duration::from_secs(1));
    Pool::builder(config).name(name).max_size(4).statement_cache(0).breaker(breaker).build().unwrap()
}

#[tokio::test]
async fn callers_of_a_paused_pgbouncer_time_out_in_time_and_the_pool_recovers() {
    let server = Server::shared().await;
    let Some(bouncer) = PgBouncer::start(server, &[]).await else { return };
    let pool = pool(&bouncer, "paused_pooler").await;
    for round in 0..2 {
        pool.query_one("SELECT 1", &[]).await.unwrap();
        bouncer.command(server, "PAUSE").await;
        // More calls than connections: the last ones wait for a connection, or are refused.
        for _ in 0..6 {
            let begun = Instant::now();
            let error = pool.call().deadline(TIMEOUT).query("SELECT 1", &[]).await.unwrap_err();
            assert!(begun.elapsed() < TIMEOUT + LONG / 4, "{:?}: {error}", begun.elapsed());
            assert!(error.is_unavailable() || matches!(error, Error::QueryTimeout { .. }), "{error:?}");
        }
        bouncer.command(server, "RESUME").await;
        let serves = async || pool.call().deadline(LONG).query("SELECT 1", &[]).await.is_ok();
        eventually(&format!("the pool serves again, round {round}"), LONG, serves).await;
        eventually("the circuit is closed", LONG, async || pool.ready().is_ok()).await;
    }
}

/// PgBouncer closes them with 08P01. That reaches no caller.
#[tokio::test]
async fn clients_that_pgbouncer_closes_because_they_are_idle_are_replaced() {
    let server = Server::shared().await;
    let Some(bouncer) = PgBouncer::start(server, &["client_idle_timeout = 1"]).await else { return };
    let pool = pool(&bouncer, "idle_pooler").await;
    for _ in 0..2 {
        pool.query_one("SELECT 1", &[]).await.unwrap();
        eventually("PgBouncer closes the connection", LONG, async || pool.status().idle == 0).await;
    }
    let held = pool.get_timeout(LONG).await.unwrap();
    eventually("PgBouncer closes the connection in use", LONG, async || held.is_closed()).await;
    let error = held.query("SELECT 1", &[]).await.unwrap_err();
    assert!(error.to_string().contains("client_idle_timeout"), "{error}");
    pool.query_one("SELECT 1", &[]).await.unwrap();
}

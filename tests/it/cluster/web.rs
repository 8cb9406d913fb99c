//! A cluster in a service with axum: calls and transactions of requests, and the handlers for operators.

use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::http::StatusCode;
use axum::routing::get;
use failfast::axum::{Conn, DeadlineLayer, Tx, TxLayer};
use failfast::{Cluster, Error, Freshness};
use tokio::net::TcpListener;

use super::{builder, is_complete};
use crate::pool::LONG;
use crate::service::exchange;
use crate::support::cluster::Replicated;
use crate::support::eventually;

/// The state of the service. The cluster is a part of it.
#[derive(Clone)]
struct App {
    cluster: Cluster,
}

impl FromRef<App> for Cluster {
    fn from_ref(app: &App) -> Self {
        app.cluster.clone()
    }
}

async fn count(conn: Conn<Cluster>) -> Result<String, Error> {
    let row = conn.call().read(Freshness::Any).query_one("SELECT pg_is_in_recovery()", &[]).await?;
    Ok(row.get::<_, bool>(0).to_string())
}

async fn slow(conn: Conn<Cluster>) -> Result<(), Error> {
    conn.call().execute("SELECT pg_sleep(20)", &[]).await.map(drop)
}

async fn written(tx: Tx<Cluster>) -> Result<&'static str, Error> {
    let tx = tx.begin_with(|call| call.name("written")).await?;
    tx.execute("INSERT INTO written VALUES (1)", &[]).await?;
    Ok("written")
}

async fn forbidden(tx: Tx<Cluster>) -> Result<StatusCode, Error> {
    tx.begin().await?.execute("INSERT INTO written VALUES (2)", &[]).await?;
    Ok(StatusCode::FORBIDDEN)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_have_calls_and_transactions_on_a_cluster() {
    let nodes = Replicated::start(1).await;
    let cluster = builder(&nodes).build().unwrap();
    cluster.warm_up(1, LONG).await.unwrap();
    cluster.batch_execute("CREATE TABLE written (n int)").await.unwrap();
    is_complete(&cluster, &nodes).await;
    let routes = Router::new()
        .route("/count", get(count))
        .route("/slow", get(slow))
        .route("/written", get(written))
        .route("/forbidden", get(forbidden))
        .layer(TxLayer::new())
        .layer(DeadlineLayer::new(Duration::from_secs(2)))
        .route("/readyz", get(failfast::axum::cluster_ready))
        .with_state(App { cluster: cluster.clone() });
    #[cfg(feature = "admin")]
    let routes = routes.route("/admin", get(failfast::admin::handler(cluster.clone())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = listener.local_addr().unwrap().to_string();
    tokio::spawn(axum::serve(listener, routes).into_future());
    let ask = async |path: &str| {
        let (head, body) = exchange(&service, "GET", path, "").await;
        (head.split(' ').nth(1).unwrap().to_owned(), body)
    };
    assert_eq!(ask("/count").await, ("200".to_owned(), "true".to_owned()));
    assert_eq!(ask("/written").await.0, "200");
    assert_eq!(ask("/forbidden").await.0, "403");
    assert_eq!(nodes.node(0).scalar("SELECT string_agg(n::text, ',') FROM written").await, "1");
    eventually("the service is ready", LONG, async || ask("/readyz").await.0 == "200").await;
    #[cfg(feature = "admin")]
    {
        let (status, page) = ask("/admin").await;
        let page: serde_json::Value = serde_json::from_str(&page).unwrap();
        assert_eq!((&*status, &page["cluster"]), ("200", &"orders".into()));
        assert_eq!(page["hosts"].as_array().unwrap().len(), 2);
    }
    assert_eq!(ask("/slow").await.0, "504", "the deadline of the request");
    cluster.close();
    assert_eq!(ask("/readyz").await.0, "503");
}

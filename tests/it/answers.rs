//! Handlers that return the pool's errors unchanged: what the client of the service gets.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use failfast::{Error, Pool};
use tokio::net::TcpListener;

use crate::pool::{LONG, shared};
use crate::service::exchange;

async fn slow(State(pool): State<Pool>) -> Result<String, Error> {
    pool.query("SELECT pg_sleep(20), 'canary'", &[]).await?;
    Ok("done".to_owned())
}

async fn wrong(State(pool): State<Pool>) -> Result<String, Error> {
    Ok(pool.query_one("SELECT canary FROM canaries", &[]).await?.get(0))
}

async fn right(State(pool): State<Pool>) -> Result<String, Error> {
    Ok(pool.query_one("SELECT 'fine'", &[]).await?.get(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_may_return_a_pool_error() {
    let builder = shared("answers").await.max_size(1).max_waiting(0).min_idle(1);
    let pool = builder.query_timeout(LONG / 40).build().unwrap();
    let routes = Router::new().route("/slow", get(slow)).route("/wrong", get(wrong)).route("/right", get(right));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(axum::serve(listener, routes.with_state(pool.clone())).into_future());
    let ask = async |path: &str| {
        // The pool has one connection and no queue. It refuses a call while the connection is in use or being cleaned
        // up.
        pool.warm_up(1, LONG).await.unwrap();
        let (head, body) = exchange(&service, "GET", path, "").await;
        let head = head.to_lowercase();
        assert!(!(body.contains("canar") || head.contains("canar")), "{head}\n{body}");
        (head, body)
    };

    assert_eq!(ask("/right").await.1, "fine");

    let (head, body) = ask("/wrong").await;
    assert!(head.starts_with("http/1.1 500 ") && !head.contains("retry-after"), "{head}");
    assert!(head.contains("content-type: application/problem+json"), "{head}");
    assert_eq!(body, r#"{"type":"about:blank","title":"Internal Server Error","status":500}"#);

    pool.warm_up(1, LONG).await.unwrap();
    let held = pool.get().await.unwrap();
    let (head, body) = ask("/right").await;
    assert!(head.starts_with("http/1.1 503 ") && head.contains("retry-after: "), "{head}");
    assert!(body.contains("\"status\":503"), "{body}");
    drop(held);

    let (head, body) = ask("/slow").await;
    assert!(head.starts_with("http/1.1 504 ") && !head.contains("retry-after"), "{head}");
    assert!(body.contains("\"status\":504"), "{body}");

    pool.close();
    let (head, _) = exchange(&service, "GET", "/right", "").await;
    assert!(head.starts_with("HTTP/1.1 503 ") && head.to_lowercase().contains("retry-after: 1"), "{head}");
    serving.abort();
}

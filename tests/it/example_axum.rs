//! What the service of `examples/axum.rs` answers when its calls fail, by pretended outcomes.

use failfast::Pool;
use failfast::testing::{self, Outcome, Pretence};
use tokio::net::TcpListener;
use tokio_postgres::error::SqlState;

use crate::pool::shared;
use crate::service::exchange;

#[allow(clippy::duplicate_mod, dead_code, reason = "unused here: main and its throwaway server")]
#[path = "../../examples/axum.rs"]
mod example;

/// Serves the example with this pool. Returns its address.
async fn serve(pool: &Pool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let routes = example::routes(pool.clone(), Default::default());
    tokio::spawn(axum::serve(listener, routes).into_future());
    address
}

/// Returns the status, and whether the answer has Retry-After.
async fn status(service: &str, method: &str, path: &str) -> (u16, bool) {
    let (head, body) = exchange(service, method, path, "").await;
    assert!(!body.contains("pretend") && !body.contains("items"), "the body shows something of the database: {body}");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase().contains("retry-after: "))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_answers_when_its_calls_fail() {
    let pool = testing::without_server().build().unwrap();
    let service = serve(&pool).await;
    for (outcome, find, order) in [
        (Outcome::Shed, (503, true), (503, true)),
        (Outcome::CircuitOpen, (503, true), (503, true)),
        (Outcome::AcquireTimeout, (503, true), (503, true)),
        (Outcome::Connect, (503, true), (503, true)),
        (Outcome::QueryTimeout, (504, false), (504, false)),
        // A lost read may run again; of a lost transaction, nothing was applied.
        (Outcome::ConnectionLost, (500, false), (503, true)),
        (Outcome::sqlstate(SqlState::T_R_SERIALIZATION_FAILURE), (503, true), (503, true)),
        (Outcome::sqlstate(SqlState::UNDEFINED_TABLE), (500, false), (500, false)),
    ] {
        for (operation, method, path, expected) in
            [("find_item", "GET", "/items/1", find), ("order_item", "POST", "/items/1/orders", order)]
        {
            pool.breaker().reset("the outcome before may have opened the circuit");
            let pretending = pool.pretend(outcome.clone().operation(operation));
            assert_eq!(status(&service, method, path).await, expected, "{operation} {outcome:?}");
            assert!(pretending.met() > 0, "{operation} {outcome:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_commit_has_no_answer_is_no_success() {
    let pool = shared("example-axum").await.max_size(2).build().unwrap();
    example::prepare(&pool).await;
    let service = serve(&pool).await;
    let order = async || status(&service, "POST", "/items/1/orders").await;
    let orders = async || pool.query_one("SELECT count(*) FROM orders", &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!((order().await, orders().await), ((201, false), 1));
    for (committed, left) in [(false, 1), (true, 2)] {
        let _unknown = pool.pretend(Pretence::from(Outcome::CommitUnknown { committed }).times(1));
        assert_eq!((order().await, orders().await), ((500, false), left));
    }
    assert_eq!((status(&service, "POST", "/items/4711/orders").await, orders().await), ((409, false), 2));

    let stock = async || exchange(&service, "GET", "/stock", "").await.1;
    let before = stock().await;
    let _shed = pool.pretend(Outcome::Shed);
    assert!(before == stock().await && before.ends_with("in stock\n"), "{before}");
}

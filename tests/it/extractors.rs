//! Deadlines, calls and transactions of requests, with a real axum server over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, FromRef, Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{ErrorResponse, IntoResponse, Redirect, Response};
use axum::routing::get;
use failfast::axum::{Conn, DeadlineLayer, RequestDeadline, Tx, TxLayer};
use failfast::{Error, Pool, Transaction};
use futures_util::TryStreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::pool::{LONG, shared};
#[cfg(feature = "tracing")]
use crate::spans::notes::Notes;
use crate::support::eventually;

/// The state of the service. The pool is a part of it.
#[derive(Clone)]
struct App {
    pool: Pool,
    has_written: Arc<Notify>,
}

impl FromRef<App> for Pool {
    fn from_ref(app: &App) -> Self {
        app.pool.clone()
    }
}

/// A running service and its pool.
struct Service {
    address: SocketAddr,
    app: App,
    table: &'static str,
}

impl Service {
    /// `max` is the longest deadline. `table` is the name of a table that only this test uses.
    async fn start(table: &'static str, max: Duration, routes: Router<App>) -> Self {
        let pool = shared(table).await.max_size(2).build().unwrap();
        let tables = format!(
            "CREATE TABLE {table} (n int); CREATE TABLE {table}_parts (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)"
        );
        pool.batch_execute(&tables).await.unwrap();
        Self::with(pool, table, max, routes).await
    }

    async fn with(pool: Pool, table: &'static str, max: Duration, routes: Router<App>) -> Self {
        let app = App { pool, has_written: Arc::default() };
        let routes = routes.layer(TxLayer::new()).layer(DeadlineLayer::new(max));
        let routes = routes.route("/readyz", get(failfast::axum::ready)).with_state(app.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, routes).into_future());
        Self { address, app, table }
    }

    /// Returns the status and the body. `headers` end with a line break each. The status is 0 without an answer.
    async fn ask(&self, path: &str, headers: &str) -> (u16, String) {
        let mut stream = self.send(path, headers).await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        (head.split(' ').nth(1).map_or(0, |status| status.parse().unwrap()), body.to_owned())
    }

    async fn send(&self, path: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.0\r\nHost: here\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// How many rows the table has.
    async fn rows(&self) -> i64 {
        let sql = format!("SELECT count(*) FROM {}", self.table);
        self.app.pool.query_one(&sql, &[]).await.unwrap().get(0)
    }

    async fn gives_everything_back(&self) {
        let pool = &self.app.pool;
        let is_back = async || pool.status().in_use + pool.status().settling == 0;
        eventually("the connections are back", LONG, is_back).await;
    }
}

async fn sleep(conn: Conn) -> Result<(), Error> {
    conn.call().name("sleep").execute("SELECT pg_sleep(20)", &[]).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_the_deadline_of_its_header() {
    let left = async |deadline: Extension<RequestDeadline>| {
        let left = deadline.instant().saturating_duration_since(Instant::now());
        format!("{}", left.as_millis())
    };
    let nested = |max| Router::new().route("/", get(left)).layer(DeadlineLayer::new(Duration::from_secs(max)));
    let routes = Router::new().route("/sleep", get(sleep)).route("/left", get(left));
    let routes = routes.nest("/longer", nested(60)).nest("/shorter", nested(3));
    let service = Service::start("extractors_deadline", Duration::from_secs(5), routes).await;
    for headers in ["grpc-timeout: 100m\r\n", "X-Request-Timeout: 0.1\r\n", "x-request-timeout: 100ms\r\n"] {
        let begun = Instant::now();
        let (status, body) = service.ask("/sleep", headers).await;
        assert!(status == 504 && begun.elapsed() < Duration::from_secs(4), "{headers}{status} {body}");
        service.gives_everything_back().await;
    }
    let left = async |headers| service.ask("/left", headers).await.1.parse::<u64>().unwrap();
    assert!((4_000..=5_000).contains(&left("").await), "the maximum is the default");
    assert!((4_000..=5_000).contains(&left("grpc-timeout: 1H\r\n").await), "the maximum is a cap");
    assert!((1_000..=3_000).contains(&left("grpc-timeout: 3S\r\n").await));
    assert!(
        (1_000..=3_000).contains(&left("grpc-timeout: 4S\r\nx-request-timeout: 3\r\n").await),
        "the shortest counts"
    );
    let left = async |path| service.ask(path, "").await.1.parse::<u64>().unwrap();
    assert!((4_000..=5_000).contains(&left("/longer").await), "a layer inside does not extend the deadline");
    assert!((1_000..=3_000).contains(&left("/shorter").await), "the earliest counts");
    for (headers, name) in [
        ("grpc-timeout: 3s\r\n", "grpc-timeout must be"),
        ("grpc-timeout: 123456789n\r\n", "grpc-timeout must be"),
        ("x-request-timeout: soon\r\n", "x-request-timeout must be"),
    ] {
        let (status, body) = service.ask("/left", headers).await;
        assert!(status == 400 && body.contains(name), "{headers}{status} {body}");
    }
    service.gives_everything_back().await;
}

/// Inserts a row and answers with the status that the path asks for.
async fn insert(tx: Tx, State(app): State<App>, status: Path<u16>) -> Result<Response, Error> {
    let table = app.pool.status().name;
    let tx = tx.begin_with(|call| call.name("insert")).await?;
    tx.execute(&format!("INSERT INTO {table} VALUES (1)"), &[]).await?;
    Ok(StatusCode::from_u16(status.0).unwrap().into_response())
}

async fn redirect(tx: Tx, State(app): State<App>) -> Result<Redirect, Error> {
    let table = app.pool.status().name;
    tx.begin().await?.execute(&format!("INSERT INTO {table} VALUES (1)"), &[]).await?;
    Ok(Redirect::to("/elsewhere"))
}

async fn violate(tx: Tx, State(app): State<App>) -> Result<&'static str, Error> {
    let table = app.pool.status().name;
    let tx = tx.begin().await?;
    tx.execute(&format!("INSERT INTO {table} VALUES (1)"), &[]).await?;
    tx.execute(&format!("INSERT INTO {table}_parts VALUES (1), (1)"), &[]).await?;
    Ok("done")
}

async fn panics(tx: Tx, State(app): State<App>) {
    let table = app.pool.status().name;
    tx.begin().await.unwrap().execute(&format!("INSERT INTO {table} VALUES (1)"), &[]).await.unwrap();
    panic!("as the test wants");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_committed_only_if_the_response_is_a_success() {
    let routes = Router::new()
        .route("/insert/{status}", get(insert))
        .route("/redirect", get(redirect))
        .route("/violate", get(violate))
        .route("/panic", get(panics));
    let service = Service::start("extractors_commit", LONG, routes).await;
    for (path, status, rows) in [
        ("/insert/200", 200, 1),
        ("/insert/204", 204, 2),
        ("/redirect", 303, 3),
        ("/insert/404", 404, 3),
        ("/insert/500", 500, 3),
        // The deferred constraint makes the commit fail.
        ("/violate", 500, 3),
        ("/panic", 0, 3),
    ] {
        let (answered, body) = service.ask(path, "").await;
        assert_eq!(answered, status, "{path}: {body}");
        assert!(!body.contains("done"), "{path}: {body}");
        assert_eq!(service.rows().await, rows, "{path}");
    }
    service.gives_everything_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_rolls_back() {
    let waits = async |tx: Tx, State(app): State<App>| -> Result<(), Error> {
        let tx = tx.begin().await?;
        tx.execute("INSERT INTO extractors_gone VALUES (1)", &[]).await?;
        app.has_written.notify_one();
        std::future::pending().await
    };
    let routes = Router::new().route("/wait", get(waits));
    let service = Service::start("extractors_gone", LONG, routes).await;
    let client = service.send("/wait", "").await;
    service.app.has_written.notified().await;
    assert_eq!(service.app.pool.status().in_use, 1);
    drop(client);
    service.gives_everything_back().await;
    assert_eq!(service.rows().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_may_stream_rows_but_not_hold_the_transaction() {
    let lines = |rows: failfast::RowStream<'static>| {
        Body::from_stream(rows.map_ok(|row| format!("{}\n", row.get::<_, i32>(0))))
    };
    let streams = async move |conn: Conn| -> Result<Body, Error> {
        let rows = conn.call().name("list").query_raw("SELECT generate_series(1, 3)", Vec::<i32>::new()).await?;
        Ok(lines(rows))
    };
    let holds = async |tx: Tx| -> Result<Body, Error> {
        tx.begin().await?.execute("INSERT INTO extractors_stream VALUES (1)", &[]).await?;
        Ok(Body::from_stream(futures_util::stream::once(async move {
            drop(tx);
            Ok::<_, Error>("held")
        })))
    };
    let routes = Router::new().route("/list", get(streams)).route("/hold", get(holds));
    let service = Service::start("extractors_stream", LONG, routes).await;
    assert_eq!(service.ask("/list", "").await, (200, "1\n2\n3\n".to_owned()));
    let (status, body) = service.ask("/hold", "").await;
    assert!(status == 500 && !body.contains("held"), "{status} {body}");
    assert_eq!(service.rows().await, 0);
    service.gives_everything_back().await;
}

/// Keeps a clone of each request for ever, as a middleware does that spawns a task with it.
async fn keep_requests(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let kept = parts.clone();
    tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(kept);
    });
    next.run(Request::from_parts(parts, body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_of_the_request_does_not_hold_the_transaction() {
    let routes = Router::new().route("/insert/{status}", get(insert)).layer(from_fn(keep_requests));
    let service = Service::start("extractors_kept", LONG, routes).await;
    for (path, status, rows) in [("/insert/200", 200, 1), ("/insert/500", 500, 1), ("/insert/201", 201, 2)] {
        assert_eq!(service.ask(path, "").await.0, status, "{path}");
        assert_eq!(service.rows().await, rows, "{path}");
        service.gives_everything_back().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extractor_takes_no_connection_before_it_is_used() {
    let unused = async |_: Tx, _: Conn| "fine";
    let used = async |tx: Tx| tx.begin().await.map(drop);
    let routes = Router::new().route("/unused", get(unused)).route("/used", get(used));
    let nowhere = Pool::builder("host=127.0.0.1 port=1 user=nobody".parse().unwrap()).build().unwrap();
    let service = Service::with(nowhere, "", LONG, routes).await;
    assert_eq!(service.ask("/unused", "").await, (200, "fine".to_owned()));
    assert_eq!(service.app.pool.status().last_connect_error, None, "nothing was dialed");
    assert_eq!(service.ask("/used", "").await.0, 503);
    let (status, body) = service.ask("/readyz", "").await;
    assert!(status == 503 && body.starts_with("the database has not answered yet"), "{status} {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_pool_is_ready_and_a_missing_layer_is_found() {
    let pool = shared("extractors-ready").await.build().unwrap();
    pool.query("SELECT 1", &[]).await.unwrap();
    let service = Service::with(pool.clone(), "", LONG, Router::new()).await;
    let is_ready = async || service.ask("/readyz", "").await == (200, "ready\n".to_owned());
    eventually("the service is ready", LONG, is_ready).await;

    let without_layer = Router::new().route("/tx", get(async |_: Tx| "fine")).with_state(pool);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = Service { address: listener.local_addr().unwrap(), ..service };
    tokio::spawn(axum::serve(listener, without_layer).into_future());
    assert_eq!(service.ask("/tx", "").await.0, 500);
}

/// Two extractors of a request share one transaction, and async closures borrow what they use.
#[tokio::test(flavor = "multi_thread")]
async fn handlers_may_use_async_closures_that_borrow() {
    let transfers = async |one: Tx, other: Tx, conn: Conn, State(app): State<App>| -> Result<String, Error> {
        let name = String::from("extractors_borrow");
        one.begin().await?.execute(&format!("INSERT INTO {name} VALUES (1)"), &[]).await?;
        let seen: i64 = other.begin().await?.query_one(&format!("SELECT count(*) FROM {name}"), &[]).await?.get(0);
        let insert = format!("INSERT INTO {name} VALUES (2)");
        let inserted = conn.call().transaction(async |tx| tx.execute(&insert, &[]).await).await?;
        let savepoint = async |tx: Transaction| {
            let done = tx.savepoint(async |tx| tx.execute(&insert, &[]).await).await?;
            Ok::<_, Error>(done)
        };
        let nested = app.pool.transaction(savepoint).await?;
        Ok(format!("{seen} {inserted} {nested}"))
    };
    let routes = Router::new().route("/", get(transfers));
    let service = Service::start("extractors_borrow", LONG, routes).await;
    assert_eq!(service.ask("/", "").await, (200, "1 1 1".to_owned()));
    assert_eq!(service.rows().await, 3);
}

/// Inserts and ends as the path asks: with success, a refusal of the handler's own, an error of the server, or a COMMIT
/// that the server refuses.
async fn order(tx: &Transaction, end: &str) -> Result<StatusCode, Error> {
    tx.execute("INSERT INTO extractors_counted VALUES (1)", &[]).await?;
    match end {
        "refused" => return Ok(StatusCode::CONFLICT),
        "broken" => tx.execute("SELECT 1/0", &[]).await?,
        "deferred" => tx.execute("INSERT INTO extractors_counted_parts VALUES (1), (1)", &[]).await?,
        _ => tx.execute("INSERT INTO extractors_counted VALUES (2)", &[]).await?,
    };
    Ok(StatusCode::CREATED)
}

async fn order_by_extractor(tx: Tx, Path(end): Path<String>) -> Result<StatusCode, Error> {
    order(tx.begin_with(|call| call.name("extractor")).await?, &end).await
}

async fn order_by_closure(conn: Conn, Path(end): Path<String>) -> axum::response::Result<StatusCode> {
    let call = conn.call().name("closure");
    call.transaction(async |tx| match order(&tx, &end).await? {
        StatusCode::CREATED => Ok(StatusCode::CREATED),
        refused => Err(ErrorResponse::from(refused)),
    })
    .await
}

/// The statements between belong to the handler.
#[cfg(feature = "tracing")]
#[tokio::test]
async fn the_transaction_of_a_request_is_one_span_with_its_ends() {
    let breaks = async |tx: Tx| tx.begin().await?.execute("SELECT 1/0", &[]).await.map(drop);
    let routes = Router::new()
        .route("/insert/{status}", get(insert))
        .route("/broken", get(breaks))
        .route("/violate", get(violate));
    let service = Service::start("extractors_traced", LONG, routes).await;
    for (path, status, statements, last, error) in [
        ("/insert/201", 201, 1, "COMMIT", None),
        ("/insert/409", 409, 1, "ROLLBACK", Some("_OTHER")),
        ("/broken", 500, 1, "ROLLBACK", Some("22012")),
        ("/violate", 500, 2, "COMMIT", Some("23505")),
    ] {
        let notes = Notes::begin();
        assert_eq!(service.ask(path, "").await.0, status, "{path}");
        let (first, last) = (["transaction", "  BEGIN"], format!("  {last}"));
        assert_eq!(notes.operations(), [&first[..], &["execute"; 2][..statements], &[&last]].concat(), "{path}");
        let call = notes.find("transaction");
        assert_eq!((call.get("error.type"), call.get("failfast.attempts")), (error, Some("1")), "{path}");
        assert!(call.is_over && call.get("server.port").is_some(), "{path}");
    }
}

#[cfg(feature = "prometheus")]
#[tokio::test(flavor = "multi_thread")]
async fn the_transaction_of_a_request_is_one_operation_as_that_of_a_call_is() {
    let routes =
        Router::new().route("/extractor/{end}", get(order_by_extractor)).route("/closure/{end}", get(order_by_closure));
    let (builder, scraper) = crate::metrics::recorded(shared("extractors_counted").await.max_size(2));
    let pool = builder.build().unwrap();
    let tables = "CREATE TABLE extractors_counted (n int);
        CREATE TABLE extractors_counted_parts (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)";
    pool.batch_execute(tables).await.unwrap();
    let service = Service::with(pool, "extractors_counted", LONG, routes).await;
    for name in ["extractor", "closure"] {
        for (end, status) in [("done", 201), ("refused", 409), ("broken", 500), ("deferred", 500)] {
            assert_eq!(service.ask(&format!("/{name}/{end}"), "").await.0, status, "{name} {end}");
        }
        service.app.pool.breaker().force_open("a test");
        assert_eq!(service.ask(&format!("/{name}/denied"), "").await.0, 503, "{name}");
        service.app.pool.breaker().reset("the test is over");
        let expected = ["1 ", "1 22012", "1 23505", "1 _OTHER", "1 circuit_open"];
        let scrape = scraper.scrape();
        let counts = scrape.series.iter().filter(|series| series.name == "db_client_operation_duration_seconds_count");
        let counts = counts.filter(|series| series.label("failfast_operation") == Some(name));
        let mut counts: Vec<_> = counts
            .map(|series| format!("{} {}", series.value, series.label("error_type").unwrap_or_default()))
            .collect();
        counts.sort();
        assert_eq!(counts, expected, "{name}");
    }
    assert_eq!(service.rows().await, 4);
}

/// The handler of the guide.
async fn upload(
    conn: Conn,
    Extension(deadline): Extension<RequestDeadline>,
    body: Body,
) -> axum::response::Result<String> {
    let import = async {
        let call = conn.call().name("upload");
        let mut copy = call.copy_in("COPY extractors_upload FROM STDIN (FORMAT csv)").await?;
        let mut body = body.into_data_stream();
        while let Some(piece) = body.try_next().await.map_err(|_| StatusCode::BAD_REQUEST)? {
            copy.send(piece).await.map_err(answer)?;
        }
        copy.finish().await.map_err(answer)
    };
    match tokio::time::timeout_at(deadline.instant().into(), import).await {
        Ok(rows) => Ok(rows?.to_string()),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT.into()),
    }
}

fn answer(error: Error) -> ErrorResponse {
    if error.is_unique_violation() {
        StatusCode::CONFLICT.into()
    } else if error.is_data_exception() || error.is_not_null_violation() || error.is_check_violation() {
        StatusCode::UNPROCESSABLE_ENTITY.into()
    } else {
        error.into()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_ends_at_the_deadline_whoever_is_late() {
    let routes = Router::new().route("/upload", get(upload));
    let service = Service::start("extractors_upload", Duration::from_secs(5), routes).await;
    let unique = "CREATE UNIQUE INDEX ON extractors_upload (n); ALTER TABLE extractors_upload ALTER n SET NOT NULL";
    service.app.pool.batch_execute(unique).await.unwrap();
    for (body, status, rows) in [
        ("1\n2\n", 200, 2),
        ("1\n", 409, 2),
        ("x\n", 422, 2),
        ("3,4\n", 422, 2),
        ("\"\"\n3\n", 422, 2),
        ("3\n", 200, 3),
    ] {
        // The end of the headers, and the body.
        let rest = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        let (answered, text) = service.ask("/upload", &rest).await;
        assert_eq!((answered, service.rows().await), (status, rows), "{body:?}: {text}");
    }

    // The client never sends the rest.
    let late = "x-request-timeout: 200ms\r\n";
    assert_eq!(service.ask("/upload", &format!("{late}Content-Length: 100\r\n\r\n4\n")).await.0, 408);
    service.gives_everything_back().await;

    // The server is late: another transaction has locked the table.
    let tx = service.app.pool.get().await.unwrap().transaction().await.unwrap();
    tx.execute("LOCK extractors_upload", &[]).await.unwrap();
    let whole = format!("{late}Content-Length: 2\r\n\r\n4\n");
    for _ in 0..5 {
        assert_eq!(service.ask("/upload", &whole).await.0, 504, "the error of the pool");
    }
    tx.rollback().await;
    assert_eq!(service.rows().await, 3);
    service.gives_everything_back().await;
}

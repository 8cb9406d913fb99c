//! A small service: its handlers, the mapping of its errors, and every future in a task of its own.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use failfast::{CopyIn, Error, Pool, Transaction};
use futures_util::{StreamExt, TryStreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use crate::pool::{LONG, shared};
use crate::support::eventually;

/// The answer of the service when a request fails.
#[derive(Debug)]
enum Refusal {
    NotFound,
    TooLong,
    Database(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooLong => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Database(error) if error.sqlstate() == Some(&SqlState::UNIQUE_VIOLATION) => StatusCode::CONFLICT,
            Self::Database(error) if error.is_overload() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Database(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        status.into_response()
    }
}

async fn show(State(pool): State<Pool>, Path(name): Path<String>) -> Result<String, Refusal> {
    let row = pool.query_opt("SELECT email FROM service_users WHERE name = $1", &[&name]).await?;
    Ok(row.ok_or(Refusal::NotFound)?.get(0))
}

async fn add(State(pool): State<Pool>, Path(name): Path<String>, email: String) -> Result<StatusCode, Refusal> {
    pool.transaction(async |tx| {
        tx.execute("INSERT INTO service_users VALUES ($1, $2)", &[&name, &email]).await?;
        tx.execute("INSERT INTO service_log VALUES ($1)", &[&name]).await?;
        if name.len() > 20 { Err(Refusal::TooLong) } else { Ok(StatusCode::CREATED) }
    })
    .await
}

/// Returns the status and the body of the answer.
async fn request(service: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let (head, body) = exchange(service, method, path, body).await;
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
}

/// Returns the head and the body of the answer.
pub(crate) async fn exchange(service: &str, method: &str, path: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(service).await.unwrap();
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_answers() {
    let pool = shared("service").await.max_size(2).build().unwrap();
    let tables = "CREATE TABLE service_users (name text PRIMARY KEY, email text); CREATE TABLE service_log (name text)";
    pool.batch_execute(tables).await.unwrap();
    let routes = Router::new().route("/users/{name}", get(show)).route("/users/{name}", put(add));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(axum::serve(listener, routes.with_state(pool.clone())).into_future());

    assert_eq!(request(&service, "GET", "/users/ada", "").await.0, 404);
    assert_eq!(request(&service, "PUT", "/users/ada", "ada@example.com").await.0, 201);
    assert_eq!(request(&service, "PUT", "/users/ada", "ada@example.com").await.0, 409);
    assert_eq!(request(&service, "GET", "/users/ada", "").await, (200, "ada@example.com".to_owned()));
    assert_eq!(request(&service, "PUT", "/users/somebody-with-a-long-name", "x").await.0, 422);
    let log: i64 = pool.query_one("SELECT count(*) FROM service_log", &[]).await.unwrap().get(0);
    assert_eq!(log, 1, "the refused request was not rolled back");
    pool.close();
    assert_eq!(request(&service, "GET", "/users/ada", "").await.0, 500);
    serving.abort();
}

/// The rows as the lines of the body. The body owns the stream, and the stream its connection.
async fn download(State(pool): State<Pool>, Path(rows): Path<i32>) -> Result<Body, Refusal> {
    let sql = "SELECT n || '' FROM generate_series(1, $1::int4) n";
    let rows = pool.call().deadline(LONG).query_stream(sql, &[&rows]).await?;
    Ok(Body::from_stream(rows.map_ok(|row| row.get::<_, String>(0) + "\n")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_handed_to_a_client() {
    let pool = shared("download").await.max_size(1).build().unwrap();
    let routes = Router::new().route("/rows/{rows}", get(download));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = listener.local_addr().unwrap();
    let serving = tokio::spawn(axum::serve(listener, routes.with_state(pool.clone())).into_future());

    let (status, body) = request(&service.to_string(), "GET", "/rows/100000", "").await;
    assert_eq!((status, body.matches("\n").count() >= 100_000), (200, true));
    assert_eq!(pool.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);

    // A client that hangs up in the middle. The connection comes back.
    let mut client = TcpStream::connect(service).await.unwrap();
    client.write_all(b"GET /rows/10000000 HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
    client.read_exact(&mut [0; 4_096]).await.unwrap();
    drop(client);
    eventually("the connection is back", LONG, async || pool.status().idle == 1).await;
    assert_eq!(pool.breaker().snapshot().counts.failures, 0);
    serving.abort();
}

/// Runs the future on another task, so it must be `Send` and own its values.
async fn spawned<T: Send + 'static>(future: impl Future<Output = Result<T, Error>> + Send + 'static) -> T {
    tokio::spawn(future).await.unwrap().unwrap()
}

#[test]
fn a_pool_can_be_shared() {
    fn is<T: Clone + Send + Sync + Debug + 'static>() {}
    is::<Pool>();
    is::<Transaction>();
    fn moves<T: Send + Sync + Debug>() {}
    moves::<failfast::Client>();
    moves::<failfast::Call<'_>>();
    moves::<failfast::PoolBuilder>();
    moves::<Error>();
    fn is_sent<T: Send + Debug>() {}
    is_sent::<failfast::RowStream<'static>>();
    is_sent::<failfast::CopyOut<'static>>();
    is_sent::<CopyIn<'static, &'static [u8]>>();
    is_sent::<failfast::BinaryCopyIn<'static>>();
    is_sent::<failfast::BinaryCopyOut<'static>>();
}

#[tokio::test]
async fn every_call_of_the_pool_can_be_spawned() {
    let pool = shared("spawned_calls").await.max_size(2).build().unwrap();
    let of = || pool.clone();
    let (p, sql) = (of(), "SELECT $1::int4".to_owned());
    assert_eq!(spawned(async move { p.query(&sql, &[&1i32]).await }).await.len(), 1);
    let p = of();
    assert_eq!(spawned(async move { p.query_one("SELECT 1", &[]).await }).await.get::<_, i32>(0), 1);
    let p = of();
    assert!(spawned(async move { p.query_opt("SELECT 1 WHERE false", &[]).await }).await.is_none());
    let p = of();
    assert_eq!(spawned(async move { p.execute("SELECT 1", &[]).await }).await, 1);
    let p = of();
    let rows = spawned(async move { p.query_raw("SELECT $1::int4", [7i32]).await }).await;
    assert_eq!(spawned(async move { Ok(rows.count().await) }).await, 1);
    let p = of();
    let rows = spawned(async move { p.query_stream("SELECT 1", &[]).await }).await;
    assert_eq!(spawned(async move { Ok(rows.count().await) }).await, 1);
    let p = of();
    spawned(async move { p.query_typed("SELECT $1", &[(&1i32, Type::INT4)]).await }).await;
    let p = of();
    spawned(async move { p.batch_execute("SELECT 1").await }).await;
    let p = of();
    spawned(async move { p.simple_query("SELECT 1").await }).await;
    let p = of();
    spawned(async move { p.batch_execute("CREATE TABLE spawned_rows (id int, name text)").await }).await;
    let p = of();
    let mut copy = spawned(async move { p.copy_in("COPY spawned_rows FROM STDIN").await }).await;
    let copied = async move {
        copy.send(&b"1\tone\n2\ttwo\n"[..]).await?;
        copy.finish().await
    };
    assert_eq!(spawned(copied).await, 2);
    let p = of();
    let rows = [(3i32, "three".to_owned()), (4, "four".to_owned())];
    let copied = async move {
        let rows = rows.iter().map(|(id, name)| [id as &(dyn ToSql + Sync), name]);
        p.copy_in_rows("COPY spawned_rows FROM STDIN (FORMAT binary)", &[Type::INT4, Type::TEXT], rows).await
    };
    assert_eq!(spawned(copied).await, 2);
    let p = of();
    let data = spawned(async move { p.copy_out("COPY spawned_rows TO STDOUT").await }).await;
    assert_eq!(spawned(async move { Ok(data.count().await) }).await, 4);
    let p = of();
    let sql = "COPY spawned_rows (id) TO STDOUT (FORMAT binary)";
    let rows = spawned(async move { p.copy_out_rows(sql, &[Type::INT4]).await }).await;
    assert_eq!(spawned(async move { Ok(rows.count().await) }).await, 4);
    let p = of();
    let changed = async move {
        let rows = [(1i32, "a".to_owned()), (2, "b".to_owned())];
        let rows = rows.iter().map(|(id, name)| [id as &(dyn ToSql + Sync), name]);
        p.execute_many("UPDATE spawned_rows SET name = $2 WHERE id = $1", rows).await
    };
    assert_eq!(spawned(changed).await, 2);
    let p = of();
    spawned(async move { p.call().deadline(LONG).uncached().query_one("SELECT $1::int4", &[&1i32]).await }).await;
    let p = of();
    spawned(async move { p.warm_up(2, LONG).await }).await;
    let p = of();
    drop(spawned(async move { p.get_timeout(LONG).await }).await);
    let p = of();
    assert_eq!(spawned(async move { Ok(p.drain(Duration::from_secs(1)).await) }).await, 0);
}

#[tokio::test]
async fn every_call_of_a_client_can_be_spawned() {
    let pool = shared("spawned_guard").await.max_size(1).build().unwrap();
    spawned(async move {
        let mut client = pool.get().await?;
        client.query("SELECT $1::int4", &[&1i32]).await?;
        client.query_one("SELECT 1", &[]).await?;
        client.query_opt("SELECT 1", &[]).await?;
        client.execute("SELECT 1", &[]).await?;
        client.query_typed("SELECT $1", &[(&1i32, Type::INT4)]).await?;
        client.batch_execute("CREATE TEMPORARY TABLE spawned (id int)").await?;
        client.simple_query("SELECT 1").await?;
        let statement = client.prepare("SELECT 1").await?;
        client.query(&statement, &[]).await?;
        client.prepare_typed("SELECT $1", &[Type::INT4]).await?;
        client.prepare_cached("SELECT 1").await?;
        let mut rows = client.query_raw("SELECT $1::int4", [7i32]).await?;
        assert_eq!(rows.next().await.unwrap()?.get::<_, i32>(0), 7);
        drop(rows);
        let mut sink = client.copy_in("COPY spawned FROM STDIN").await?;
        sink.send(&b"1\n2\n"[..]).await?;
        assert_eq!(sink.finish().await?, 2);
        let data = client.copy_out("COPY spawned TO STDOUT").await?;
        assert_eq!(data.count().await, 2);
        let rows = client.query_stream("SELECT id FROM spawned", &[]).await?;
        assert_eq!(rows.count().await, 2);
        let sql = "COPY spawned FROM STDIN (FORMAT binary)";
        assert_eq!(client.copy_in_rows(sql, &[Type::INT4], [[3i32], [4]]).await?, 2);
        let rows = client.copy_out_rows("COPY spawned TO STDOUT (FORMAT binary)", &[Type::INT4]).await?;
        assert_eq!(rows.count().await, 4);
        let numbers = [1i32, 2];
        let rows = numbers.iter().map(|number| [number]);
        assert_eq!(client.execute_many("UPDATE spawned SET id = id WHERE id = $1", rows).await?, 2);
        // Code written for deadpool does this.
        let old = deadpool_postgres::ClientWrapper::transaction(&mut client).await?;
        old.commit().await?;
        let tx = client.transaction().await?;
        tx.query_one("SELECT 1", &[]).await?;
        tx.commit().await?;
        let tx = pool.get_timeout(LONG).await?.transaction().await?;
        tx.rollback().await;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn transactions_can_be_spawned_whatever_they_capture() {
    let pool = shared("spawned_transactions").await.max_size(1).build().unwrap();
    let tally = spawned(async move {
        let (text, numbers) = ("seven".to_owned(), vec![1i32, 2, 3]);
        // The closure borrows a value that outlives the call.
        let borrowed: String = pool
            .transaction(|tx| {
                let text = &text;
                async move { Ok::<_, Error>(tx.query_one("SELECT $1::text", &[text]).await?.get(0)) }
            })
            .await?;
        // Each attempt gets a clone.
        let cloned: i64 = pool
            .transaction(|tx| {
                let numbers = numbers.clone();
                async move {
                    Ok::<_, Error>(tx.query_one("SELECT sum(n) FROM unnest($1::int4[]) n", &[&numbers]).await?.get(0))
                }
            })
            .await?;
        // The value moves in, because the closure runs once.
        let moved = numbers;
        let once: i32 = pool
            .transaction_once(|tx| async move {
                let sum =
                    |tx: Transaction| async move { Ok::<i32, Error>(tx.query_one("SELECT 4", &[]).await?.get(0)) };
                Ok::<_, Error>(tx.savepoint(sum).await? + moved.into_iter().sum::<i32>())
            })
            .await?;
        Ok((borrowed, cloned, once))
    })
    .await;
    assert_eq!(tally, ("seven".to_owned(), 6, 10));
}

/// Async closures borrow what they use, in a task of their own as well.
#[tokio::test]
async fn async_closures_that_borrow_can_be_spawned() {
    let pool = shared("spawned_closures").await.max_size(1).build().unwrap();
    let answers = spawned(async move {
        let (text, numbers) = ("seven".to_owned(), vec![1i32, 2, 3]);
        let echo: String = pool
            .transaction(async |tx| {
                let inner = async |tx: Transaction| tx.query_one("SELECT $1::text", &[&text]).await;
                Ok::<_, Error>(tx.savepoint(inner).await?.get(0))
            })
            .await?;
        let sum = async |client: failfast::Client| {
            let row = client.query_one("SELECT sum(n) FROM unnest($1::int4[]) n", &[&numbers]).await?;
            Ok::<i64, Error>(row.get(0))
        };
        let sums = (pool.run(sum).await?, pool.call().fallback(|_| None).run(sum).await?);
        // What runs once may change and consume what it captures.
        let mut runs = 0;
        let once = pool
            .transaction_once(async |tx| {
                runs += 1;
                let text = text;
                Ok::<String, Error>(tx.query_one("SELECT $1::text", &[&text]).await?.get(0))
            })
            .await?;
        Ok((echo, sums, once, runs))
    })
    .await;
    assert_eq!(answers, ("seven".to_owned(), (6, 6), "seven".to_owned(), 1));
}

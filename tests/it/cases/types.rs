//! Changes of types while connections have prepared statements that use them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use failfast::breaker::State;
use failfast::{Client, Error, Pool, Shedding};
use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

use super::{LONG, shared};
use crate::support::eventually;
use crate::support::server::Server;

/// Returns how many attributes the type of a row's first column has, as the driver learned it.
fn attributes(row: &Row) -> usize {
    fn of(ty: &Type) -> usize {
        match ty.kind() {
            Kind::Composite(attributes) => attributes.len(),
            Kind::Array(inner) | Kind::Domain(inner) => of(inner),
            other => panic!("{other:?}"),
        }
    }
    of(row.columns()[0].type_())
}

async fn pool(name: &str, statement_cache: usize) -> Pool {
    shared(name).await.max_size(1).statement_cache(statement_cache).build().unwrap()
}

/// Creates a type of two attributes, a table of its values, an array of them and a domain.
async fn made(name: &str) -> &'static Server {
    let server = Server::shared().await;
    let made = format!(
        "CREATE TYPE {name} AS (a int, b text); CREATE DOMAIN {name}_d AS {name};
        CREATE TABLE {name}s (p {name}, many {name}[], d {name}_d);
        INSERT INTO {name}s VALUES (ROW(1, 'x'), ARRAY[ROW(1, NULL)]::{name}[], ROW(2, 'y'))"
    );
    server.execute(&made).await;
    server
}

async fn first(client: &Client, sql: &str, way: &str) -> Row {
    match way {
        "query" => client.query(sql, &[]).await.unwrap().remove(0),
        "query_one" => client.query_one(sql, &[]).await.unwrap(),
        "query_opt" => client.query_opt(sql, &[]).await.unwrap().unwrap(),
        "query_typed" => client.query_typed(sql, &[]).await.unwrap().remove(0),
        "query_raw" => {
            let rows: Vec<_> = client.query_raw(sql, Vec::<i32>::new()).await.unwrap().try_collect().await.unwrap();
            rows.into_iter().next().unwrap()
        }
        "query_stream" => {
            let rows: Vec<_> = client.query_stream(sql, &[]).await.unwrap().try_collect().await.unwrap();
            rows.into_iter().next().unwrap()
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_attribute_added_by_others_is_learned_with_its_first_row() {
    let ways = ["query", "query_one", "query_opt", "query_raw", "query_stream", "query_typed"];
    for (at, way) in ways.into_iter().enumerate() {
        for size in [0, 256] {
            let name = format!("added_{at}_{size}");
            let server = made(&name).await;
            let pool = pool(&name, size).await;
            for (column, sql) in ["p", "many", "d"].map(|column| (column, format!("SELECT {column} FROM {name}s"))) {
                let client = pool.get().await.unwrap();
                let before = attributes(&first(&client, &sql, way).await);
                server.execute(&format!("ALTER TYPE {name} ADD ATTRIBUTE {column}_ int CASCADE")).await;
                let _may_be_old = first(&client, &sql, way).await;
                assert_eq!(attributes(&first(&client, &sql, way).await), before + 1, "{way} {size} {column}");
                server.execute(&format!("ALTER TYPE {name} DROP ATTRIBUTE {column}_ CASCADE")).await;
                let _may_be_old = first(&client, &sql, way).await;
                assert_eq!(attributes(&first(&client, &sql, way).await), before, "{way} {size} {column}, dropped");
            }
        }
    }
}

#[tokio::test]
async fn an_attribute_added_by_the_pool_is_known_to_all_its_connections() {
    let sql = |name: &str| format!("SELECT p FROM {name}s");
    for size in [0, 256] {
        let name = format!("own_{size}");
        made(&name).await;
        let pool = shared(&name).await.max_size(2).statement_cache(size).build().unwrap();
        let count = async || attributes(&pool.query_one(&sql(&name), &[]).await.unwrap());
        let alter = |column: &str| format!("ALTER TYPE {name} ADD ATTRIBUTE {column} int CASCADE");
        let other = pool.get().await.unwrap();
        let count_other = async || attributes(&other.query_one(&sql(&name), &[]).await.unwrap());
        let through_the_deref = async || {
            let statement = (**other).prepare_cached(&sql(&name)).await.unwrap();
            attributes(&other.query_one(&statement, &[]).await.unwrap())
        };
        assert_eq!((count().await, count_other().await, through_the_deref().await), (2, 2, 2));

        pool.batch_execute(&alter("c")).await.unwrap();
        assert_eq!((through_the_deref().await, count().await, count_other().await), (3, 3, 3), "{size}");

        let inside = pool.transaction(async |tx| {
            tx.query_one(&sql(&name), &[]).await?;
            tx.execute(&alter("d"), &[]).await?;
            Ok::<_, Error>(attributes(&tx.query_one(&sql(&name), &[]).await?))
        });
        assert_eq!(inside.await.unwrap(), 4, "{size}: in the transaction itself");
        assert_eq!((count().await, count_other().await), (4, 4), "{size}");

        let client = pool.get().await.unwrap();
        (**client).batch_execute(&alter("e")).await.unwrap();
        drop(client);
        assert_eq!((count_other().await, count().await), (5, 5), "{size}: by the deref");
    }
}

#[tokio::test]
async fn a_parameter_refused_for_an_old_type_is_sent_after_learning_the_new_one() {
    for size in [0, 256] {
        let name = format!("sent_{size}");
        let server = made(&name).await;
        let pool = pool(&name, size).await;
        let insert = format!("INSERT INTO {name}s (p) VALUES ($1)");
        let execute = async |values: &'static [i32]| pool.execute(&insert, &[&Values(values)]).await;
        assert!(execute(&[1, 2]).await.is_err(), "{size}: the second attribute is a text");
        server.execute(&format!("ALTER TYPE {name} DROP ATTRIBUTE b CASCADE")).await;
        assert_eq!(execute(&[1]).await.unwrap(), 1, "{size}");
        server.execute(&format!("ALTER TYPE {name} ADD ATTRIBUTE c int CASCADE")).await;
        assert_eq!(execute(&[1, 2]).await.unwrap(), 1, "{size}");

        server.execute(&format!("ALTER TYPE {name} ADD ATTRIBUTE d int CASCADE")).await;
        let inside = pool.transaction_once(async |tx| {
            tx.batch_execute("SELECT 1").await?;
            tx.execute(&insert, &[&Values(&[1, 2, 3])]).await
        });
        assert_eq!(inside.await.unwrap(), 1, "{size}: the driver refused the value before it sent anything");
        assert!(execute(&[1]).await.is_err(), "{size}: the value does not fit the new type either");
        assert_eq!(pool.breaker().snapshot().counts.failures, 0);
    }
}

/// A value of any composite type with this many integers.
#[derive(Debug)]
struct Values(&'static [i32]);

impl ToSql for Values {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Kind::Composite(attributes) = ty.kind() else { panic!("{ty}") };
        if attributes.len() != self.0.len() || attributes.iter().any(|attribute| *attribute.type_() != Type::INT4) {
            return Err(Box::new(tokio_postgres::types::WrongType::new::<Self>(ty.clone())));
        }
        out.put_u32(u32::try_from(self.0.len())?);
        for value in self.0 {
            out.put_u32(Type::INT4.oid());
            out.put_u32(4);
            out.put_i32(*value);
        }
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        matches!(ty.kind(), Kind::Composite(_))
    }

    to_sql_checked!();
}

#[tokio::test]
async fn values_that_fit_do_not_make_the_driver_learn_again() {
    let name = "fits";
    let server = made(name).await;
    server.execute("ALTER TYPE fits ADD ATTRIBUTE c int[], ADD ATTRIBUTE d numeric, DROP ATTRIBUTE b CASCADE").await;
    server.execute("CREATE TYPE outer_fits AS (f fits, many fits[], at tstzrange)").await;
    let pool = pool(name, 256).await;
    let values = [
        "SELECT NULL::fits",
        "SELECT ARRAY[]::fits[]",
        "SELECT ARRAY[NULL, ROW(1, ARRAY[1], 2)]::fits[]",
        "SELECT ARRAY[ARRAY[ROW(1, ARRAY[1], 2)], ARRAY[NULL]]::fits[][]",
        "SELECT ROW(ROW(NULL, NULL, NULL), ARRAY[ROW(1, NULL, NULL)]::fits[], '[,]')::outer_fits",
        "SELECT ROW(NULL, NULL, NULL)::outer_fits",
        "SELECT ROW(1, ARRAY[1], 2)::fits::fits_d",
        "SELECT ROW(1, 2)",
        "SELECT fitss FROM fitss",
        "SELECT typname, proargtypes FROM pg_type, pg_proc LIMIT 1",
    ];
    let client = pool.get().await.unwrap();
    let prepared = async || {
        let sql = "SELECT name, statement FROM pg_prepared_statements ORDER BY 2, 1";
        let rows = client.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| (row.get::<_, String>(0), row.get::<_, String>(1))).collect::<Vec<_>>()
    };
    for sql in &values {
        client.query(*sql, &[]).await.unwrap();
    }
    let before = prepared().await;
    for sql in &values {
        client.query(*sql, &[]).await.unwrap();
        let mut rows = client.query_raw(*sql, Vec::<i32>::new()).await.unwrap();
        while rows.next().await.is_some() {}
    }
    assert_eq!(prepared().await, before);
}

/// Only the catalog shows a new name.
#[tokio::test]
async fn a_flush_makes_connections_in_use_learn_types_again() {
    let server = made("flushed").await;
    let pool = pool("flushed", 256).await;
    let client = pool.get().await.unwrap();
    let name = async || {
        let row = client.query_one("SELECT p FROM flusheds", &[]).await.unwrap();
        let Kind::Composite(attributes) = row.columns()[0].type_().kind() else { panic!("{row:?}") };
        attributes[0].name().to_owned()
    };
    assert_eq!(name().await, "a");
    server.execute("ALTER TYPE flushed RENAME ATTRIBUTE a TO z").await;
    assert_eq!(name().await, "a");
    pool.flush();
    assert_eq!(name().await, "z");
}

const CALLERS: usize = 20;
const CONNECTIONS: u32 = 5;
const SWITCHED: &str = "ALTER ROLE loader SET search_path = moved, loads";

/// Each migration costs each connection at most one call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_under_load_costs_at_most_one_call_per_connection() {
    let server = Server::shared().await;
    let made = "CREATE TYPE kind AS ENUM ('a'); CREATE TYPE pair AS (a int, b int);
        CREATE TABLE loaded (k kind, p pair, n int); INSERT INTO loaded VALUES ('a', ROW(1, 2), 1);
        CREATE TABLE moved.loaded (k text, p pair, n bigint, more int);
        INSERT INTO moved.loaded VALUES ('a', ROW(1, 2), 1, 1);
        CREATE ROLE loader SUPERUSER LOGIN PASSWORD 'secret'; ALTER ROLE loader SET search_path = loads";
    let migrations = [
        "ALTER TYPE pair ADD ATTRIBUTE c int CASCADE",
        "ALTER TABLE loaded ALTER n TYPE bigint",
        "ALTER TYPE kind RENAME TO old_kind; CREATE TYPE kind AS ENUM ('a', 'b');
            ALTER TABLE loaded ALTER k TYPE kind USING k::text::kind",
        "ALTER TABLE loaded ALTER k TYPE text; DROP TYPE kind; CREATE TYPE kind AS ENUM ('a', 'b', 'c');
            ALTER TABLE loaded ALTER k TYPE kind USING k::kind",
        "ALTER TYPE pair DROP ATTRIBUTE b CASCADE",
        SWITCHED,
        "ALTER TABLE moved.loaded DROP more",
    ];
    server.execute("CREATE SCHEMA loads; CREATE SCHEMA moved").await;
    let migrate = async |sql: &str| server.execute(&format!("SET search_path = loads; {sql}")).await;
    migrate(made).await;
    let mut config = server.config();
    config.user("loader").password("secret");
    // A machine that stands still for a second must not add refusals to the failures that are counted.
    let builder = Pool::builder(config).max_size(CONNECTIONS as usize).acquire_timeout(LONG);
    let pool = builder.shedding(Shedding::QueueOnly).build().unwrap();
    let (done, failed) = (AtomicU32::new(0), Mutex::new(Vec::new()));
    let is_over = AtomicBool::new(false);
    let call = async |number: usize| -> Result<(), String> {
        let said = |error: Error| error.to_string();
        match number % 3 {
            0 => {
                let set = "UPDATE loaded SET k = 'a'::text::kind WHERE n = $1::int";
                pool.execute(set, &[&1_i32]).await.map(|_| ()).map_err(said)
            }
            1 => {
                let row = pool.query_one("SELECT p FROM loaded", &[]).await.map_err(said)?;
                let sent: Sent = row.get(0);
                (sent.0 == attributes(&row)).then_some(()).ok_or_else(|| format!("{sent:?}: {}", attributes(&row)))
            }
            _ => pool.query("SELECT * FROM loaded", &[]).await.map(|_| ()).map_err(said),
        }
    };
    let callers = (0..CALLERS).map(async |caller| {
        let mut number = caller;
        while !is_over.load(SeqCst) {
            if let Err(error) = call(number).await {
                failed.lock().unwrap().push(error);
            }
            done.fetch_add(1, SeqCst);
            number += 1;
        }
    });
    let all = async {
        let settled = async || {
            let enough = done.load(SeqCst) + 20 * u32::try_from(CALLERS).unwrap();
            eventually("the callers have made enough calls", LONG, async || done.load(SeqCst) >= enough).await;
        };
        settled().await;
        for migration in migrations {
            migrate(migration).await;
            if migration == SWITCHED {
                // The setting applies to new sessions.
                pool.flush();
            }
            settled().await;
            let failed = std::mem::take(&mut *failed.lock().unwrap());
            println!("{migration}: {} calls failed of {}", failed.len(), done.load(SeqCst));
            assert!(failed.len() <= CONNECTIONS as usize, "{migration}: {failed:#?}");
        }
        is_over.store(true, SeqCst);
    };
    futures_util::future::join(join_all(callers), all).await;
    assert_eq!(pool.breaker().state(), State::Closed);
}

/// How many attributes a composite value has.
#[derive(Debug)]
struct Sent(usize);

impl<'a> FromSql<'a> for Sent {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(usize::from(raw[3])))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// The driver asks for an unknown type on the connection whose rows it does not read yet. Rows that do not fit into its
/// buffers then keep the answer away. With the bare driver, this waits for ever.
#[tokio::test]
async fn a_typed_statement_whose_many_rows_have_an_unknown_type_ends_at_its_timeout() {
    made("seen_late").await;
    let sql = "SELECT ROW(n, repeat('x', 1000))::seen_late FROM generate_series(1, 2000) n";
    let pool = shared("seen_late").await.max_size(1).build().unwrap();
    let late = pool.call().timeout(Duration::from_millis(500)).query_typed(sql, &[]).await;
    assert!(matches!(late, Err(Error::QueryTimeout { .. })), "{late:?}");
    let client = pool.get().await.unwrap();
    client.query_one("SELECT NULL::seen_late", &[]).await.unwrap();
    let rows = client.query_typed(sql, &[]).await.unwrap();
    assert_eq!((rows.len(), attributes(&rows[0])), (2_000, 2), "the type is known by now");
}

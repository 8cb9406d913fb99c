//! Another program changes a type while connections have learned it: a new label of an enum, an extension that is
//! dropped and created again.

use std::error::Error;

use bytes::BytesMut;
use failfast::Pool;
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type, WrongType, to_sql_checked};

use crate::pool::{LONG, shared};
use crate::support::server::Server;

type Failure = Box<dyn Error + Sync + Send>;

/// A label, as an enum with `#[derive(ToSql, FromSql)]` takes it: only if the type has exactly `LABELS` labels. With 0
/// it takes any enum, as with `#[postgres(allow_mismatch)]`.
#[derive(Debug, PartialEq)]
struct Label<const LABELS: usize>(String);

type Any = Label<0>;

fn label<const LABELS: usize>(label: &str) -> Label<LABELS> {
    Label(label.to_owned())
}

impl<const LABELS: usize> Label<LABELS> {
    fn fits(ty: &Type) -> bool {
        matches!(ty.kind(), Kind::Enum(labels) if LABELS == 0 || labels.len() == LABELS)
    }
}

impl<const LABELS: usize> ToSql for Label<LABELS> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        Self::fits(ty)
    }

    to_sql_checked!();
}

impl<'a, const LABELS: usize> FromSql<'a> for Label<LABELS> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Failure> {
        Ok(Self(String::from_utf8(raw.into())?))
    }

    fn accepts(ty: &Type) -> bool {
        Self::fits(ty)
    }
}

async fn pool(name: &str, statements: usize) -> Pool {
    shared(name).await.max_size(1).statement_cache(statements).acquire_timeout(LONG).build().unwrap()
}

/// Sends a label, and reads it back.
async fn echo<const LABELS: usize>(pool: &Pool, name: &str, text: &str) -> Result<Label<LABELS>, Failure> {
    let row = pool.query_one(&format!("SELECT $1::{name}"), &[&label::<LABELS>(text)]).await?;
    Ok(row.try_get(0)?)
}

fn is_wrong_type<T>(result: Result<T, Failure>) -> bool {
    let Err(error) = result else { return false };
    let mut cause: Option<&dyn Error> = Some(&*error);
    while let Some(error) = cause {
        if error.is::<WrongType>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[tokio::test]
async fn a_label_added_by_others_is_sent_and_read() {
    let server = Server::shared().await;
    for size in [0, 256] {
        let name = format!("labels_{size}");
        server.execute(&format!("CREATE TYPE {name} AS ENUM ('red', 'green')")).await;
        let pool = pool(&name, size).await;
        assert_eq!(echo::<0>(&pool, &name, "red").await.unwrap(), label("red"));
        server.execute(&format!("ALTER TYPE {name} ADD VALUE 'blue'")).await;
        for text in ["red", "blue"] {
            assert_eq!(echo::<0>(&pool, &name, text).await.unwrap(), label(text), "{size}");
            let all = pool.query(&format!("SELECT unnest(enum_range(NULL::{name}))"), &[]).await.unwrap();
            let all: Vec<Any> = all.iter().map(|row| row.get(0)).collect();
            assert_eq!(all, [label("red"), label("green"), label("blue")]);
        }
    }
}

/// As documented: a derived enum fits only the labels that the connection has learned.
#[tokio::test]
async fn a_derived_enum_fits_the_labels_that_the_connection_has_learned() {
    let server = Server::shared().await;
    for size in [0, 256] {
        let name = format!("derived_{size}");
        server.execute(&format!("CREATE TYPE {name} AS ENUM ('red', 'green')")).await;
        let pool = pool(&name, size).await;
        assert_eq!(echo::<2>(&pool, &name, "red").await.unwrap(), label("red"));
        server.execute(&format!("ALTER TYPE {name} ADD VALUE 'blue'")).await;
        assert_eq!(echo::<2>(&pool, &name, "red").await.unwrap(), label("red"), "{size}: the old program goes on");
        // A parameter that does not fit makes the connection learn the type again.
        assert_eq!(echo::<3>(&pool, &name, "blue").await.unwrap(), label("blue"), "{size}: the new program begins");
        pool.flush();
        assert!(is_wrong_type(echo::<2>(&pool, &name, "red").await), "{size}: the old program fails");
        assert_eq!(echo::<3>(&pool, &name, "blue").await.unwrap(), label("blue"));
        assert_eq!(echo::<0>(&pool, &name, "blue").await.unwrap(), label("blue"));
    }
}

/// A result does not show that a label was added. A connection that has learned the type needs to be replaced.
#[tokio::test]
async fn a_flush_teaches_results_a_new_label() {
    let server = Server::shared().await;
    for size in [0, 256] {
        let name = format!("read_{size}");
        server.execute(&format!("CREATE TYPE {name} AS ENUM ('red', 'green')")).await;
        let pool = pool(&name, size).await;
        let read = async || pool.query_one(&format!("SELECT 'red'::{name}"), &[]).await.unwrap();
        assert_eq!(read().await.get::<_, Label<2>>(0), label("red"));
        server.execute(&format!("ALTER TYPE {name} ADD VALUE 'blue'")).await;
        assert!(read().await.try_get::<_, Label<3>>(0).is_err());
        assert_eq!(read().await.get::<_, Any>(0), label("red"));
        pool.flush();
        assert_eq!(read().await.get::<_, Label<3>>(0), label("red"));
        // The pool notices its own change.
        pool.batch_execute(&format!("ALTER TYPE {name} ADD VALUE 'black'")).await.unwrap();
        assert_eq!(read().await.get::<_, Label<4>>(0), label("red"));
    }
}

/// Text of any type of an extension whose binary form is its text.
#[derive(Debug)]
struct Text(&'static str);

impl ToSql for Text {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        ty.name() == "citext"
    }

    to_sql_checked!();
}

#[tokio::test]
async fn an_extension_that_was_created_again_is_learned_again() {
    let server = Server::shared().await;
    let available = "SELECT count(*) FROM pg_available_extensions WHERE name IN ('citext', 'hstore')";
    if server.scalar(available).await != "2" {
        println!("no citext and hstore here");
        return;
    }
    let create = "CREATE EXTENSION citext; CREATE EXTENSION hstore;
        CREATE TABLE names (name citext, more hstore); INSERT INTO names VALUES ('Ann', 'a=>1')";
    server.execute(create).await;
    for size in [0, 256] {
        let pool = pool(&format!("extensions_{size}"), size).await;
        let use_both = async |when: &str| {
            let sql = "SELECT count(*) FROM names WHERE name = $1 AND more -> 'a' = '1'";
            let found = pool.query_one(sql, &[&Text("ANN")]).await.unwrap_or_else(|error| panic!("{when}: {error:?}"));
            assert_eq!(found.get::<_, i64>(0), 1, "{when}");
            let row = pool.query_one("SELECT name, more FROM names", &[]).await;
            let row = row.unwrap_or_else(|error| panic!("{when}: {error:?}"));
            let types: Vec<_> = row.columns().iter().map(|column| column.type_().name()).collect();
            assert_eq!(types, ["citext", "hstore"]);
            let found = pool.transaction(async |tx| tx.query_one(sql, &[&Text("ann")]).await).await;
            assert_eq!(found.unwrap_or_else(|error| panic!("{when}: {error:?}")).get::<_, i64>(0), 1, "{when}");
        };
        use_both("at first").await;
        for _ in 0..2 {
            server.execute("DROP TABLE names; DROP EXTENSION citext; DROP EXTENSION hstore").await;
            server.execute(create).await;
            use_both("again").await;
        }
    }
}

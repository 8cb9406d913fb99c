//! Rows in the binary format, in both directions. Some of the cases are those of the driver's own tests, and of issues
//! of Npgsql and pgx.

use std::iter;

use failfast::{BinaryCopyIn, Effect, Error, Pool, Transaction};
use futures_util::TryStreamExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use super::{WAYS, Way, count, with_table};
use crate::pool::shared;

const TYPES: [Type; 2] = [Type::INT4, Type::TEXT];

fn copy(table: &str) -> String {
    format!("COPY {table} (id, name) FROM STDIN (FORMAT binary)")
}

async fn names(pool: &Pool, table: &str) -> Vec<(i32, Option<String>)> {
    let rows = pool.query(&format!("SELECT id, name FROM {table} ORDER BY id"), &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The first row has a NULL, which makes no difference to the next: Npgsql 3649.
#[tokio::test]
async fn rows_are_copied_in_and_out_in_every_way() {
    let rows = [(1, None), (2, Some("two".to_owned())), (3, Some(String::new())), (4, None)];
    for way in WAYS {
        let table = format!("rows_{way:?}").to_lowercase();
        let pool = with_table(&table).await;
        let given = rows.iter().map(|(id, name)| [id as &(dyn ToSql + Sync), name]);
        assert_eq!(way.copy_in_rows(&pool, &copy(&table), &TYPES, given).await.unwrap(), 4, "{way:?}");
        assert_eq!(names(&pool, &table).await, rows, "{way:?}");
        let none = iter::empty::<[i32; 2]>();
        assert_eq!(way.copy_in_rows(&pool, &copy(&table), &TYPES, none).await.unwrap(), 0, "{way:?}");

        let sql = format!("COPY (SELECT * FROM {table} ORDER BY id) TO STDOUT (FORMAT binary)");
        let read: Vec<_> = pool.copy_out_rows(&sql, &TYPES).await.unwrap().try_collect().await.unwrap();
        let read: Vec<_> = read.iter().map(|row| (row.get(0), row.get::<Option<String>>(1))).collect();
        assert_eq!(read, rows, "{way:?}");
        assert_eq!(pool.breaker().snapshot().counts.failures, 0);
    }
}

/// The driver's tests: `write_basic`, `write_big_rows`, `read_basic`, `read_big_rows`; and a value of 20 MB.
#[tokio::test]
async fn the_drivers_cases() {
    let pool = shared("drivers_cases").await.max_size(1).build().unwrap();
    let client = pool.get().await.unwrap();
    client.batch_execute("CREATE TEMPORARY TABLE foo (id INT, bar BYTEA)").await.unwrap();
    let sink = client.copy_in("COPY foo (id, bar) FROM STDIN BINARY").await.unwrap();
    let mut writer = BinaryCopyIn::new(sink, &[Type::INT4, Type::BYTEA]);
    let values = [vec![1; 128 * 1_024], Vec::new(), vec![3; 20_000_000], vec![4]];
    for (id, value) in values.iter().enumerate() {
        writer.write(&[&(id as i32), value]).await.unwrap();
    }
    writer.write(&[&4i32, &None::<&[u8]>]).await.unwrap();
    writer.write_raw([&None::<i32> as &(dyn ToSql + Sync), &None::<&[u8]>]).await.unwrap();
    assert_eq!(writer.finish().await.unwrap(), 6);
    assert!(matches!(writer.finish().await, Err(Error::Busy { .. })));
    assert!(matches!(writer.write(&[&5i32, &None::<&[u8]>]).await, Err(Error::Busy { .. })));
    drop(writer);

    let sql = "COPY foo (id, bar) TO STDIN BINARY";
    let rows = client.copy_out_rows(sql, &[Type::INT4, Type::BYTEA]).await.unwrap();
    let rows: Vec<_> = rows.try_collect().await.unwrap();
    for (id, value) in values.iter().enumerate() {
        assert_eq!((rows[id].get::<i32>(0), rows[id].get::<&[u8]>(1)), (id as i32, &value[..]));
    }
    assert_eq!((rows[4].get::<Option<&[u8]>>(1), rows[5].get::<Option<i32>>(0), rows.len()), (None, None, 6));
    let empty = client.copy_out_rows("COPY (SELECT 1 WHERE false) TO STDOUT BINARY", &[Type::INT4]).await.unwrap();
    assert!(empty.try_collect::<Vec<_>>().await.unwrap().is_empty());
    // In the text format, and with other columns.
    let text = client.copy_out_rows("COPY (SELECT 1) TO STDOUT", &[Type::INT4]).await.unwrap();
    assert!(text.try_collect::<Vec<_>>().await.is_err());
    let other = client.copy_out_rows("COPY (SELECT 1, 2) TO STDOUT BINARY", &[Type::INT4]).await.unwrap();
    let other = other.try_collect::<Vec<_>>().await.err().unwrap();
    assert_eq!(other.to_string(), "error parsing response from server");
    assert_eq!(client.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
}

/// Without rows, the driver takes the end of such data for the end of the connection.
#[tokio::test]
async fn a_copy_without_rows_in_another_format_says_so_and_costs_no_connection() {
    let pool = with_table("not_binary").await;
    let process = async || pool.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0);
    let before = process().await;
    for format in ["", "(FORMAT csv)"] {
        let rows = pool.copy_out_rows(&format!("COPY not_binary TO STDOUT {format}"), &TYPES).await.unwrap();
        let error = rows.try_collect::<Vec<_>>().await.err().unwrap();
        assert!(error.to_string().contains("not in the binary format"), "{error}");
        assert!(matches!(error, Error::Postgres { lost: None, .. }) && !error.is_unavailable(), "{error}");
        assert_eq!(process().await, before, "{format}");
    }
    assert_eq!(pool.breaker().snapshot().counts.failures, 0);
}

#[tokio::test]
async fn more_than_a_hundred_thousand_rows_are_copied() {
    let pool = with_table("rows_120k").await;
    let rows = (0..120_000).map(|n| (n, format!("the value for {n}")));
    let rows: Vec<(i32, String)> = rows.collect();
    let given = rows.iter().map(|(id, name)| [id as &(dyn ToSql + Sync), name]);
    assert_eq!(pool.copy_in_rows(&copy("rows_120k"), &TYPES, given).await.unwrap(), 120_000);
    let read = pool.copy_out_rows("COPY rows_120k TO STDOUT (FORMAT binary)", &TYPES).await.unwrap();
    let read = read.try_fold(0, async |at, row| {
        assert_eq!((row.get::<i32>(0), row.get::<&str>(1)), (at, format!("the value for {at}").as_str()));
        Ok(at + 1)
    });
    assert_eq!(read.await.unwrap(), 120_000);
}

/// A value in row `at` that cannot be sent.
#[tokio::test]
async fn a_value_that_does_not_fit_aborts_the_copy_and_names_its_row() {
    let texts = |len| iter::repeat_n("x", len);
    for way in WAYS {
        let table = format!("misfit_{way:?}").to_lowercase();
        let pool = with_table(&table).await;
        for at in [0_usize, 1, 5_000] {
            let fitting = || (0..at as i32).map(|id| vec![Box::new(id) as Box<dyn ToSql + Sync + Send>, Box::new("x")]);
            let misfits: [(Vec<Box<dyn ToSql + Sync + Send>>, &str); 3] = [
                (vec![Box::new(1i32), Box::new(2i32)], "error serializing parameter 1: cannot convert"),
                (vec![Box::new(1i32)], "error serializing parameter 1"),
                (vec![Box::new(1i32), Box::new("x"), Box::new("x")], "error serializing parameter 2"),
            ];
            for (misfit, line) in misfits {
                let rows = fitting().chain([misfit]);
                let error = way.copy_in_rows(&pool, &copy(&table), &TYPES, rows).await.unwrap_err();
                let expected = format!("row {at}, counted from 0: {line}");
                assert!(error.to_string().starts_with(&expected), "{way:?} {at}: {error}");
                assert_eq!(error.row(), Some(at as u64), "{way:?} {at}: {error}");
                // After an error of the driver a transaction might go on, so its error does not say.
                assert!(error.effect() == Effect::NotApplied || way == Way::Transaction, "{way:?} {at}: {error}");
                assert_eq!(count(&pool, &table).await, 0, "{way:?} {at}");
            }
        }
        assert_eq!(pool.breaker().snapshot().counts.failures, 0);
    }
    let pool = with_table("misfit_ended").await;
    let sink = pool.copy_in(&copy("misfit_ended")).await.unwrap();
    let mut rows = BinaryCopyIn::new(sink, &TYPES);
    rows.write(&[&1i32, &"one"]).await.unwrap();
    assert_eq!(rows.write_raw(texts(2)).await.unwrap_err().row(), Some(1));
    assert!(matches!(rows.write(&[&2i32, &"two"]).await, Err(Error::Busy { .. })));
    assert!(matches!(rows.finish().await, Err(Error::Busy { .. })));
    assert_eq!(count(&pool, "misfit_ended").await, 0, "the connection is back, although the copy is still there");
}

#[tokio::test]
async fn a_row_that_the_server_refuses_ends_the_copy_early() {
    for way in WAYS {
        let table = format!("refused_{way:?}").to_lowercase();
        let pool = with_table(&table).await;
        let mut taken = 0;
        let rows = (0..3_000_000).map(|n| {
            taken = n;
            [Box::new(if n == 7 { 3 } else { n }) as Box<dyn ToSql + Sync + Send>, Box::new("some text to send")]
        });
        let error = way.copy_in_rows(&pool, &copy(&table), &TYPES, rows).await.unwrap_err();
        assert_eq!((error.sqlstate(), error.row()), (Some(&SqlState::UNIQUE_VIOLATION), None), "{way:?}: {error}");
        assert_eq!(error.effect(), Effect::NotApplied);
        assert!(taken < 2_000_000, "{way:?}: {taken} rows were sent after the server had refused the copy");
        assert_eq!(count(&pool, &table).await, 0, "{way:?}");
        assert_eq!(pool.breaker().snapshot().counts.failures, 0);
    }
}

/// Other types than those of the table, other columns, and the text format: Npgsql 1468, 2623 and 2330.
#[tokio::test]
async fn a_copy_with_other_types_than_its_table_applies_nothing() {
    let pool = with_table("other_types").await;
    let rows = || (0..10).map(|n| [n, n]);
    for (sql, types, state) in [
        ("COPY no_such_table FROM STDIN BINARY", [Type::INT4, Type::INT4], "42P01"),
        ("COPY other_types (id, nothing) FROM STDIN BINARY", [Type::INT4, Type::INT4], "42703"),
        ("COPY other_types (id) FROM STDIN BINARY", [Type::INT4, Type::INT4], "22P04"),
        ("COPY other_types (id, id) FROM STDIN BINARY", [Type::INT4, Type::INT4], "42701"),
        ("COPY other_types FROM STDIN", [Type::INT4, Type::INT4], "22P02"),
    ] {
        let error = pool.copy_in_rows(sql, &types, rows()).await.unwrap_err();
        assert_eq!(error.sqlstate().map(SqlState::code), Some(state), "{sql}: {error}");
        assert_eq!(count(&pool, "other_types").await, 0, "{sql}");
    }
    let rows = (0..10).map(|n| [Box::new(i64::from(n)) as Box<dyn ToSql + Sync + Send>, Box::new("x")]);
    let error = pool.copy_in_rows(&copy("other_types"), &[Type::INT8, Type::TEXT], rows).await.unwrap_err();
    assert_eq!(error.sqlstate().map(SqlState::code), Some("22P03"), "an int8 for an int4: {error}");
    assert_eq!(count(&pool, "other_types").await, 0);
}

#[tokio::test]
async fn a_panic_in_a_row_aborts_the_copy() {
    for way in WAYS {
        let table = format!("panics_{way:?}").to_lowercase();
        let pool = with_table(&table).await;
        let rows = (0..10_000).map(|n| {
            assert!(n < 9_000, "a row panics");
            [Box::new(n) as Box<dyn ToSql + Sync + Send>, Box::new("text")]
        });
        let of_the_task = pool.clone();
        let sql = copy(&table);
        let copied = tokio::spawn(async move { way.copy_in_rows(&of_the_task, &sql, &TYPES, rows).await });
        assert!(copied.await.unwrap_err().is_panic());
        assert_eq!(count(&pool, &table).await, 0, "{way:?}");
    }
}

/// The recipe of the guide: rows that are there are updated, and a row that fails leaves everything as it was.
#[tokio::test]
async fn an_import_updates_the_rows_that_are_there() {
    const MERGE: &str = "INSERT INTO bulk_merge (id, name) SELECT id, name FROM incoming
                         ON CONFLICT (id) DO UPDATE SET name = excluded.name";
    let pool = with_table("bulk_merge").await;
    pool.batch_execute("INSERT INTO bulk_merge VALUES (1, 'one'), (2, 'two')").await.unwrap();
    let import = async |items: &[(i32, &str)]| {
        let merge = |tx: Transaction| async move {
            tx.batch_execute("CREATE TEMP TABLE incoming (LIKE bulk_merge) ON COMMIT DROP").await?;
            let rows = items.iter().map(|(id, name)| [id as &(dyn ToSql + Sync), name]);
            let copy = "COPY incoming (id, name) FROM STDIN (FORMAT binary)";
            tx.copy_in_rows(copy, &[Type::INT4, Type::TEXT], rows).await?;
            tx.execute(MERGE, &[]).await
        };
        pool.transaction(merge).await
    };
    let names = async || {
        let sql = "SELECT string_agg(name, ' ' ORDER BY id) FROM bulk_merge";
        pool.query_one(sql, &[]).await.unwrap().get::<_, String>(0)
    };
    assert_eq!(import(&[(2, "zwei"), (3, "drei")]).await.unwrap(), 2);
    assert_eq!(names().await, "one zwei drei");
    let twice = import(&[(4, "vier"), (1, "eins"), (1, "uno")]).await.unwrap_err();
    assert_eq!(twice.sqlstate(), Some(&SqlState::CARDINALITY_VIOLATION));
    assert_eq!(names().await, "one zwei drei");
    assert_eq!(import(&[(1, "eins")]).await.unwrap(), 1, "the temporary table is gone");
    assert_eq!(names().await, "eins zwei drei");
}

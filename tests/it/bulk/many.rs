//! `execute_many`: one statement for many rows, all or nothing. Some cases are those of issues of pgx.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use bytes::BytesMut;
use failfast::{BusyReason, Effect, Error, ErrorKind, Pool, TransactionOptions};
use tokio_postgres::IsolationLevel;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::{WAYS, Way, count, with_table};
use crate::pool::{LONG, shared};
use crate::support::proxy::{Cut, Proxy};
use crate::support::server::Server;

type Value = Box<dyn ToSql + Sync + Send>;
/// Makes a row that fails.
type Bad = Box<dyn Fn() -> Vec<Value>>;

fn insert(table: &str) -> String {
    format!("INSERT INTO {table} VALUES ($1, $2)")
}

#[tokio::test]
async fn many_rows_are_changed_in_every_way() {
    for way in WAYS {
        let table = format!("many_{way:?}").to_lowercase();
        let pool = with_table(&table).await;
        let rows: Vec<_> = (0..1_000).map(|id| (id, Some(format!("name {id}")).filter(|_| id % 2 == 0))).collect();
        let given = rows.iter().map(|(id, name)| [id as &(dyn ToSql + Sync), name]);
        assert_eq!(way.execute_many(&pool, &insert(&table), given).await.unwrap(), 1_000, "{way:?}");
        // The sum of the rows that each statement changed: two, none and one.
        let update = format!("UPDATE {table} SET name = 'x' WHERE id BETWEEN $1 AND $2");
        assert_eq!(way.execute_many(&pool, &update, &[[1, 2], [5, 4], [7, 7]]).await.unwrap(), 3, "{way:?}");
        assert_eq!(way.execute_many(&pool, &update, [[0; 2]; 0]).await.unwrap(), 0, "{way:?}");
        let select = format!("SELECT id FROM {table} WHERE id < $1");
        assert_eq!(way.execute_many(&pool, &select, [[10]]).await.unwrap(), 10, "{way:?}");
        assert_eq!(count(&pool, &table).await, 1_000);
        assert_eq!(pool.breaker().snapshot().counts.failures, 0);
    }
}

#[tokio::test]
async fn without_rows_no_connection_is_taken() {
    let pool = shared("many_none").await.build().unwrap();
    assert_eq!(pool.execute_many("nonsense", [[0; 1]; 0]).await.unwrap(), 0);
    assert_eq!(pool.call().execute_many("nonsense", [[0; 1]; 0]).await.unwrap(), 0);
    assert_eq!(pool.status().in_use + pool.status().idle + pool.status().dialing, 0);
}

#[tokio::test]
async fn statements_without_a_cache_are_prepared_for_each_row() {
    let pool = shared("many_uncached").await.max_size(1).statement_cache(0).build().unwrap();
    pool.batch_execute("CREATE TABLE many_uncached (id int PRIMARY KEY, name text)").await.unwrap();
    for (at, way) in WAYS.into_iter().enumerate() {
        let rows = (0..500).map(|n| [Box::new(at as i32 * 500 + n) as Value, Box::new("x")]);
        assert_eq!(way.execute_many(&pool, &insert("many_uncached"), rows).await.unwrap(), 500);
        let again = (1..2).map(|n| [Box::new(n) as Value, Box::new("x")]);
        let error = way.execute_many(&pool, &insert("many_uncached"), again).await.unwrap_err();
        assert_eq!((error.row(), error.effect()), (Some(0), Effect::NotApplied), "{error}");
    }
    let rows = (2_000..2_500).map(|n| [Box::new(n) as Value, Box::new("x")]);
    assert_eq!(pool.call().uncached().execute_many(&insert("many_uncached"), rows).await.unwrap(), 500);
    assert_eq!(count(&pool, "many_uncached").await, 2_500);
}

/// pgx 374: all was sent before any answer was read, so both sides waited for the other.
#[tokio::test]
async fn large_rows_with_large_answers_pass() {
    let pool = with_table("many_large").await;
    let value = "x".repeat(10_000);
    let rows: Vec<_> = (0..10_100).collect();
    let rows = rows.iter().map(|id| [id as &(dyn ToSql + Sync), &value]);
    let sql = "INSERT INTO many_large VALUES ($1, $2) RETURNING name || name || name";
    assert_eq!(pool.call().deadline(6 * LONG).execute_many(sql, rows).await.unwrap(), 10_100);
}

#[tokio::test]
async fn more_than_a_hundred_thousand_rows_are_inserted() {
    let pool = with_table("many_110k").await;
    let ids: Vec<i32> = (0..110_000).collect();
    let rows = ids.iter().map(|id| [id as &(dyn ToSql + Sync), &"name"]);
    assert_eq!(pool.call().deadline(6 * LONG).execute_many(&insert("many_110k"), rows).await.unwrap(), 110_000);
    assert_eq!(count(&pool, "many_110k").await, 110_000);
}

/// The server refuses row `at`, or the driver does. In flight are also rows behind it.
#[tokio::test]
async fn the_row_that_fails_is_named_and_nothing_is_applied() {
    for way in WAYS {
        let table = format!("failing_{way:?}").to_lowercase();
        let pool = with_table(&table).await;
        for at in [0, 1, 255, 256, 700] {
            let with = |bad: Bad| {
                let row = |n| vec![Box::new(n) as Value, Box::new("x") as Value];
                let rows: Vec<_> = (0..1_000).map(|n| if n == at { bad() } else { row(n) }).collect();
                rows
            };
            let kinds: [(Bad, Option<&SqlState>); 3] = [
                (
                    Box::new(move || vec![Box::new(if at > 0 { 0 } else { 1 }), Box::new("twice")]),
                    Some(&SqlState::UNIQUE_VIOLATION),
                ),
                (Box::new(|| vec![Box::new("text"), Box::new("x")]), None),
                (Box::new(|| vec![Box::new(1)]), None),
            ];
            for (bad, state) in kinds {
                let rows = with(bad);
                // With row 0, it is the second of the two that fails.
                let fails = if at == 0 && state.is_some() { 1 } else { at as u64 };
                let given = rows.iter().map(|row| row.iter().map(|value| &**value as &(dyn ToSql + Sync)));
                let error = way.execute_many(&pool, &insert(&table), given).await.unwrap_err();
                assert_eq!((error.row(), error.sqlstate()), (Some(fails), state), "{way:?} {at}: {error}");
                assert!(error.to_string().starts_with(&format!("row {fails}, counted from 0: ")), "{error}");
                assert!(error.effect() == Effect::NotApplied || way == Way::Transaction, "{way:?} {at}: {error}");
                assert_eq!(count(&pool, &table).await, 0, "{way:?} {at}");
            }
        }
        assert_eq!(pool.breaker().snapshot().counts.failures, 0);
    }
}

/// The server knows nothing of a row that the driver refused, and would commit the rows before.
#[tokio::test]
async fn a_transaction_that_ignores_a_refused_row_is_not_committed() {
    let pool = with_table("many_ignored").await;
    let rows = || (1..3).map(|n| [if n == 1 { Box::new(n) as Value } else { Box::new("text") }, Box::new("x")]);
    let sql = insert("many_ignored");
    let committed = pool.transaction_once(async |tx| {
        let error = tx.execute_many(&sql, rows()).await.unwrap_err();
        assert_eq!(error.row(), Some(1), "{error}");
        Ok::<_, Error>(())
    });
    assert_eq!(committed.await.unwrap_err().kind(), ErrorKind::TransactionAborted);
    // A savepoint may undo them.
    let committed = pool.transaction_once(async |tx| {
        let work = async |tx: failfast::Transaction| tx.execute_many(&sql, rows()).await;
        tx.savepoint(work).await.unwrap_err();
        tx.execute(&sql, &[&7, &"seven"]).await
    });
    assert_eq!(committed.await.unwrap(), 1);
    assert_eq!(count(&pool, "many_ignored").await, 1);
}

#[tokio::test]
async fn a_conflict_runs_all_rows_again() {
    let pool = with_table("many_conflict").await;
    let once = "CREATE SEQUENCE many_conflicts; CREATE FUNCTION many_conflict() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.id = 300 AND nextval('many_conflicts') = 1 THEN
                RAISE 'in the way' USING ERRCODE = '40001';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER conflict BEFORE INSERT ON many_conflict FOR EACH ROW EXECUTE FUNCTION many_conflict()";
    pool.batch_execute(once).await.unwrap();
    let rows = (0..1_000).map(|n| [Box::new(n) as Value, Box::new("x")]);
    let options = TransactionOptions::new().isolation(IsolationLevel::Serializable);
    let call = pool.call().options(options);
    assert_eq!(call.execute_many(&insert("many_conflict"), rows.clone()).await.unwrap(), 1_000);
    assert_eq!(count(&pool, "many_conflict").await, 1_000);
    // Nothing on a guard runs again.
    pool.batch_execute("TRUNCATE many_conflict; SELECT setval('many_conflicts', 1, false)").await.unwrap();
    let error = pool.get().await.unwrap().execute_many(&insert("many_conflict"), rows).await.unwrap_err();
    assert_eq!((error.row(), error.sqlstate().unwrap().code()), (Some(300), "40001"));
    assert_eq!(count(&pool, "many_conflict").await, 0);
}

#[tokio::test]
async fn an_outdated_statement_is_prepared_again() {
    for way in WAYS {
        let table = format!("outdated_{way:?}").to_lowercase();
        let pool = with_table(&table).await;
        let sql = format!("INSERT INTO {table} (id) VALUES ($1) RETURNING *");
        assert_eq!(way.execute_many(&pool, &sql, [[1], [2]]).await.unwrap(), 2);
        Server::shared().await.execute(&format!("ALTER TABLE {table} ADD more int")).await;
        let again = way.execute_many(&pool, &sql, [[3], [4]]).await;
        match way {
            // It may not run again.
            Way::Transaction => assert_eq!(again.unwrap_err().sqlstate().unwrap().code(), "0A000"),
            _ => assert_eq!(again.unwrap(), 2, "{way:?}"),
        }
        assert_eq!(way.execute_many(&pool, &sql, [[5], [6]]).await.unwrap(), 2, "{way:?}");
    }
}

/// The first row finds the statement lost, and then it cannot be prepared.
#[tokio::test]
async fn a_statement_that_cannot_be_prepared_again_is_the_fault_of_no_row() {
    for (table, statements) in [("many_lost", 256), ("many_lost_uncached", 0)] {
        let pool = shared(table).await.max_size(1).statement_cache(statements).build().unwrap();
        pool.batch_execute(&format!("CREATE TABLE {table} (id int)")).await.unwrap();
        let client = pool.get().await.unwrap();
        let sql = format!("INSERT INTO {table} VALUES ($1)");
        assert_eq!(client.execute_many(&sql, [[1], [2]]).await.unwrap(), 2);
        client.batch_execute(&format!("DEALLOCATE ALL; DROP TABLE {table}")).await.unwrap();
        let error = client.execute_many(&sql, [[3], [4]]).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(&SqlState::UNDEFINED_TABLE), "{error}");
        assert!(error.row().is_none() || statements == 0, "{error}");
    }
}

#[tokio::test]
async fn a_commit_that_fails_or_has_no_answer_is_reported() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let pool = Pool::builder(server.config_at(proxy.addr())).name("many_commit").max_size(1).build().unwrap();
    pool.batch_execute("CREATE TABLE many_commit (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)").await.unwrap();
    let sql = "INSERT INTO many_commit VALUES ($1)";
    for way in [Way::Pool, Way::Guard] {
        let deferred = way.execute_many(&pool, sql, [[1], [1]]).await.unwrap_err();
        assert_eq!((deferred.sqlstate(), deferred.row()), (Some(&SqlState::UNIQUE_VIOLATION), None), "{deferred}");
        assert_eq!((deferred.effect(), count(&pool, "many_commit").await), (Effect::NotApplied, 0), "{way:?}");
    }
    for (at, way) in [Way::Pool, Way::Guard].into_iter().enumerate() {
        proxy.arm(Cut::at_text("COMMIT").answer_lost());
        let unknown = way.execute_many(&pool, sql, [[10 * at as i32]]).await.unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::CommitUnknown, "{way:?}: {unknown}");
        crate::support::eventually("the pool serves", LONG, async || pool.query_one("SELECT 1", &[]).await.is_ok())
            .await;
        assert_eq!(count(&pool, "many_commit").await, at as i64 + 1);
    }
}

#[tokio::test]
async fn a_transaction_of_its_own_has_the_connection_to_itself() {
    let pool = with_table("many_alone").await;
    let client = pool.get().await.unwrap();
    let sql = insert("many_alone");
    let rows = |from: i32| (from..from + 1_000).map(|n| [Box::new(n) as Value, Box::new("x")]);
    let (first, second, after) = tokio::join!(
        client.execute_many(&sql, rows(0)),
        client.execute_many(&sql, rows(5_000)),
        client.query_one("SELECT count(*), pg_current_xact_id_if_assigned()::text FROM many_alone", &[]),
    );
    assert_eq!((first.unwrap(), second.unwrap()), (1_000, 1_000));
    let after = after.unwrap();
    assert!(after.get::<_, i64>(0) >= 1_000 && after.get::<_, Option<&str>>(1).is_none(), "{after:?}");
    let (slow, refused) =
        tokio::join!(client.query_one("SELECT pg_sleep(0.1)", &[]), client.execute_many(&sql, rows(10_000)));
    slow.unwrap();
    let refused = refused.unwrap_err();
    assert!(matches!(refused, Error::Busy { reason: BusyReason::InUse, .. }), "{refused}");
    assert!(refused.to_string().contains("execute_many begins a transaction"), "{refused}");

    // In a transaction by hand, the statements belong to it.
    client.batch_execute("BEGIN").await.unwrap();
    assert_eq!(client.execute_many(&sql, rows(20_000)).await.unwrap(), 1_000);
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(client.query_one("SELECT count(*) FROM many_alone", &[]).await.unwrap().get::<_, i64>(0), 2_000);
}

/// Without a cache, the call first learns the types of the parameters, in a transaction of its own.
#[tokio::test]
async fn without_a_cache_no_other_call_gets_into_the_transaction() {
    let pool = shared("many_joined").await.max_size(1).statement_cache(0).build().unwrap();
    pool.batch_execute("CREATE TABLE many_joined (id int PRIMARY KEY, name text)").await.unwrap();
    let client = pool.get().await.unwrap();
    for round in 0..20 {
        // Each text is new, so that its types are unknown.
        let sql = format!("{} -- {round}", insert("many_joined"));
        let rows = (0..1_000).map(|n| [Box::new(if n == 999 { 0 } else { n }) as Value, Box::new("x")]);
        let id = 10_000 + round;
        let params: [&(dyn ToSql + Sync); 1] = [&id];
        let (failed, joined) = tokio::join!(
            client.execute_many(&sql, rows),
            client.execute("INSERT INTO many_joined VALUES ($1, 'joined')", &params),
        );
        assert_eq!(failed.unwrap_err().row(), Some(999), "{round}");
        assert_eq!(joined.unwrap(), 1, "{round}");
        let rows = client.query("SELECT id FROM many_joined ORDER BY id", &[]).await.unwrap();
        let ids: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(ids, (10_000..=10_000 + round).collect::<Vec<_>>(), "only the joined rows are there");
    }
}

/// The table is locked, so the server answers no row.
#[tokio::test]
async fn few_rows_are_sent_ahead() {
    let pool = with_table("many_ahead").await;
    // So that the statement is prepared, and the lock stops only the rows.
    for (call, id) in [(pool.call(), 0), (pool.call().uncached(), 1)] {
        let row = (id..id + 1).map(|n| [Box::new(n) as Value, Box::new("x")]);
        call.execute_many(&insert("many_ahead"), row).await.unwrap();
    }
    let holder = Server::shared().await.admin().await;
    holder.batch_execute("BEGIN; LOCK TABLE many_ahead IN EXCLUSIVE MODE").await.unwrap();
    let taken = AtomicU32::new(0);
    let rows = (0..i32::MAX).map(|n| {
        taken.fetch_add(1, Relaxed);
        [Box::new(n) as Value, Box::new("x")]
    });
    let late = pool.call().deadline(Duration::from_millis(500)).execute_many(&insert("many_ahead"), rows).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::QueryTimeout);
    let few = taken.swap(0, Relaxed);
    assert!((200..300).contains(&few), "{few} rows were taken");
    // Large rows: 4 MiB. Two more are taken to see whether there is any.
    let large = "x".repeat(1 << 20);
    for builder in [pool.call(), pool.call().uncached()] {
        let rows = (0..i32::MAX).map(|n| {
            taken.fetch_add(1, Relaxed);
            [Box::new(n) as Value, Box::new(large.clone())]
        });
        let call = builder.deadline(Duration::from_secs(2));
        let late = call.execute_many(&insert("many_ahead"), rows).await;
        assert_eq!(late.unwrap_err().kind(), ErrorKind::QueryTimeout);
        let few = taken.swap(0, Relaxed);
        assert!((4..8).contains(&few), "{few} rows of 1 MiB were taken");
    }
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(count(&pool, "many_ahead").await, 2);
}

#[tokio::test]
async fn a_guard_is_usable_after_a_row_that_failed() {
    let pool = with_table("many_usable").await;
    let client = pool.get().await.unwrap();
    for at in [0, 100, 299] {
        for is_server in [false, true] {
            let bad = move || if is_server { Box::new(None::<i32>) as Value } else { Box::new("text") };
            let rows = (0..300).map(move |n| [if n == at { bad() } else { Box::new(n) }, Box::new("x")]);
            let error = client.execute_many(&insert("many_usable"), rows).await.unwrap_err();
            assert_eq!(error.row(), Some(at as u64), "{error}");
            let left = client.query_one("SELECT count(*) FROM many_usable", &[]).await.unwrap();
            assert_eq!(left.get::<_, i64>(0), 0, "{at} {is_server}");
            let outside = client.batch_execute("SAVEPOINT only_in_a_transaction").await.unwrap_err();
            assert_eq!(outside.sqlstate().unwrap().code(), "25P01", "{outside}");
        }
    }
}

/// A value that panics.
#[derive(Debug)]
struct Panics;

impl ToSql for Panics {
    fn to_sql(&self, _: &Type, _: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        panic!("a value panics")
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

#[tokio::test]
async fn a_panic_in_a_row_applies_nothing() {
    for way in WAYS {
        for is_value in [false, true] {
            let table = format!("many_panics_{way:?}_{is_value}").to_lowercase();
            let pool = with_table(&table).await;
            let rows = (0..1_000).map(move |n| {
                assert!(is_value || n < 900, "a row panics");
                [if n < 900 { Box::new(n) as Value } else { Box::new(Panics) }, Box::new("x")]
            });
            let (of_the_task, sql) = (pool.clone(), insert(&table));
            let done = tokio::spawn(async move { way.execute_many(&of_the_task, &sql, rows).await });
            assert!(done.await.unwrap_err().is_panic());
            assert_eq!(count(&pool, &table).await, 0, "{way:?} {is_value}");
        }
    }
}

/// A value of an enum, which counts how often it is sent.
#[derive(Debug)]
struct Mood(Arc<AtomicU32>);

impl ToSql for Mood {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        self.0.fetch_add(1, Relaxed);
        out.extend_from_slice(b"glad");
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// The driver may have refused the row because the enum has changed since it was learned. But the rows before it are in
/// the caller's transaction.
#[tokio::test]
async fn after_a_row_that_the_driver_refuses_no_row_is_sent_again_in_the_callers_transaction() {
    let pool = shared("many_again").await.max_size(1).build().unwrap();
    let create = "CREATE TYPE many_mood AS ENUM ('glad'); CREATE TABLE many_again (id int PRIMARY KEY, mood many_mood)";
    pool.batch_execute(create).await.unwrap();
    let sent = Arc::new(AtomicU32::new(0));
    let row = |id: Value| [id, Box::new(Mood(Arc::clone(&sent))) as Value];
    for is_cached in [true, false] {
        let call = || if is_cached { pool.call() } else { pool.call().uncached() };
        // The connection learns the statement.
        let tx = call().get().await.unwrap().transaction().await.unwrap();
        assert_eq!(tx.execute_many(&insert("many_again"), (1..2).map(|id| row(Box::new(id)))).await.unwrap(), 1);
        tx.rollback().await;
        let tx = call().get().await.unwrap().transaction().await.unwrap();
        sent.store(0, Relaxed);
        let rows = (0..5).map(|id| row(if id == 3 { Box::new(i64::from(id)) } else { Box::new(id) }));
        let error = tx.execute_many(&insert("many_again"), rows).await.unwrap_err();
        assert_eq!((error.row(), error.sqlstate()), (Some(3), None), "{is_cached}: {error}");
        assert_eq!(sent.load(Relaxed), 3, "{is_cached}: rows sent");
        assert!(matches!(tx.commit().await, Err(Error::TransactionAborted { .. })));
    }
    assert_eq!(count(&pool, "many_again").await, 0);
}

/// Without a deadline the query timeout bounds each row, and not all of them.
#[tokio::test]
async fn the_query_timeout_is_that_of_each_row() {
    let pool = with_table("many_slow").await;
    let timeout = Duration::from_millis(400);
    let sql = "INSERT INTO many_slow SELECT $1, 'x' FROM pg_sleep($2)";
    let rows = |last: f64| (0..10).map(move |n| [Box::new(n) as Value, Box::new(if n == 9 { last } else { 0.1 })]);
    let late = pool.call().timeout(timeout).execute_many(sql, rows(30.0)).await.unwrap_err();
    assert_eq!((late.kind(), late.effect()), (ErrorKind::QueryTimeout, Effect::NotApplied), "{late}");
    assert_eq!(pool.call().timeout(timeout).execute_many(sql, rows(0.1)).await.unwrap(), 10);
    pool.execute("TRUNCATE many_slow", &[]).await.unwrap();
    let late = pool.call().deadline(timeout).execute_many(sql, rows(0.1)).await.unwrap_err();
    assert_eq!((late.kind(), late.effect()), (ErrorKind::QueryTimeout, Effect::NotApplied), "{late}");
    let client = pool.call().timeout(timeout).get().await.unwrap();
    let late = client.execute_many(sql, rows(30.0)).await.unwrap_err();
    assert_eq!((late.kind(), late.effect()), (ErrorKind::QueryTimeout, Effect::NotApplied), "{late}");
    // The guard is usable again, and in no transaction.
    assert_eq!(client.execute_many(sql, rows(0.1)).await.unwrap(), 10);
    drop(client);
    assert_eq!(count(&pool, "many_slow").await, 10);
}

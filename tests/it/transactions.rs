//! Transactions: their options, savepoints, repeated runs, and handles that are misused.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use failfast::{AbortReason, Client, Effect, Error, IsolationLevel, Pool, Transaction, TransactionOptions};
use tokio::sync::Barrier;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use crate::pool::{LONG, shared};
use crate::support::{eventually, server::Server};

/// Creates a pool, and a table of its own with one row.
async fn table(name: &str) -> Pool {
    let table = format!("CREATE TABLE {name} (id int PRIMARY KEY, n int); INSERT INTO {name} VALUES (1, 0)");
    Server::shared().await.execute(&table).await;
    shared(name).await.max_size(2).build().unwrap()
}

async fn ids(table: &str) -> String {
    Server::shared().await.scalar(&format!("SELECT string_agg(id::text, ',' ORDER BY id) FROM {table}")).await
}

fn aborted(result: Result<(), Error>) -> AbortReason {
    match result {
        Err(Error::TransactionAborted { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

async fn fail(tx: &Transaction) -> Error {
    tx.batch_execute("SELECT 1/0").await.unwrap_err()
}

#[tokio::test]
async fn a_transaction_begins_with_its_options() {
    let pool = shared("options").await.build().unwrap();
    let show = async |options: TransactionOptions| {
        let show = |tx: Transaction| async move {
            let settings =
                "SELECT current_setting('transaction_isolation') || ' ' || current_setting('transaction_read_only')
                || ' ' || current_setting('transaction_deferrable')";
            Ok::<_, Error>(tx.query_one(settings, &[]).await?.get::<_, String>(0))
        };
        pool.call().options(options).transaction(show).await.unwrap()
    };
    let options = TransactionOptions::new();
    assert_eq!(show(options).await, "read committed off off");
    assert_eq!(show(options.isolation(IsolationLevel::ReadUncommitted)).await, "read uncommitted off off");
    assert_eq!(show(options.isolation(IsolationLevel::ReadCommitted).read_only(true)).await, "read committed on off");
    assert_eq!(
        show(options.isolation(IsolationLevel::RepeatableRead).read_only(false)).await,
        "repeatable read off off"
    );
    let reporting = options.isolation(IsolationLevel::Serializable).read_only(true).deferrable(true);
    assert_eq!(show(reporting).await, "serializable on on");
    let refused = pool.call().options(options.read_only(true));
    let refused = refused.transaction_once(async |tx| tx.batch_execute("CREATE TABLE refused ()").await).await;
    assert_eq!(refused.unwrap_err().sqlstate(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));
}

#[tokio::test]
async fn savepoints_nest_and_undo_only_their_failures() {
    let pool = table("nested").await;
    let work = async |tx: Transaction| {
        tx.batch_execute("INSERT INTO nested VALUES (2)").await?;
        tx.savepoint(async |outer| {
            outer.batch_execute("INSERT INTO nested VALUES (3)").await?;
            let inner = outer
                .savepoint(async |inner| {
                    inner.batch_execute("INSERT INTO nested VALUES (4)").await?;
                    Err::<(), _>(fail(&inner).await)
                })
                .await;
            assert!(matches!(inner, Err(Error::Postgres { .. })), "{inner:?}");
            outer.batch_execute("INSERT INTO nested VALUES (5)").await
        })
        .await?;
        let undone = tx
            .savepoint(async |outer| {
                outer.savepoint(async |inner| inner.batch_execute("INSERT INTO nested VALUES (6)").await).await?;
                Err::<(), _>(fail(&outer).await)
            })
            .await;
        assert!(matches!(undone, Err(Error::Postgres { .. })), "{undone:?}");
        tx.batch_execute("INSERT INTO nested VALUES (7)").await
    };
    pool.transaction_once(work).await.unwrap();
    assert_eq!(ids("nested").await, "1,2,3,5,7");
}

#[tokio::test]
async fn a_savepoint_does_not_undo_an_earlier_failure() {
    let pool = table("forgiven").await;
    let work = async |tx: Transaction| {
        tx.batch_execute("INSERT INTO forgiven VALUES (2)").await?;
        fail(&tx).await;
        assert!(tx.savepoint(async |_| Ok::<_, Error>(())).await.is_err());
        Ok(())
    };
    assert!(matches!(aborted(pool.transaction_once(work).await), AbortReason::Failed { .. }));
    assert_eq!(ids("forgiven").await, "1");
}

#[tokio::test]
async fn a_statement_that_timed_out_in_a_savepoint_is_undone_with_it() {
    let pool = table("late").await;
    let call = pool.call().timeout(Duration::from_millis(300));
    let work = async |tx: Transaction| {
        let late =
            tx.savepoint(async |tx| tx.batch_execute("INSERT INTO late VALUES (2); SELECT pg_sleep(60)").await).await;
        assert!(matches!(late, Err(Error::QueryTimeout { effect: Effect::NotApplied, .. })), "{late:?}");
        tx.batch_execute("INSERT INTO late VALUES (3)").await
    };
    call.transaction_once(work).await.unwrap();
    assert_eq!(ids("late").await, "1,3");
}

#[tokio::test]
async fn a_dropped_savepoint_aborts_the_transaction() {
    let pool = table("pieces").await;
    let work = async |tx: Transaction| {
        let savepoint = tx.savepoint(async |tx| {
            tx.batch_execute("INSERT INTO pieces VALUES (2)").await?;
            std::future::pending::<Result<(), Error>>().await
        });
        assert!(timeout(Duration::from_millis(200), savepoint).await.is_err());
        tx.batch_execute("INSERT INTO pieces VALUES (3)").await
    };
    assert!(matches!(aborted(pool.transaction_once(work).await), AbortReason::Failed { .. }));
    assert_eq!(ids("pieces").await, "1");
}

/// As documented: for the server, every statement that arrives while a savepoint is open belongs to it.
#[tokio::test]
async fn a_statement_beside_a_savepoint_is_undone_with_it() {
    let pool = table("beside_savepoint").await;
    let work = async |tx: Transaction| {
        let savepoint = tx.savepoint(async |tx| {
            tx.query("SELECT pg_sleep(0.05)", &[]).await?;
            Err::<(), _>(fail(&tx).await)
        });
        let insert = tx.batch_execute("INSERT INTO beside_savepoint VALUES (2)");
        let (undone, inserted) = tokio::join!(biased; savepoint, insert);
        assert!(undone.is_err() && inserted.is_ok());
        tx.batch_execute("INSERT INTO beside_savepoint VALUES (3)").await
    };
    pool.transaction_once(work).await.unwrap();
    assert_eq!(ids("beside_savepoint").await, "1,3");
}

#[tokio::test]
async fn a_handle_that_escapes_cannot_write() {
    let pool = table("escaped").await;
    let escaped = Mutex::new(None);
    let work = async |tx: Transaction| {
        tx.batch_execute("UPDATE escaped SET n = 1").await?;
        *escaped.lock().unwrap() = Some(tx.clone());
        Ok(())
    };
    let committed: Result<(), Error> = pool.transaction_once(work).await;
    assert_eq!(committed.as_ref().unwrap_err().effect(), Effect::NotApplied);
    assert!(matches!(aborted(committed), AbortReason::InUse));
    // The transaction's locks are free, although the handle still exists.
    let update = "SET lock_timeout = '10s'; UPDATE escaped SET n = 2";
    Server::shared().await.execute(update).await;
    let escaped = escaped.into_inner().unwrap().unwrap();
    assert!(escaped.batch_execute("UPDATE escaped SET n = 3").await.is_err());
    assert!((*escaped).batch_execute("UPDATE escaped SET n = 3").await.is_err());
    assert_eq!(escaped.commit().await.unwrap_err().effect(), Effect::NotApplied);
    assert_eq!(Server::shared().await.scalar("SELECT n FROM escaped").await, "2");
    eventually("the slot is free", LONG, async || pool.status().in_use == 0).await;
}

#[tokio::test]
async fn a_transaction_ended_by_hand_is_not_reported_as_committed() {
    let pool = table("by_hand").await;
    for end in ["COMMIT", "ROLLBACK"] {
        let ended: Result<(), Error> = pool.transaction_once(async |tx| tx.batch_execute(end).await).await;
        assert_eq!(ended.as_ref().unwrap_err().effect(), Effect::Unknown);
        assert!(matches!(aborted(ended), AbortReason::EndedByHand), "{end}");
    }
}

/// Fails with a conflict: another transaction changes the row after `tx` has read it.
async fn conflict(tx: &Transaction) -> Result<(), Error> {
    tx.query("SELECT n FROM conflicts", &[]).await?;
    Server::shared().await.execute("UPDATE conflicts SET n = n + 1").await;
    tx.batch_execute("UPDATE conflicts SET n = n + 100").await
}

#[tokio::test]
async fn a_transaction_with_a_conflict_runs_again_as_a_whole() {
    let pool = table("conflicts").await;
    let call = pool.call().options(TransactionOptions::new().isolation(IsolationLevel::RepeatableRead));
    let runs = AtomicU32::new(0);
    let n = async || Server::shared().await.scalar("SELECT n FROM conflicts").await;

    let once = call
        .transaction_once(async |tx| {
            runs.fetch_add(1, SeqCst);
            conflict(&tx).await
        })
        .await;
    let once = once.unwrap_err();
    assert_eq!((once.sqlstate(), once.effect()), (Some(&SqlState::T_R_SERIALIZATION_FAILURE), Effect::NotApplied));
    assert_eq!((runs.swap(0, SeqCst), n().await.as_str()), (1, "1"));

    let always = call.transaction(|tx| {
        runs.fetch_add(1, SeqCst);
        async move { conflict(&tx).await }
    });
    assert_eq!(always.await.unwrap_err().sqlstate(), Some(&SqlState::T_R_SERIALIZATION_FAILURE));
    assert_eq!((runs.swap(0, SeqCst), n().await.as_str()), (3, "4"));

    // The pool runs the transaction again, even if the closure swallows the error.
    let swallowed = call.transaction(|tx| {
        let is_first = runs.fetch_add(1, SeqCst) == 0;
        async move {
            if is_first {
                assert!(conflict(&tx).await.is_err());
                return Ok(());
            }
            tx.batch_execute("UPDATE conflicts SET n = n + 100").await
        }
    });
    swallowed.await.unwrap();
    assert_eq!((runs.swap(0, SeqCst), n().await.as_str()), (2, "105"));

    // The savepoint undid the conflict. The other error that follows is no reason to run again.
    let business = call.transaction(|tx| {
        runs.fetch_add(1, SeqCst);
        async move {
            assert!(tx.savepoint(async |tx| conflict(&tx).await).await.is_err());
            Err::<(), Error>(Error::Closed)
        }
    });
    assert!(matches!(business.await, Err(Error::Closed)));
    assert_eq!((runs.into_inner(), n().await.as_str()), (1, "106"));
}

#[tokio::test]
async fn a_transaction_with_a_deadlock_runs_again() {
    let pool = table("deadlock").await;
    Server::shared().await.execute("INSERT INTO deadlock VALUES (2, 0)").await;
    let (runs, both) = (AtomicU32::new(0), Barrier::new(2));
    let cross = async |first: i32, second: i32| {
        let tries = AtomicU32::new(0);
        pool.transaction(|tx| {
            runs.fetch_add(1, SeqCst);
            let (both, is_first) = (&both, tries.fetch_add(1, SeqCst) == 0);
            async move {
                tx.batch_execute("SET LOCAL deadlock_timeout = '20ms'").await?;
                tx.execute("UPDATE deadlock SET n = n + 1 WHERE id = $1", &[&first]).await?;
                if is_first {
                    both.wait().await;
                }
                tx.execute("UPDATE deadlock SET n = n + 1 WHERE id = $1", &[&second]).await
            }
        })
        .await
    };
    let (one, other) = tokio::join!(cross(1, 2), cross(2, 1));
    assert_eq!((one.unwrap(), other.unwrap()), (1, 1));
    assert_eq!(runs.load(SeqCst), 3);
    assert_eq!(Server::shared().await.scalar("SELECT sum(n) FROM deadlock").await, "4");
}

/// Two transactions that do not touch the same rows, but whose result no serial order would give.
#[tokio::test]
async fn a_transaction_with_a_conflict_at_commit_runs_again() {
    let pool = table("skew").await;
    let call = pool.call().options(TransactionOptions::new().isolation(IsolationLevel::Serializable));
    let (runs, both) = (AtomicU32::new(0), Barrier::new(2));
    let insert = async |id: i32| {
        let tries = AtomicU32::new(0);
        call.transaction(|tx| {
            runs.fetch_add(1, SeqCst);
            let (both, is_first) = (&both, tries.fetch_add(1, SeqCst) == 0);
            async move {
                let count: i64 = tx.query_one("SELECT count(*) FROM skew", &[]).await?.get(0);
                if is_first {
                    both.wait().await;
                }
                let count = i32::try_from(count).unwrap();
                tx.execute("INSERT INTO skew VALUES ($1, $2)", &[&id, &count]).await
            }
        })
        .await
    };
    let (one, other) = tokio::join!(insert(2), insert(3));
    assert_eq!((one.unwrap(), other.unwrap()), (1, 1));
    assert_eq!(runs.load(SeqCst), 3);
    assert_eq!(Server::shared().await.scalar("SELECT string_agg(n::text, ',' ORDER BY n) FROM skew").await, "0,1,2");
}

fn panics(inserted: Result<(), Error>) -> Result<(), Error> {
    panic!("a closure that panics: {inserted:?}")
}

#[tokio::test]
async fn a_panic_in_a_closure_is_rolled_back_and_the_connection_serves_the_next_caller() {
    const INSERT: &str = "INSERT INTO panicked VALUES (2)";
    Server::shared().await.execute("CREATE TABLE panicked (id int PRIMARY KEY); INSERT INTO panicked VALUES (1)").await;
    let pool = shared("panicked").await.max_size(1).acquire_timeout(LONG).build().unwrap();
    let session = async || pool.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0);
    let before = session().await;

    let calling = pool.clone();
    let transaction = tokio::spawn(async move {
        let work = |tx: Transaction| async move {
            let inserted = tx.batch_execute(INSERT).await;
            panics(inserted)
        };
        calling.transaction(work).await
    });
    assert!(transaction.await.unwrap_err().is_panic());
    assert_eq!((session().await, ids("panicked").await.as_str()), (before, "1"));

    let calling = pool.clone();
    let run = tokio::spawn(async move {
        let work = |client: Client| async move {
            let inserted = client.batch_execute(&format!("BEGIN; {INSERT}")).await;
            panics(inserted)
        };
        calling.run(work).await
    });
    assert!(run.await.unwrap_err().is_panic());
    assert_eq!((session().await, ids("panicked").await.as_str()), (before, "1"));
    // The pool itself may hold it for a round trip.
    eventually("nothing is leaked", LONG, async || {
        let status = pool.status();
        (status.idle, status.in_use, status.waiting) == (1, 0, 0)
    })
    .await;
}

//! The answer to a COMMIT, or to a write without a transaction, never comes. No caller learns that the write failed,
//! and the pool never runs it twice.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use failfast::{Effect, Error, Pool};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use super::LONG;
use super::deadpool::{bare, said};
use crate::support::{
    eventually,
    proxy::{Cut, Proxy},
    server::Server,
};

/// Cuts before COMMIT reaches the server, and after.
fn cuts() -> [Cut; 2] {
    [Cut::at_text("COMMIT"), Cut::at_text("COMMIT").answer_lost()]
}

#[tokio::test]
async fn case_04_a_commit_cut_off_is_unknown() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let config = server.config_at(proxy.addr());
    let pool = Pool::builder(config.clone()).name("case_04").build().unwrap();
    pool.batch_execute("CREATE TABLE case_04 (id int)").await.unwrap();
    for (cut, there) in cuts().into_iter().zip(["0", "1"]) {
        let runs = AtomicU32::new(0);
        proxy.arm(cut.clone());
        let committed = pool
            .transaction(|tx| {
                runs.fetch_add(1, SeqCst);
                async move { tx.execute("INSERT INTO case_04 VALUES (1)", &[]).await }
            })
            .await;
        assert!(matches!(committed, Err(Error::CommitUnknown { .. })), "{committed:?}");
        assert_eq!((committed.as_ref().unwrap_err().effect(), runs.into_inner()), (Effect::Unknown, 1));
        assert_eq!(server.scalar("SELECT count(*) FROM case_04").await, there);

        let mut client = bare(config.clone(), "unknown", 1).get().await.unwrap();
        let tx = client.transaction().await.unwrap();
        proxy.arm(cut);
        let bare = tx.commit().await;
        println!("case 04: failfast: {}; deadpool: {}", committed.unwrap_err(), said(&bare));
        assert!(bare.is_err());
    }
}

/// The caller commits by a prepared COMMIT, not by its text.
#[tokio::test]
async fn case_04_a_prepared_commit_cut_off_is_unknown() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let pool = Pool::builder(server.config_at(proxy.addr())).name("case_04_by_hand").build().unwrap();
    pool.batch_execute("CREATE TABLE case_04_by_hand (id int)").await.unwrap();
    let tx = pool.get().await.unwrap().transaction().await.unwrap();
    tx.execute("INSERT INTO case_04_by_hand VALUES (1)", &[]).await.unwrap();
    let commit = tx.prepare("COMMIT").await.unwrap();
    proxy.arm(Cut::at_message(b'E').answer_lost());
    let lost = tx.execute(&commit, &[]).await.unwrap_err();
    assert_eq!(lost.effect(), Effect::Unknown, "{lost}");
    let is_there = async || server.scalar("SELECT count(*) FROM case_04_by_hand").await == "1";
    eventually("the server has committed the transaction", LONG, is_there).await;
}

#[tokio::test]
async fn case_05_an_idempotency_key_makes_the_second_attempt_harmless() {
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let config = server.config_at(proxy.addr());
    let pool = Pool::builder(config.clone()).name("case_05").build().unwrap();
    let table = "(key text PRIMARY KEY, cents int)";
    pool.batch_execute(&format!("CREATE TABLE case_05 {table}; CREATE TABLE case_05_bare {table}")).await.unwrap();
    let bare = bare(config, "case_05", 1);
    for (key, cut) in ["not sent", "answer lost"].into_iter().zip(cuts()) {
        let new = if key == "not sent" { 1 } else { 0 };
        let pay = async || {
            pool.transaction(|tx| async move {
                tx.execute("INSERT INTO case_05 VALUES ($1, 100) ON CONFLICT DO NOTHING", &[&key]).await
            })
            .await
        };
        proxy.arm(cut.clone());
        let first = pay().await;
        assert!(matches!(first, Err(Error::CommitUnknown { .. })), "{first:?}");
        assert_eq!(pay().await.unwrap(), new);

        let pay_bare = async || {
            let mut client = bare.get().await.unwrap();
            let tx = client.transaction().await?;
            let paid = tx.execute("INSERT INTO case_05_bare VALUES ($1, 100) ON CONFLICT DO NOTHING", &[&key]).await?;
            tx.commit().await.map(|()| paid)
        };
        proxy.arm(cut);
        let first_bare = pay_bare().await;
        println!("case 05: {key}: failfast: {}; deadpool: {}", first.unwrap_err(), said(&first_bare));
        assert!(first_bare.is_err());
        assert_eq!(pay_bare().await.unwrap(), new);
    }
    let effects = async |table| server.scalar(&format!("SELECT count(*) || ' ' || sum(cents) FROM {table}")).await;
    let (ours, bares) = (effects("case_05").await, effects("case_05_bare").await);
    println!("case 05: payments and cents after the second tries of both: failfast: {ours}; deadpool: {bares}");
    assert_eq!((ours.as_str(), bares.as_str()), ("2 200", "2 200"));
}

#[tokio::test]
async fn case_17_a_write_in_flight_at_an_immediate_stop_is_not_run_again() {
    let mut server = Server::own(&[]).await;
    server.execute("CREATE TABLE case_17 (id int)").await;
    let pool = Pool::builder(server.config()).name("case_17").build().unwrap();
    let insert = "INSERT INTO case_17 SELECT 1 FROM pg_sleep(600)";
    let calls = async {
        let bare = bare(server.config(), "unknown", 1).get().await.unwrap();
        let unbounded = pool.call().timeout(6 * LONG);
        tokio::join!(unbounded.execute(insert, &[]), bare.execute(insert, &[]))
    };
    let running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let stop = async {
        eventually("both run", LONG, async || server.scalar(running).await == "2").await;
        server.exec("(sleep 0.1; kill -QUIT 1) >/dev/null 2>&1 &").await;
        Instant::now()
    };
    let ((ours, bares), stopped) = timeout(5 * LONG, async { tokio::join!(calls, stop) }).await.unwrap();
    assert!(stopped.elapsed() < LONG, "the call waited for another attempt");
    let ours = ours.unwrap_err();
    println!("case 17: failfast: {ours}; deadpool: {}", said(&bares));
    assert_eq!((ours.sqlstate(), ours.effect()), (Some(&SqlState::ADMIN_SHUTDOWN), Effect::Unknown), "{ours}");
    assert!(bares.is_err());

    server.stop().await;
    server.start().await;
    let served = async || pool.call().deadline(LONG).query_one("SELECT count(*) FROM case_17", &[]).await;
    eventually("the pool serves again", LONG, async || served().await.is_ok()).await;
    assert_eq!(served().await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn case_24_a_commit_that_waits_for_a_standby_is_never_cancelled() {
    let server = Server::own(&[("synchronous_standby_names", "nobody")]).await;
    server.execute("SET synchronous_commit = local; CREATE TABLE case_24 (id int)").await;
    let pool = Pool::builder(server.config()).name("case_24").max_size(1).build().unwrap();
    let runs = AtomicU32::new(0);
    let committed = pool
        .call()
        .timeout(Duration::from_secs(1))
        .transaction(|tx| {
            runs.fetch_add(1, SeqCst);
            async move { tx.execute("INSERT INTO case_24 VALUES (1)", &[]).await }
        })
        .await;
    assert!(matches!(committed, Err(Error::CommitUnknown { .. })), "{committed:?}");
    assert_eq!(runs.into_inner(), 1);
    // The pool serves another call while the COMMIT still waits.
    let row = pool.call().deadline(LONG).query_one("SELECT count(*) FROM case_24", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query = 'COMMIT'";
    assert_eq!(server.scalar(waiting).await, "1");

    let bare = bare(server.config(), "unknown", 1);
    let mut client = bare.get().await.unwrap();
    let commit = async {
        let tx = client.transaction().await.unwrap();
        tx.execute("INSERT INTO case_24 VALUES (1)", &[]).await.unwrap();
        tx.commit().await
    };
    let first = timeout(Duration::from_secs(1), commit).await.is_err();
    drop(client);
    let next = async { bare.get().await.unwrap().query("SELECT 1", &[]).await.unwrap() };
    let next = timeout(Duration::from_secs(1), next).await.is_err();
    println!(
        "case 24: failfast: {}; deadpool: waits: {first}, so does the next caller: {next}",
        committed.unwrap_err()
    );
    assert!(first && next);
}

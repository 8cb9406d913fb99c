//! Failover behind one name. The name leads to another server, and the earlier sessions become useless or harmful.

use std::time::{Duration, Instant};

use failfast::{Effect, Error, Pool};
use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use super::LONG;
use crate::cases::deadpool::bare;
use crate::support::{eventually, proxy::Proxy, server::Server};

const WRITTEN_AGAIN: Duration = Duration::from_millis(1_500);

/// Starts a primary with a table, and its standby.
async fn pair(table: &str) -> (Server, Server) {
    let primary = Server::own(&[]).await;
    primary.execute(&format!("CREATE TABLE {table} (id int)")).await;
    let standby = Server::standby(&primary, &[]).await;
    let count = format!("SELECT count(*) FROM pg_class WHERE relname = '{table}'");
    eventually("the standby has replayed the table", LONG, async || standby.scalar(&count).await == "1").await;
    (primary, standby)
}

#[tokio::test(flavor = "multi_thread")]
async fn case_18_the_pool_leaves_a_primary_that_returns_as_a_standby() {
    let (primary, standby) = pair("case_18").await;
    let proxy = Proxy::start(standby.addr()).await;
    let pool = Pool::builder(primary.config_at(proxy.addr())).name("case_18").max_size(4).build().unwrap();
    pool.warm_up(4, LONG).await.unwrap();
    let held = pool.get().await.unwrap();
    held.query_one("SELECT 1", &[]).await.unwrap();
    let deadpool = bare(primary.config_at(proxy.addr()), "case_18", 1);
    drop(deadpool.get().await.unwrap());
    proxy.switch(primary.addr());
    assert_eq!(standby.connection_count("case_18").await, 4);
    let bare_18 = async {
        let mut refused = 0;
        for _ in 0..10 {
            let client = deadpool.get().await.unwrap();
            refused += usize::from(client.execute("INSERT INTO case_18 VALUES (2)", &[]).await.is_err());
        }
        format!("{refused} of 10 writes refused")
    };

    let begun = Instant::now();
    assert_eq!(pool.execute("INSERT INTO case_18 VALUES (1)", &[]).await.unwrap(), 1);
    println!(
        "case 18: failfast: written to the new primary after {:.0?}; deadpool: {}",
        begun.elapsed(),
        bare_18.await
    );
    eventually("the idle connections are closed", LONG, async || standby.connection_count("case_18").await == 1).await;
    drop(held);
    eventually("the lease is closed", LONG, async || standby.connection_count("case_18").await == 0).await;
    assert_eq!(primary.scalar("SELECT count(*) FROM case_18").await, "1");
}

/// The caller only wanted to read, so its error is no sign of a failover.
#[tokio::test]
async fn a_write_in_a_read_only_transaction_flushes_nothing() {
    let pool = super::shared("reads").await.max_size(1).build().unwrap();
    let client = pool.get().await.unwrap();
    let pid = client.process_id();
    client.batch_execute("BEGIN READ ONLY").await.unwrap();
    let error = client.execute("CREATE TABLE never (id int)", &[]).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.effect()), (Some(&SqlState::READ_ONLY_SQL_TRANSACTION), Effect::NotApplied));
    client.batch_execute("ROLLBACK").await.unwrap();
    drop(client);
    assert_eq!(pool.get().await.unwrap().process_id(), pid);
}

/// The caller set its session to read-only, so its error is no sign of a failover.
#[tokio::test]
async fn a_write_in_a_read_only_session_flushes_nothing() {
    let pool = super::shared("reads_only").await.max_size(2).build().unwrap();
    pool.warm_up(2, LONG).await.unwrap();
    for sql in ["SET default_transaction_read_only = on", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"] {
        let (client, other) = (pool.get().await.unwrap(), pool.get().await.unwrap());
        let mut pids = [client.process_id(), other.process_id()];
        client.batch_execute(sql).await.unwrap();
        let error = client.execute("CREATE TABLE never (id int)", &[]).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));
        drop((client, other));
        eventually("the pool has reset both connections", LONG, async || pool.status().idle == 2).await;
        let (client, other) = (pool.get().await.unwrap(), pool.get().await.unwrap());
        let mut pids_after = [client.process_id(), other.process_id()];
        pids.sort();
        pids_after.sort();
        assert_eq!(pids, pids_after);
        client.execute("CREATE TEMP TABLE now_it_may (id int) ON COMMIT DROP", &[]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn case_19_a_standby_that_is_promoted_is_written_to_without_reconnecting() {
    let (primary, standby) = pair("case_19").await;
    let both = Pool::builder(standby.config()).name("case_19").max_size(1).build().unwrap();
    let readers = standby.config_with(&format!(
        "host={} port={} target_session_attrs=read-only",
        standby.addr().ip(),
        standby.addr().port()
    ));
    // An idle session learns of the promotion with its next answer, even the answer to a health check.
    let builder = Pool::builder(readers).name("case_19_readers").max_size(2);
    let readers = builder.health_check_after(Duration::from_millis(200)).build().unwrap();
    readers.warm_up(2, LONG).await.unwrap();
    let pid = both.get().await.unwrap().process_id();
    let refused = both.call().uncached().execute("INSERT INTO case_19 VALUES (0)", &[]).await.unwrap_err();
    assert_eq!(refused.effect(), Effect::NotApplied, "{refused}");
    eventually("the pool has a new connection", LONG, async || both.get().await.is_ok()).await;
    let pid_before = both.get().await.unwrap().process_id();
    assert_ne!(pid, pid_before, "the pool kept the connection, although it might lead to another host");

    let deadpool = bare(standby.config(), "case_19", 1);
    drop(deadpool.get().await.unwrap());
    drop(primary);
    standby.execute("SELECT pg_promote()").await;
    let theirs = deadpool.get().await.unwrap().execute("INSERT INTO case_19 VALUES (2)", &[]).await;
    println!("case 19: deadpool writes: {}", theirs.is_ok());
    both.execute("INSERT INTO case_19 VALUES (1)", &[]).await.unwrap();
    assert_eq!(both.get().await.unwrap().process_id(), pid_before);
    let is_left = async || standby.connection_count("case_19_readers").await == 0;
    eventually("the pool for standbys leaves the new primary", LONG, is_left).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_succeed_as_soon_as_the_name_leads_to_the_new_primary() {
    let (primary, standby) = pair("failover").await;
    let proxy = Proxy::start(primary.addr()).await;
    let config = primary.config_with(&format!(
        "host={} port={} target_session_attrs=read-write",
        proxy.addr().ip(),
        proxy.addr().port()
    ));
    let pool = Pool::builder(config).name("failover").max_size(8).min_idle(4).build().unwrap();
    pool.warm_up(8, LONG).await.unwrap();
    let write = async |id: i32| pool.execute("INSERT INTO failover VALUES ($1)", &[&id]).await;
    write(0).await.unwrap();
    let replayed = async || standby.scalar("SELECT count(*) FROM failover").await == "1";
    eventually("the standby has replayed the row", LONG, replayed).await;
    let held = pool.get().await.unwrap();

    // The old primary keeps running and refuses writes. It reports this to its sessions.
    primary.execute("ALTER SYSTEM SET default_transaction_read_only = on").await;
    primary.execute("SELECT pg_reload_conf()").await;
    standby.execute("SELECT pg_promote()").await;
    let mut failed = Vec::new();
    for id in 1..=20 {
        failed.extend(write(id).await.err());
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(failed.len(), 20, "a write succeeded without a primary");
    assert!(failed.iter().all(|error| error.effect() == Effect::NotApplied), "{failed:?}");

    proxy.switch(standby.addr());
    let switched = Instant::now();
    eventually("a write succeeds", LONG, async || write(100).await.is_ok()).await;
    let after = switched.elapsed();
    println!("failover: first write {after:.0?} after the switch");
    assert!(after <= WRITTEN_AGAIN, "{after:?}");
    for id in 101..200 {
        write(id).await.unwrap();
    }
    drop(held);
    let is_left = async || primary.connection_count("failover").await == 0;
    eventually("the pool leaves the old primary", LONG, is_left).await;
    assert_eq!(primary.scalar("SELECT count(*) FROM failover").await, "1", "the old primary got a write");
    assert_eq!(standby.scalar("SELECT count(*) FROM failover").await, "101");
}

/// The pool tries hosts that refuse last.
#[tokio::test]
async fn a_host_that_refuses_costs_the_next_dials_nothing() {
    let server = Server::shared().await;
    let silent = Proxy::start(server.addr()).await;
    let (first, second) = (silent.addr(), server.addr());
    let config =
        server.config_with(&format!("host={},{} port={},{}", first.ip(), second.ip(), first.port(), second.port()));
    silent.refuse().await;
    let pool = Pool::builder(config).name("refusing").max_size(8).build().unwrap();
    pool.warm_up(1, LONG).await.unwrap();
    silent.accept().await;
    let before = silent.accepted();
    pool.warm_up(8, LONG).await.unwrap();
    assert_eq!(silent.accepted(), before, "a dial did not go to the host that is known to serve");
    let gone: Result<_, Error> = pool.query_one("SELECT 1", &[]).await;
    gone.unwrap();
}

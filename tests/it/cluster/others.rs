//! What the suites of libpq, pgx, Npgsql and pgJDBC try with several hosts, tried with a cluster: every order of the
//! hosts, hosts that are dead, unknown or refuse the password, a primary that is read-only, standbys of standbys.

use std::collections::BTreeMap;
use std::time::Instant;

use failfast::{Cluster, ClusterBuilder, Config, ErrorKind, EventKind, Freshness, Role};
use tokio_postgres::error::SqlState;

use super::{SECOND, SERVED_BY, Seen, address, builder, is_complete};
use crate::pool::LONG;
use crate::support::cluster::Replicated;
use crate::support::{eventually, free_port};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS written (n int)";
const INSERT: &str = "INSERT INTO written VALUES (1)";
const IS_REPLICA: &str = "SELECT pg_is_in_recovery()";

/// A host at which nobody listens.
const DEAD: usize = usize::MAX;

/// The settings of a cluster of these nodes, in this order.
fn of(nodes: &Replicated, order: &[usize]) -> ClusterBuilder {
    let place = |node: &usize| match *node {
        DEAD => ("127.0.0.1".to_owned(), free_port()),
        node => (nodes.node(node).addr().ip().to_string(), nodes.node(node).addr().port()),
    };
    let (hosts, ports): (Vec<_>, Vec<_>) = order.iter().map(place).map(|(host, port)| (host, port.to_string())).unzip();
    listed(nodes, &hosts.join(","), &ports.join(","))
}

fn listed(nodes: &Replicated, hosts: &str, ports: &str) -> ClusterBuilder {
    let config: Config = nodes.node(0).config_with(&format!("host={hosts} port={ports}"));
    Cluster::builder(config).pool(|pool| pool.name("orders").max_size(10))
}

async fn is_replica(cluster: &Cluster, freshness: Freshness) -> bool {
    cluster.call().read(freshness).query_one(IS_REPLICA, &[]).await.unwrap().get(0)
}

/// Writes find the primary and reads a replica, in whichever order they are listed, with a dead host among them.
#[tokio::test(flavor = "multi_thread")]
async fn each_order_of_the_hosts_will_do() {
    let nodes = Replicated::start(1).await;
    nodes.primary().execute(CREATE).await;
    for order in [[0, 1, DEAD], [0, DEAD, 1], [1, 0, DEAD], [1, DEAD, 0], [DEAD, 0, 1], [DEAD, 1, 0]] {
        let cluster = of(&nodes, &order).build().unwrap();
        let begun = Instant::now();
        cluster.execute(INSERT, &[]).await.unwrap();
        assert!(begun.elapsed() < SECOND * 2, "{order:?}: {:?}", begun.elapsed());
        cluster.warm_up(0, LONG).await.unwrap();
        assert!(is_replica(&cluster, Freshness::Any).await, "{order:?}");
        let row = cluster.query_one(IS_REPLICA, &[]).await.unwrap();
        assert!(!row.get::<_, bool>(0), "{order:?}");
    }
    assert_eq!(nodes.primary().scalar("SELECT count(*) FROM written").await, "6");
}

/// As `prefer-standby`: without a standby, the primary serves reads, unless its owner forbids it.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_standby_the_primary_serves_reads_if_it_may() {
    let nodes = Replicated::start(0).await;
    let cluster = of(&nodes, &[DEAD, 0, DEAD]).build().unwrap();
    assert!(!is_replica(&cluster, Freshness::Any).await);
    let cluster = of(&nodes, &[DEAD, 0, DEAD]).spill(0.0).build().unwrap();
    let error = cluster.call().read(Freshness::Any).query_one(IS_REPLICA, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoFreshReplica, "{error}");
    cluster.batch_execute(CREATE).await.unwrap();
}

/// As `primary` with standbys only, and with no host that answers at all. The error says of each host what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_without_a_primary_says_of_each_host_why() {
    let nodes = Replicated::start(2).await;
    let cluster = of(&nodes, &[1, DEAD, 2]).build().unwrap();
    let error = cluster.execute(INSERT, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoPrimary, "{error}");
    let hosts: Vec<_> = cluster.hosts().iter().map(|host| host.host.to_string()).collect();
    let text = error.to_string();
    for part in [format!("{} is a replica", hosts[0]), format!("{}: ", hosts[1]), "refused".to_owned()] {
        assert!(text.contains(&part), "{part} is not in {text}");
    }
    assert!(is_replica(&cluster, Freshness::Any).await);

    let cluster = of(&nodes, &[DEAD, DEAD]).build().unwrap();
    let begun = Instant::now();
    let text = cluster.execute(INSERT, &[]).await.unwrap_err().to_string();
    assert_eq!(text.matches("refused").count(), 2, "{text}");
    assert!(begun.elapsed() < SECOND * 2, "{:?}", begun.elapsed());
    let read = cluster.call().read(Freshness::Any).query(IS_REPLICA, &[]).await.unwrap_err();
    assert_eq!(read.kind(), ErrorKind::NoFreshReplica, "{read}");
}

/// A primary with `default_transaction_read_only` is the primary all the same: it replays nothing. Writes get the
/// server's own error, and a call that may wait for a failover outlasts the setting.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_sessions_are_read_only_is_the_primary() {
    let nodes = Replicated::start(1).await;
    let seen = Seen::default();
    let cluster = builder(&nodes).observer(seen.observe()).build().unwrap();
    cluster.warm_up(1, LONG).await.unwrap();
    cluster.batch_execute(CREATE).await.unwrap();
    is_complete(&cluster, &nodes).await;
    let set = async |sql: &str| {
        nodes.primary().execute(sql).await;
        nodes.primary().execute("SELECT pg_reload_conf()").await;
    };
    set("ALTER SYSTEM SET default_transaction_read_only = on").await;
    eventually("writes are refused", LONG, async || {
        cluster
            .execute(INSERT, &[])
            .await
            .is_err_and(|error| error.sqlstate() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION))
    })
    .await;
    let begun = Instant::now();
    let error = cluster.call().across_failover().deadline(SECOND).execute(INSERT, &[]).await.unwrap_err();
    assert_eq!(
        error.sqlstate(),
        Some(&SqlState::READ_ONLY_SQL_TRANSACTION),
        "not that its last attempt had no time: {error}"
    );
    assert!(begun.elapsed() < SECOND * 2, "{:?}", begun.elapsed());
    let options = failfast::TransactionOptions::new().read_only(false);
    let write = async |tx: failfast::Transaction| tx.execute(INSERT, &[]).await;
    cluster.call().options(options).transaction(write).await.unwrap();
    assert_eq!(cluster.hosts()[0].role, Role::Primary);
    assert!(is_replica(&cluster, Freshness::Any).await);

    let waiting = {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.call().across_failover().deadline(LONG).execute(INSERT, &[]).await })
    };
    set("ALTER SYSTEM RESET default_transaction_read_only").await;
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
    assert_eq!(seen.count("primary_changed"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_refuses_the_password_takes_no_other_host_with_it() {
    let nodes = Replicated::start(1).await;
    let wrong = |node: usize| nodes.node(node).url().replace(":secret@", ":hunter2@");
    let urls = [wrong(1), nodes.node(0).url()];
    assert!(urls[0].contains("hunter2"));
    let seen = Seen::default();
    let builder = Cluster::builder_by_urls(urls.iter().map(String::as_str)).unwrap();
    let cluster = builder.observer(seen.observe()).build().unwrap();
    let begun = Instant::now();
    cluster.batch_execute(CREATE).await.unwrap();
    assert!(begun.elapsed() < SECOND * 2, "{:?}", begun.elapsed());
    assert!(!is_replica(&cluster, Freshness::Any).await, "the primary serves it");
    eventually("it is reported", LONG, async || {
        let reason = seen.find(|kind| match kind {
            EventKind::HostSilent { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        reason.is_some_and(|reason| reason.contains("28P01") && !reason.contains("hunter2"))
    })
    .await;

    let urls = [wrong(0), wrong(1)];
    let cluster = Cluster::builder_by_urls(urls.iter().map(String::as_str)).unwrap().build().unwrap();
    let error = cluster.execute(INSERT, &[]).await.unwrap_err();
    let text = error.to_string();
    assert_eq!((error.kind(), text.matches("28P01").count()), (ErrorKind::NoPrimary, 2), "{text}");
    assert!(!format!("{text} {error:?}").contains("hunter2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_cannot_be_resolved_is_one_host_less() {
    let nodes = Replicated::start(1).await;
    let place = |node: usize| (nodes.node(node).addr().ip().to_string(), nodes.node(node).addr().port());
    let ((replica, second), (primary, third)) = (place(1), place(0));
    let hosts = format!("no-such-host.invalid,{replica},{primary}");
    let cluster = listed(&nodes, &hosts, &format!("5432,{second},{third}")).build().unwrap();
    cluster.batch_execute(CREATE).await.unwrap();
    assert!(is_replica(&cluster, Freshness::Any).await);
    let alone = listed(&nodes, "no-such-host.invalid,no-such-host-either.invalid", "5432").build().unwrap();
    eventually("both are known to be unknown", LONG, async || {
        let text = alone.execute(INSERT, &[]).await.unwrap_err().to_string();
        text.matches("the host name could not be resolved").count() == 2
    })
    .await;
}

/// As `load_balance_hosts=random`: each replica gets its share, and the rest serves when one is down.
#[tokio::test(flavor = "multi_thread")]
async fn reads_are_spread_over_all_replicas_and_a_dead_one_gets_none() {
    let mut nodes = Replicated::start(3).await;
    let cluster = builder(&nodes).build().unwrap();
    is_complete(&cluster, &nodes).await;
    let addresses = [address(&nodes, 1).await, address(&nodes, 2).await, address(&nodes, 3).await];
    let served = async |reads: usize| {
        let mut served: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..reads {
            let row = cluster.call().read(Freshness::Any).query_one(SERVED_BY, &[]).await.unwrap();
            *served.entry(row.get(1)).or_default() += 1;
        }
        addresses.each_ref().map(|address| served.get(address).copied().unwrap_or(0))
    };
    let counts = served(300).await;
    assert!(counts.iter().all(|count| *count > 40) && counts.iter().sum::<usize>() == 300, "{counts:?}");
    nodes.kill(2).await;
    let counts = served(100).await;
    assert!(counts[0] > 10 && counts[1] == 0 && counts[2] > 10 && counts.iter().sum::<usize>() == 100, "{counts:?}");
}

/// An administrator ends all sessions at one host. The connections to the others stay.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_end_at_one_host_leave_those_of_the_others_alone() {
    let nodes = Replicated::start(1).await;
    let seen = Seen::default();
    let cluster = builder(&nodes).observer(seen.observe()).build().unwrap();
    is_complete(&cluster, &nodes).await;
    let process = async |call: failfast::ClusterCall<'_>| call.get().await.unwrap().process_id();
    let read = || cluster.call().read(Freshness::Any);
    let before = (process(cluster.call()).await, process(read()).await);
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'orders'";
    assert_ne!(nodes.primary().scalar(end).await, "0");
    eventually("it is written to again", LONG, async || cluster.batch_execute(CREATE).await.is_ok()).await;
    let after = (process(cluster.call()).await, process(read()).await);
    assert!(before.0 != after.0 && before.1 == after.1, "{before:?} {after:?}");
    tokio::time::sleep(SECOND).await;
    assert_eq!(seen.count("primary_changed") + seen.count("primary_missing"), 0);
}

/// The primary and a standby change their roles, and change back, while a service writes and reads.
#[tokio::test(flavor = "multi_thread")]
async fn roles_may_change_back_and_forth() {
    let mut nodes = Replicated::start(1).await;
    let seen = Seen::default();
    let cluster = builder(&nodes).observer(seen.observe()).build().unwrap();
    cluster.warm_up(1, LONG).await.unwrap();
    cluster.batch_execute(CREATE).await.unwrap();
    is_complete(&cluster, &nodes).await;
    for (change, (from, to)) in [(0, 1), (1, 0), (0, 1)].into_iter().enumerate() {
        nodes.stop(from).await;
        nodes.promote(to).await;
        let call = cluster.call().across_failover().deadline(SECOND * 20);
        call.execute(INSERT, &[]).await.unwrap();
        nodes.rebuild(from).await;
        is_complete(&cluster, &nodes).await;
        assert_eq!((cluster.hosts()[to].role, cluster.hosts()[from].role), (Role::Primary, Role::Replica));
        eventually("the new replica serves", LONG, async || is_replica(&cluster, Freshness::Within(SECOND * 2)).await)
            .await;
        assert_eq!(seen.count("primary_changed"), change + 1);
    }
    assert_eq!(nodes.primary().scalar("SELECT count(*) FROM written").await, "3");
}

/// A standby that streams from another standby proves what it shows in the same way, and stays in when the one in the
/// middle is promoted.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_of_a_standby_serves_reads_with_a_bound() {
    let mut nodes = Replicated::start(2).await;
    nodes.node(1).execute("SELECT pg_create_physical_replication_slot('node2')").await;
    let upstream = nodes.node(2).scalar("SELECT setting FROM pg_settings WHERE name = 'primary_conninfo'").await;
    let middle = upstream.replace("-0 ", "-1 ").replace("-0'", "-1'").replace('\'', "''");
    assert_ne!(middle, upstream.replace('\'', "''"), "{upstream}");
    nodes.node(2).execute(&format!("ALTER SYSTEM SET primary_conninfo = '{middle}'")).await;
    nodes.node(2).execute("SELECT pg_reload_conf()").await;
    let receives = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    eventually("the standby streams from the standby", LONG, async || nodes.node(1).scalar(receives).await == "1")
        .await;

    // The one in the middle is not listed, so the other one has to serve.
    let cluster = of(&nodes, &[0, 2]).build().unwrap();
    cluster.warm_up(1, LONG).await.unwrap();
    cluster.batch_execute(CREATE).await.unwrap();
    let write = async |tx: failfast::Transaction| tx.execute(INSERT, &[]).await;
    let (_, position) = cluster.transaction_at(write).await.unwrap();
    eventually("it serves what it has", LONG, async || {
        let row = cluster.call().after(position).query_one(IS_REPLICA, &[]).await;
        row.is_ok_and(|row| row.get(0))
    })
    .await;
    eventually("it serves reads with a bound", LONG, async || {
        let row = cluster.call().read(Freshness::Within(SECOND * 2)).query_one(IS_REPLICA, &[]).await;
        row.is_ok_and(|row| row.get(0))
    })
    .await;

    let all = builder(&nodes).build().unwrap();
    is_complete(&all, &nodes).await;
    nodes.stop(0).await;
    nodes.promote(1).await;
    all.call().across_failover().deadline(SECOND * 20).execute(INSERT, &[]).await.unwrap();
    eventually("the standby of the new primary serves", LONG, async || {
        let call = all.call().read(Freshness::Within(SECOND * 2)).deadline(SECOND);
        call.query_one(IS_REPLICA, &[]).await.is_ok_and(|row| row.get(0))
    })
    .await;
}

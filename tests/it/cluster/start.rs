//! The first answers of a process, and its end.

use std::time::{Duration, Instant};

use failfast::{Cluster, ErrorKind, EventKind, Freshness, Role};
use futures_util::future::join_all;

use super::{SECOND, Seen, builder, is_complete};
use crate::pool::LONG;
use crate::support::cluster::Replicated;
use crate::support::eventually;

const TABLES: &str = "SELECT count(*) FROM pg_class WHERE relname = 'written'";
const CREATE: &str = "CREATE TABLE written (n int)";

/// The old primary has lost its disk, and its container has made an empty database. No replica was promoted yet.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_that_answers_first_is_not_written_to() {
    let mut nodes = Replicated::start(1).await;
    nodes.primary().execute(CREATE).await;
    nodes.has_caught_up(1).await;
    nodes.wipe(0).await;
    // The replica does not answer yet.
    nodes.pause(1).await;
    let seen = Seen::default();
    let cluster = builder(&nodes).observer(seen.observe()).build().unwrap();
    let first = cluster.call().deadline(SECOND).batch_execute(CREATE).await.unwrap_err();
    assert_eq!(first.kind(), ErrorKind::NoPrimary, "{first}");
    nodes.unpause(1).await;
    eventually("both systems are seen", LONG, async || {
        cluster.batch_execute(CREATE).await.is_err_and(|error| error.kind() == ErrorKind::TwoSystems)
    })
    .await;
    let error = cluster.batch_execute(CREATE).await.unwrap_err().to_string();
    for host in cluster.hosts() {
        assert!(error.contains(&*host.host), "{error}");
    }
    assert_eq!(nodes.node(0).scalar(TABLES).await, "0", "a write went to the empty database");
    let read = cluster.call().read(Freshness::Any).query("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(read.kind(), ErrorKind::NoFreshReplica);
    eventually("it is reported", LONG, async || seen.count("two_systems") > 0).await;
    assert_eq!(cluster.hosts()[0].role, Role::Fenced);
}

/// Two of three hosts agree, so the third one is not waited for, and the foreign one gets nothing.
#[tokio::test(flavor = "multi_thread")]
async fn most_hosts_outvote_an_empty_database() {
    let mut nodes = Replicated::start(2).await;
    nodes.primary().execute(CREATE).await;
    nodes.has_caught_up(1).await;
    nodes.has_caught_up(2).await;
    nodes.wipe(0).await;
    let cluster = builder(&nodes).build().unwrap();
    eventually("the replicas are known", LONG, async || {
        let hosts = cluster.hosts();
        hosts[1].role == Role::Replica && hosts[2].role == Role::Replica
    })
    .await;
    let error = cluster.batch_execute(CREATE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoPrimary, "{error}");
    let row = cluster.call().read(Freshness::Any).query_one(TABLES, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 1);
    assert_eq!(nodes.node(0).scalar(TABLES).await, "0", "a write went to the empty database");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_cluster_asks_its_hosts_no_more() {
    let nodes = Replicated::start(1).await;
    let cluster = builder(&nodes).build().unwrap();
    cluster.warm_up(0, LONG).await.unwrap();
    let roles: Vec<_> = cluster.hosts().iter().map(|host| host.role).collect();
    assert_eq!(roles, [Role::Primary, Role::Replica], "ready means that each host was asked");
    let connections = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'orders%'";
        [nodes.node(0).scalar(sql).await, nodes.node(1).scalar(sql).await]
    };
    assert!(connections().await.iter().all(|count| count != "0"), "the scouts");
    assert_eq!(cluster.drain(LONG).await, 0);
    assert_eq!(cluster.execute("SELECT 1", &[]).await.unwrap_err().kind(), ErrorKind::Closed);
    eventually("no connection is left", LONG, async || connections().await == ["0", "0"]).await;
    tokio::time::sleep(SECOND * 3 / 2).await;
    assert_eq!(connections().await, ["0", "0"], "a call has started the scouts again");
}

/// A call that waits for a primary is in no pool's queue.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_for_a_primary_does_not_hold_up_a_drain() {
    let nodes = Replicated::start(1).await;
    let cluster = Cluster::builder(nodes.node(1).config()).build().unwrap();
    assert_eq!(cluster.execute("SELECT 1", &[]).await.unwrap_err().kind(), ErrorKind::NoPrimary);
    let waiting = cluster.clone();
    let waits =
        tokio::spawn(
            async move { waiting.call().across_failover().deadline(SECOND * 600).execute("SELECT 1", &[]).await },
        );
    assert_eq!(cluster.drain(SECOND * 300).await, 0);
    assert!(!waits.is_finished(), "it waits for a primary still");
    waits.abort();
}

/// The URLs differ in the user. The settings of the pools hold for both hosts.
#[tokio::test(flavor = "multi_thread")]
async fn each_url_has_its_own_user() {
    let nodes = Replicated::start(1).await;
    nodes.primary().execute("CREATE ROLE reader LOGIN PASSWORD 'other'").await;
    nodes.has_caught_up(1).await;
    let (of_primary, of_replica) = (nodes.node(0).url(), nodes.node(1).url());
    let (_, place) = of_replica.split_once('@').unwrap();
    let urls = [of_primary, format!("postgresql://reader:other@{place}")];
    let builder = Cluster::builder_by_urls(urls.iter().map(String::as_str)).unwrap();
    let cluster = builder.pool(|builder| builder.name("orders").max_size(3)).build().unwrap();
    is_complete(&cluster, &nodes).await;
    let user = "SELECT current_user = 'reader', pg_is_in_recovery(), current_setting('application_name')";
    for (call, is_replica) in [(cluster.call(), false), (cluster.call().read(Freshness::Any), true)] {
        let row = call.query_one(user, &[]).await.unwrap();
        assert_eq!((row.get::<_, bool>(0), row.get::<_, bool>(1)), (is_replica, is_replica));
        assert_eq!(row.get::<_, String>(2), "orders");
    }
    assert!(cluster.pools().all(|pool| pool.status().max_size == 3));
}

/// A replica that was promoted by mistake is rebuilt as a replica. Until the owner says so, the old primary is fenced.
#[tokio::test(flavor = "multi_thread")]
async fn a_timeline_that_the_owner_has_forgotten_fences_nobody() {
    let mut nodes = Replicated::start(1).await;
    let seen = Seen::default();
    let cluster = builder(&nodes).observer(seen.observe()).build().unwrap();
    is_complete(&cluster, &nodes).await;
    nodes.node(1).scalar("SELECT pg_promote(true, 60)").await;
    eventually("the mistake is followed", LONG, async || cluster.hosts()[1].role == Role::Primary).await;
    nodes.rebuild(1).await;
    eventually("the mistake is over", LONG, async || cluster.hosts()[1].role == Role::Replica).await;
    assert_eq!(cluster.batch_execute(CREATE).await.unwrap_err().kind(), ErrorKind::NoPrimary);
    cluster.because("db2 was promoted by mistake").forget_timeline();
    cluster.batch_execute(CREATE).await.unwrap();
    assert_eq!(nodes.node(0).scalar(TABLES).await, "1");
    let forgotten = seen.find(|kind| match kind {
        EventKind::TimelineForgotten { timeline, reason, .. } => Some((*timeline, reason.clone())),
        _ => None,
    });
    assert_eq!(forgotten, Some((2, Some("db2 was promoted by mistake".into()))));
}

/// The same host several times in the list, in a list of hosts of which some do not exist. It is one
/// primary, and the hosts that do not exist hold up no call for longer than they need to be refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_listed_twice_among_dead_ones_is_one_primary() {
    let nodes = Replicated::start(0).await;
    let addr = nodes.node(0).addr();
    let list = format!("host=127.0.0.1,{0},{0},127.0.0.1 port=1,{1},{1},2", addr.ip(), addr.port());
    let cluster = Cluster::builder(nodes.node(0).config_with(&list)).build().unwrap();
    let begun = Instant::now();
    cluster.batch_execute(CREATE).await.unwrap();
    assert!(begun.elapsed() < SECOND * 2, "{:?}", begun.elapsed());
    let roles: Vec<_> = cluster.hosts().iter().map(|host| host.role).collect();
    assert_eq!((roles[0], roles[3]), (Role::Unknown, Role::Unknown));
    assert_eq!(roles.iter().filter(|role| **role == Role::Primary).count(), 1, "{roles:?}");
}

/// A server with two names is restarted a few times. It is never two primaries.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_two_names_may_restart() {
    let mut nodes = Replicated::start(0).await;
    let addr = nodes.node(0).addr();
    let list = format!("host={0},{0} port={1},{1}", addr.ip(), addr.port());
    let seen = Seen::default();
    let cluster = Cluster::builder(nodes.node(0).config_with(&list)).observer(seen.observe()).build().unwrap();
    cluster.warm_up(0, LONG).await.unwrap();
    for _ in 0..4 {
        nodes.kill(0).await;
        nodes.start_again(0).await;
        eventually("it is written to again", LONG, async || cluster.execute("SELECT 1", &[]).await.is_ok()).await;
        tokio::time::sleep(Duration::from_millis(1_200)).await;
    }
    assert_eq!(seen.count("two_primaries"), 0);
}

/// Measures what a thousand calls that wait for a primary cost, in looks of the server and in time of this process.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_that_wait_cost_few_looks() {
    let nodes = Replicated::start(1).await;
    let cluster = Cluster::builder(nodes.node(1).config()).build().unwrap();
    assert_eq!(cluster.execute("SELECT 1", &[]).await.unwrap_err().kind(), ErrorKind::NoPrimary);
    let looks = async || {
        let sql = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";
        nodes.node(1).scalar(sql).await.parse::<u64>().unwrap()
    };
    let before = looks().await;
    let call = || cluster.call().across_failover().deadline(SECOND * 3).execute("SELECT 1", &[]);
    let results = join_all((0..1_000).map(|_| call())).await;
    assert!(results.iter().all(|result| result.as_ref().is_err_and(|error| error.kind() == ErrorKind::NoPrimary)));
    // The statistics of a session are shown a second late.
    tokio::time::sleep(SECOND * 3 / 2).await;
    let looked = looks().await - before;
    println!("{looked} transactions on the server within 4.5 s");
    assert!(looked < 60, "{looked}");
}

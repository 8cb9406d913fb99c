//! LISTEN on a cluster: it is at the primary, and says where a failover may have lost notifications.

use failfast::{Cluster, Error, Gap, Notifications, Received};
use tokio::time::timeout;

use super::{SECOND, Seen, builder, is_complete};
use crate::pool::LONG;
use crate::support::cluster::Replicated;
use crate::support::eventually;

async fn listening(cluster: &Cluster) -> Notifications {
    timeout(LONG, cluster.listen(["orders"]).unwrap()).await.unwrap().unwrap()
}

async fn next(notifications: &mut Notifications) -> Received {
    timeout(LONG, notifications.next()).await.expect("nothing came").expect("the stream has ended")
}

/// The payload of the next notification; `-` for a gap.
async fn payload(notifications: &mut Notifications) -> String {
    match next(notifications).await {
        Received::Notification(notification) => notification.payload,
        Received::Gap(Gap::Reconnected) => "-".to_owned(),
        other => panic!("{other:?}"),
    }
}

async fn notify(cluster: &Cluster, payload: &str) {
    let call = cluster.call().across_failover().deadline(SECOND * 20);
    call.execute("SELECT pg_notify('orders', $1)", &[&payload]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_follows_the_primary_and_says_where_something_may_be_missing() {
    let mut nodes = Replicated::start(2).await;
    let seen = Seen::default();
    let cluster = builder(&nodes).observer(seen.observe()).build().unwrap();
    let mut notifications = listening(&cluster).await;
    is_complete(&cluster, &nodes).await;
    notify(&cluster, "a").await;
    assert_eq!(payload(&mut notifications).await, "a");

    // The old primary is alive and writable, as in a split network: its notifications must not come any more.
    nodes.stop_streaming(2).await;
    nodes.promote(1).await;
    nodes.follow(2).await;
    assert_eq!(payload(&mut notifications).await, "-");
    nodes.node(0).execute("SELECT pg_notify('orders', 'of the old primary')").await;
    notify(&cluster, "b").await;
    assert_eq!(payload(&mut notifications).await, "b");
    let reason = seen.find(|kind| match kind {
        failfast::EventKind::ListenInterrupted { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.is_some_and(|reason| reason.contains("is the primary instead of")));
    let is_at = async |node: usize| {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN \"orders\"%'";
        nodes.node(node).scalar(sql).await == "1"
    };
    eventually("only the new primary has a listener", LONG, async || is_at(1).await && !is_at(0).await).await;

    // And once more, to a primary that was killed.
    nodes.kill(1).await;
    nodes.promote(2).await;
    assert_eq!(payload(&mut notifications).await, "-");
    notify(&cluster, "c").await;
    assert_eq!(payload(&mut notifications).await, "c");
    assert_eq!(seen.count("primary_changed"), 2);
}

/// A stream that nobody reads moves as well, and dropping it ends its connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_keeps_no_cluster_open_and_ends_with_it() {
    let nodes = Replicated::start(1).await;
    let listeners = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN \"orders\"%'";
        nodes.node(0).scalar(sql).await
    };
    let cluster = builder(&nodes).build().unwrap();
    let (dropped, mut left) = (listening(&cluster).await, listening(&cluster).await);
    assert_eq!(listeners().await, "2");
    drop(dropped);
    eventually("one is left", LONG, async || listeners().await == "1").await;
    drop(cluster);
    assert_eq!(timeout(LONG, left.next()).await.unwrap(), None);
    eventually("none is left", LONG, async || listeners().await == "0").await;

    let cluster = builder(&nodes).build().unwrap();
    let mut left = listening(&cluster).await;
    cluster.drain(LONG).await;
    assert_eq!(timeout(LONG, left.next()).await.unwrap(), None);
    assert!(matches!(cluster.listen(["orders"]).unwrap().await, Err(Error::Closed)));
    assert!(cluster.listen([""; 0]).is_err_and(|error| error.setting() == "channels"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_primary_nothing_listens() {
    let nodes = Replicated::start(1).await;
    let cluster = Cluster::builder(nodes.node(1).config()).build().unwrap();
    let error = cluster.listen(["orders"]).unwrap().await.unwrap_err();
    assert_eq!(error.kind(), failfast::ErrorKind::NoPrimary, "{error}");
}

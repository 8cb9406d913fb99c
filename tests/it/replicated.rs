//! Tests the clusters of [`crate::support::cluster`], and with them what PostgreSQL says about roles, timelines and WAL
//! positions. The cluster feature relies on these facts.

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use crate::pool::LONG;
use crate::support::cluster::{Replicated, timeline};
use crate::support::{eventually, server::Server};

const IN_RECOVERY: &str = "SELECT pg_is_in_recovery()";
const SYSTEM: &str = "SELECT system_identifier FROM pg_control_system()";
const CHECKPOINT: &str = "SELECT timeline_id FROM pg_control_checkpoint()";
const COUNT: &str = "SELECT count(*) FROM written";
const INSERT: &str = "INSERT INTO written VALUES (1)";

/// Waits until the node has so many rows.
async fn has_rows(node: &Server, rows: &str) {
    eventually("the node has the rows", LONG, async || node.scalar(COUNT).await == rows).await;
}

/// A killed standby also returns by itself, because its slot kept the WAL.
#[tokio::test]
async fn standbys_stream_are_read_only_and_return_after_a_crash() {
    let begun = Instant::now();
    let mut cluster = Replicated::start(2).await;
    println!("three nodes stream after {:.1?}", begun.elapsed());
    cluster.primary().execute("CREATE TABLE written (n int)").await;
    cluster.primary().execute(INSERT).await;
    for node in [1, 2] {
        let standby = cluster.node(node);
        cluster.has_caught_up(node).await;
        has_rows(standby, "1").await;
        assert_eq!(standby.scalar(IN_RECOVERY).await, "t");
        assert_eq!(standby.scalar(SYSTEM).await, cluster.primary().scalar(SYSTEM).await);
        let refused = standby.admin().await.simple_query(INSERT).await.unwrap_err();
        assert_eq!(refused.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));
        // A standby does not say its timeline in the primary's way.
        let refused = standby.admin().await.simple_query("SELECT pg_walfile_name('0/0')").await.unwrap_err();
        assert_eq!(refused.code(), Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE));
        assert_eq!(standby.scalar(CHECKPOINT).await, "1");
    }
    let started = cluster.node(1).scalar("SELECT pg_postmaster_start_time()").await;
    cluster.kill(1).await;
    cluster.primary().execute(INSERT).await;
    cluster.start_again(1).await;
    cluster.is_streaming(1).await;
    has_rows(cluster.node(1), "2").await;
    assert_ne!(cluster.node(1).scalar("SELECT pg_postmaster_start_time()").await, started);
}

#[tokio::test]
async fn a_standby_that_does_not_replay_still_receives_and_never_reaches_a_page_header() {
    let cluster = Replicated::start(1).await;
    let (primary, standby) = (cluster.primary(), cluster.node(1));
    primary.execute("CREATE TABLE written (n int)").await;
    cluster.has_caught_up(1).await;

    cluster.pause_replay(1).await;
    let replayed = standby.scalar("SELECT pg_last_wal_replay_lsn()").await;
    primary.execute(INSERT).await;
    let position = primary.scalar("SELECT pg_current_wal_flush_lsn()").await;
    let received = format!("SELECT pg_last_wal_receive_lsn() >= '{position}'");
    eventually("the standby has received the row", LONG, async || standby.scalar(&received).await == "t").await;
    assert_eq!(standby.scalar("SELECT pg_last_wal_replay_lsn()").await, replayed);
    assert_eq!(standby.scalar(COUNT).await, "0");
    cluster.resume_replay(1).await;
    has_rows(standby, "1").await;

    cluster.delay_replay(1, LONG).await;
    primary.execute(INSERT).await;
    let position = primary.scalar("SELECT pg_current_wal_flush_lsn()").await;
    let received = format!("SELECT pg_last_wal_receive_lsn() >= '{position}'");
    eventually("the standby has received the row", LONG, async || standby.scalar(&received).await == "t").await;
    assert_eq!(standby.scalar(COUNT).await, "1");
    cluster.delay_replay(1, Duration::ZERO).await;
    has_rows(standby, "2").await;

    // After a switch of the WAL file, an idle primary's position is just past the header of a page. No record ends
    // there, so no standby ever reports it.
    primary.execute("SELECT pg_switch_wal()").await;
    let position = primary.scalar("SELECT pg_current_wal_insert_lsn()").await;
    assert!(position.ends_with("000028"), "{position}: not just past the long header of a segment's first page");
    let start = format!("SELECT pg_last_wal_replay_lsn() = '{position}'::pg_lsn - 40");
    eventually("the standby is at the page's start", LONG, async || standby.scalar(&start).await == "t").await;
    assert_eq!(primary.scalar("SELECT pg_current_wal_insert_lsn()").await, position, "the primary was not idle");
    let reached = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
    assert_eq!(standby.scalar(&reached).await, "f");
}

#[tokio::test]
async fn a_promotion_begins_a_timeline_and_an_old_primary_returns_on_its_own() {
    let mut cluster = Replicated::start(2).await;
    cluster.primary().execute("CREATE TABLE written (n int)").await;
    assert_eq!(timeline(cluster.primary()).await, "1");
    cluster.has_caught_up(1).await;
    cluster.has_caught_up(2).await;
    let before = cluster.primary().scalar("SELECT pg_current_wal_insert_lsn()").await;

    cluster.kill(0).await;
    cluster.promote(1).await;
    assert_eq!(cluster.primary_number(), 1);
    assert_eq!(cluster.primary().scalar(IN_RECOVERY).await, "f");
    assert_eq!(timeline(cluster.primary()).await, "2");
    let is_past = format!("SELECT pg_current_wal_insert_lsn() >= '{before}'");
    assert_eq!(cluster.primary().scalar(&is_past).await, "t");
    cluster.follow(2).await;
    cluster.primary().execute(INSERT).await;
    has_rows(cluster.node(2), "1").await;

    // Two primaries of one system.
    cluster.start_again(0).await;
    let old = cluster.node(0);
    assert_eq!((old.scalar(IN_RECOVERY).await.as_str(), timeline(old).await.as_str()), ("f", "1"));
    assert_eq!(old.scalar(SYSTEM).await, cluster.primary().scalar(SYSTEM).await);
    old.execute(INSERT).await;
    old.execute(INSERT).await;
    assert_eq!((old.scalar(COUNT).await.as_str(), cluster.primary().scalar(COUNT).await.as_str()), ("2", "1"));

    let addr = old.addr();
    cluster.rebuild(0).await;
    assert_eq!(cluster.node(0).addr(), addr);
    has_rows(cluster.node(0), "1").await;
    // A primary that is shut down sends all of its WAL first.
    cluster.primary().execute(INSERT).await;
    cluster.stop(1).await;
    cluster.promote(0).await;
    assert_eq!(timeline(cluster.primary()).await, "3");
    assert_eq!(cluster.primary().scalar(COUNT).await, "2");

    // A frozen primary does not notice a promotion, and still accepts writes when it awakes.
    cluster.pause(0).await;
    cluster.promote(2).await;
    cluster.unpause(0).await;
    cluster.node(0).accepting().await;
    cluster.node(0).execute(INSERT).await;
    assert_eq!(cluster.node(0).scalar(COUNT).await, "3");
    let all = cluster.config("target_session_attrs=read-write");
    let ports: Vec<_> = (0..cluster.len()).map(|node| cluster.node(node).addr().port()).collect();
    assert_eq!(all.get_ports(), ports);
}

//! The server ends connections. The pool keeps the server's last message and never hands such a connection out again.

use std::time::{Duration, Instant};

use failfast::{Effect, Error, Pool};
use futures_util::future::join_all;
use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use super::deadpool::{Outcome, bare, call_within, chain};
use super::{LONG, shared};
use crate::support::{eventually, proxy::Proxy, server::Server};

const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ";

async fn terminate(name: &str) {
    Server::shared().await.execute(&format!("{TERMINATE}'{name}'")).await;
}

/// Lets every task of this test run that has something to read.
async fn a_moment() {
    for _ in 0..5 {
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn case_15_terminated_idle_connections_reach_no_caller() {
    const IDLE: usize = 8;
    let server = Server::shared().await;
    let proxy = Proxy::start(server.addr()).await;
    let config = server.config_at(proxy.addr());
    let pool = Pool::builder(config.clone()).name("case_15").max_size(IDLE).build().unwrap();
    for _ in 0..3 {
        pool.warm_up(IDLE, LONG).await.unwrap();
        terminate("case_15").await;
        eventually("the server has ended all connections", LONG, async || proxy.open() == 0).await;
        a_moment().await;
        let answers = join_all((0..IDLE).map(|_| pool.call().deadline(LONG).query("SELECT 1", &[]))).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }

    let deadpool = bare(config, "case_15", IDLE);
    drop(join_all((0..IDLE).map(|_| deadpool.get())).await);
    terminate("case_15_deadpool").await;
    eventually("the server has ended deadpool's connections", LONG, async || proxy.open() <= IDLE as u64).await;
    a_moment().await;
    let outcomes = join_all((0..IDLE).map(|_| call_within(LONG, &deadpool, "SELECT 1"))).await;
    let failed = outcomes.iter().filter(|outcome| **outcome != Outcome::Done).count();
    println!("case 15, after the pools noticed: failfast 0 of {IDLE} fail; deadpool: {failed} of {IDLE} fail");
}

/// A caller may be faster than the news of the end. The error that it gets is still true.
#[tokio::test(flavor = "multi_thread")]
async fn case_15_a_termination_that_races_a_call_gets_a_true_error() {
    const IDLE: usize = 8;
    let server = Server::shared().await;
    let pool = shared("case_15_unknown").await.max_size(IDLE).build().unwrap();
    let deadpool = bare(server.config(), "case_15_unknown", IDLE);
    let (mut failed, mut theirs, mut example) = (0, 0, String::new());
    for _ in 0..10 {
        pool.warm_up(IDLE, LONG).await.unwrap();
        drop(join_all((0..IDLE).map(|_| deadpool.get())).await);
        let asking = async {
            let mut answers = Vec::new();
            for _ in 0..5 {
                answers.extend(join_all((0..IDLE).map(|_| pool.call().query("SELECT 1", &[]))).await);
            }
            answers
        };
        let theirs_asking = async {
            let mut answers = Vec::new();
            for _ in 0..5 {
                answers.extend(join_all((0..IDLE).map(|_| call_within(LONG, &deadpool, "SELECT 1"))).await);
            }
            answers
        };
        let killing = async { tokio::join!(terminate("case_15_unknown"), terminate("case_15_unknown_deadpool")) };
        let (answers, their_answers, _) = tokio::join!(asking, theirs_asking, killing);
        for error in answers.into_iter().filter_map(Result::err) {
            let is_told = error.sqlstate() == Some(&SqlState::ADMIN_SHUTDOWN);
            assert!(is_told || error.effect() == Effect::NotApplied, "{error:?}");
            failed += 1;
        }
        for outcome in their_answers.into_iter().filter(|outcome| *outcome != Outcome::Done) {
            theirs += 1;
            example = outcome.to_string();
        }
    }
    println!("case 15, in a race: failfast {failed} of 400, with the reason; deadpool: {theirs} of 400: {example}");
}

#[tokio::test(flavor = "multi_thread")]
async fn case_16_a_crash_is_recognized_by_its_notice() {
    let mut server = Server::own(&[]).await;
    let proxy = Proxy::start(server.addr()).await;
    let config = server.config_at(proxy.addr());
    let pool = Pool::builder(config.clone()).name("case_16").build().unwrap();
    let deadpool = bare(config, "case_16", 10);
    pool.warm_up(4, LONG).await.unwrap();
    let victim = pool.get().await.unwrap();
    let idle = pool.get().await.unwrap();
    let busy = pool.get().await.unwrap();
    let theirs = deadpool.get().await.unwrap();

    let pid = victim.process_id().unwrap();
    let killing = async {
        eventually("both statements run", LONG, async || running(&server).await == "2").await;
        server.kill_backend(pid).await;
    };
    let (told, they_were_told, ()) =
        tokio::join!(busy.query("SELECT pg_sleep(60)", &[]), theirs.query("SELECT pg_sleep(60)", &[]), killing);
    let crashed = Instant::now();
    let error = told.unwrap_err();
    assert_eq!(error.sqlstate(), Some(&SqlState::CRASH_SHUTDOWN), "{error}");
    assert_eq!(error.effect(), Effect::Unknown);
    assert!(error.to_string().starts_with("connection lost: the server crashed (57P02: "), "{error}");
    eventually("the pool notices that the idle connection was lost", LONG, async || idle.is_closed()).await;
    let error = idle.query("SELECT 1", &[]).await.unwrap_err();
    assert!(error.to_string().starts_with("connection lost: the server crashed (57P02: "), "{error}");
    assert_eq!(error.effect(), Effect::NotApplied, "the statement was never written");
    drop((victim, busy));

    let before = proxy.accepted();
    let mut failed = 0;
    while let Err(error) = pool.call().deadline(Duration::from_millis(300)).query("SELECT 1", &[]).await {
        assert!(crashed.elapsed() < LONG, "never recovered: {error}");
        failed += 1;
        sleep(Duration::from_millis(2)).await;
    }
    let (recovered, dials) = (crashed.elapsed(), proxy.accepted() - before);
    println!(
        "case 16: failfast {error}; {failed} failed, {dials} dials, back after {recovered:?}; deadpool: {}",
        chain(&they_were_told.unwrap_err())
    );
    assert!(dials <= 20, "{dials}");
    server.accepting().await;
}

/// During a call, the driver returns the server's last message as the answer. On an idle connection, and at an
/// immediate shutdown, the driver only says "closed".
#[tokio::test]
async fn the_error_names_a_shutdown_when_the_driver_says_closed() {
    const TOLD: &str = "connection lost: the server was shut down, or an administrator ended the connection (57P01: ";
    let server = Server::own(&[]).await;
    let pool = Pool::builder(server.config()).name("shutdown").build().unwrap();
    let (idle, told, busy) = (pool.get().await.unwrap(), pool.get().await.unwrap(), pool.get().await.unwrap());
    let terminate = format!("SELECT pg_terminate_backend({})", idle.process_id().unwrap());
    server.execute(&terminate).await;
    eventually("the pool notices that the connection was lost", LONG, async || idle.is_closed()).await;
    let error = idle.query("SELECT 1", &[]).await.unwrap_err();
    assert!(error.to_string().starts_with(TOLD), "{error}");
    assert!(source(&error).is_closed());
    assert_eq!((error.sqlstate(), error.effect()), (Some(&SqlState::ADMIN_SHUTDOWN), Effect::NotApplied));

    let terminate = format!("SELECT pg_terminate_backend({})", told.process_id().unwrap());
    let (answered, ()) = tokio::join!(told.query("SELECT pg_sleep(60)", &[]), async {
        eventually("the statement runs", LONG, async || running(&server).await == "1").await;
        server.execute(&terminate).await;
    });
    let error = answered.unwrap_err();
    assert_eq!((error.sqlstate(), error.effect()), (Some(&SqlState::ADMIN_SHUTDOWN), Effect::Unknown));
    assert!(error.to_string().contains("(57P01)"), "{error}");

    let (cut, ()) = tokio::join!(busy.query("SELECT pg_sleep(60)", &[]), async {
        eventually("the statement runs", LONG, async || running(&server).await == "1").await;
        server.exec("kill -QUIT 1").await; // an immediate shutdown
    });
    let error = cut.unwrap_err();
    assert!(error.to_string().starts_with(TOLD), "{error}");
    assert!(source(&error).is_closed());
    assert_eq!((error.sqlstate(), error.effect()), (Some(&SqlState::ADMIN_SHUTDOWN), Effect::Unknown));
}

async fn running(server: &Server) -> String {
    let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep(60)%'";
    server.scalar(running).await
}

fn source(error: &Error) -> &tokio_postgres::Error {
    std::error::Error::source(error).unwrap().downcast_ref().unwrap()
}

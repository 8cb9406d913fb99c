//! Several hosts: their order, their shares of the time, their roles, and which of their errors the dial returns.

use std::time::{Duration, Instant};

use failfast::{ConnectErrorKind, EventKind, Pool};
use tokio_postgres::error::SqlState;

use super::{LONG, refusal, scalar};
use crate::support::{eventually, free_port, proxy::Proxy, server::Server};

const PORT: &str = "SELECT current_setting('port')";

fn ports(ports: &[u16], settings: &str) -> String {
    let hosts = vec!["127.0.0.1"; ports.len()].join(",");
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    format!("host={hosts} port={} {settings}", ports.join(","))
}

async fn black_hole() -> Proxy {
    let proxy = Proxy::start(Server::shared().await.addr()).await;
    proxy.stall();
    proxy
}

#[tokio::test]
async fn a_silent_host_leaves_time_for_the_others() {
    let server = Server::shared().await;
    let hole = black_hole().await;
    let config = server.config_with(&ports(&[hole.addr().port(), server.addr().port()], ""));
    let connect_timeout = Duration::from_millis(1_500); // less than a second each: no second dial is begun meanwhile
    let pool = Pool::builder(config).connect_timeout(connect_timeout).build().unwrap();
    let asked = Instant::now();
    assert_eq!(scalar(&pool, PORT).await, "5432");
    assert!(asked.elapsed() >= connect_timeout / 2, "the first host had its share");
    assert_eq!(hole.accepted(), 1);
}

#[tokio::test]
async fn a_dead_host_is_reported_once() {
    let server = Server::shared().await;
    let dead = free_port();
    let config = server.config_with(&ports(&[dead, server.addr().port()], ""));
    let pool = Pool::builder(config).name("dead_host").build().unwrap();
    let mut events = pool.events();
    pool.warm_up(3, LONG).await.unwrap();
    pool.flush();
    pool.warm_up(3, LONG).await.unwrap();
    pool.close();
    drop(pool);
    let mut avoided = Vec::new();
    while let Some(event) = events.next().await {
        if let EventKind::AddressAvoided { address, .. } = &event.kind {
            avoided.push((address.clone(), event.to_string()));
        }
    }
    let [(address, line)] = avoided.as_slice() else { panic!("{avoided:?}") };
    assert_eq!(*address, format!("127.0.0.1:{dead}"));
    assert!(
        line.ends_with(&format!("{address} failed, and is tried last for 30 s: {address}: connection refused")),
        "{line}"
    );
}

#[tokio::test]
async fn a_timeout_names_its_host_and_its_share() {
    let server = Server::shared().await;
    let hole = black_hole().await;
    let config = server.config_with(&ports(&[hole.addr().port(), free_port()], ""));
    let connect_timeout = Duration::from_secs(1);
    let pool = Pool::builder(config).connect_timeout(connect_timeout).build().unwrap();
    let error = refusal(&pool).await;
    let ConnectErrorKind::Timeout(share) = *error.kind() else { panic!("{error}") };
    // The share is a part of the time that was left when the host's turn came.
    assert!(share <= connect_timeout / 2 && share > connect_timeout / 4, "{share:?}");
    let named = format!("127.0.0.1:{}: not ready within ", hole.addr().port());
    assert!(error.to_string().starts_with(&named), "{error}");
}

#[tokio::test]
async fn an_answer_of_one_host_is_returned_rather_than_the_silence_of_another() {
    let server = Server::shared().await;
    let (refusing, answering) = (free_port(), server.addr().port());
    for order in [[refusing, answering], [answering, refusing]] {
        let mut config = server.config_with(&ports(&order, ""));
        config.password("wrong");
        let error = refusal(&Pool::builder(config).build().unwrap()).await;
        assert_eq!(error.sqlstate(), Some(&SqlState::INVALID_PASSWORD));
        let named = format!("127.0.0.1:{answering}: ");
        assert!(error.to_string().starts_with(&named), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_on_each_host() {
    let server = Server::shared().await;
    let (one, other) = (Proxy::start(server.addr()).await, Proxy::start(server.addr()).await);
    let mut config = server.config_with(&ports(&[one.addr().port(), other.addr().port()], ""));
    config.password("wrong");
    refusal(&Pool::builder(config).build().unwrap()).await;
    assert_eq!((one.accepted(), other.accepted()), (1, 1));
}

#[tokio::test]
async fn a_host_of_the_wrong_role_is_passed_over() {
    let read_only = Server::own(&[("default_transaction_read_only", "on")]).await;
    let writable = Server::shared().await;
    let both = [read_only.addr().port(), writable.addr().port()];
    let reversed = [both[1], both[0]];
    let on = "SELECT current_setting('default_transaction_read_only')";
    for (order, wanted, found) in
        [(both, "read-write", "off"), (reversed, "read-only", "on"), (both, "any", "on"), (reversed, "any", "off")]
    {
        let settings = ports(&order, &format!("target_session_attrs={wanted}"));
        let pool = Pool::builder(writable.config_with(&settings)).build().unwrap();
        assert_eq!(scalar(&pool, on).await, found, "{settings}");
    }
}

#[tokio::test]
async fn a_wrong_role_is_named_and_leaves_no_connection() {
    let server = Server::shared().await;
    let settings = ports(&[server.addr().port()], "target_session_attrs=read-only");
    let pool = Pool::builder(server.config_with(&settings)).name("role").build().unwrap();
    let error = refusal(&pool).await;
    assert!(matches!(error.kind(), ConnectErrorKind::WrongRole { read_only: false, .. }));
    let named =
        format!("127.0.0.1:{}: the server is not read-only, and target_session_attrs=read-only", server.addr().port());
    assert_eq!(error.to_string(), named);
    eventually("no connection is left", LONG, async || server.connection_count("role").await == 0).await;
}

#[tokio::test]
async fn hosts_in_random_order_are_all_reached() {
    let server = Server::shared().await;
    let (one, other) = (Proxy::start(server.addr()).await, Proxy::start(server.addr()).await);
    let settings = ports(&[one.addr().port(), other.addr().port()], "load_balance_hosts=random");
    for _ in 0..50 {
        let pool = Pool::builder(server.config_with(&settings)).build().unwrap();
        drop(pool.get_timeout(LONG).await.unwrap());
        if one.accepted() > 0 && other.accepted() > 0 {
            return;
        }
    }
    panic!("{} and {} of 50", one.accepted(), other.accepted());
}

/// The name has no address, so the pool cannot have looked it up.
#[tokio::test]
async fn hostaddr_saves_the_look_up() {
    let server = Server::shared().await;
    let settings = format!("host=nowhere.invalid hostaddr=127.0.0.1 port={}", server.addr().port());
    let pool = Pool::builder(server.config_with(&settings)).build().unwrap();
    assert_eq!(scalar(&pool, PORT).await, "5432");
    let alone = format!("hostaddr=127.0.0.1 port={}", server.addr().port());
    let pool = Pool::builder(server.config_with(&alone)).build().unwrap();
    assert_eq!(scalar(&pool, PORT).await, "5432");
}

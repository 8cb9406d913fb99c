//! Unix sockets of a server on this machine.

use std::path::Path;

use failfast::{ConnectErrorKind, Pool};

use super::{refusal, scalar, stops_what_timed_out};
use crate::throwaway::Throwaway;

#[tokio::test]
async fn a_host_that_is_a_folder_is_a_unix_socket() {
    if std::env::var_os("DATABASE_URL").is_some() {
        return; // that server's sockets may be anywhere
    }
    let server = Throwaway::start().await.unwrap();
    let over_tcp = Pool::builder(server.config()).build().unwrap();
    let folder = scalar(&over_tcp, "SELECT current_setting('unix_socket_directories')").await;
    assert!(Path::new(&folder).exists(), "PostgreSQL must be installed here: run ./dev setup");

    let tcp = server.config();
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(&folder)
        .port(tcp.get_ports()[0])
        .user(tcp.get_user().unwrap())
        .password(tcp.get_password().unwrap())
        .dbname("postgres");
    let address = "SELECT coalesce(inet_client_addr()::text, 'none')";
    let pool = Pool::builder(config.clone()).build().unwrap();
    assert_eq!(scalar(&pool, address).await, "none");
    assert_ne!(scalar(&over_tcp, address).await, "none");
    stops_what_timed_out(&pool).await;

    #[cfg(feature = "native-tls")]
    {
        let tls = failfast::tls::native_tls().unwrap();
        let pool = Pool::builder(config).build_tls(tls).unwrap();
        assert_eq!(scalar(&pool, address).await, "none");
    }
}

#[tokio::test]
async fn a_missing_socket_is_named() {
    let config = "host=/nowhere port=7 user=u".parse().unwrap();
    let error = refusal(&Pool::builder(config).build().unwrap()).await;
    assert_eq!(*error.kind(), ConnectErrorKind::Io);
    assert_eq!(error.to_string(), "/nowhere/.s.PGSQL.7: no such socket");
}

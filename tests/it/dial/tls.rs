//! TLS with each ready connector, on a server with certificates of this test.

use std::time::Duration;

use failfast::{ConnectError, ConnectErrorKind, Pool, PoolBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio_postgres::NoTls;

use super::{refusal, scalar, stops_what_timed_out};
use crate::pool::LONG;
use crate::support::proxy::{Proxy, Way};
use crate::support::{eventually, server::Server};

const ENCRYPTED: &str = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

/// An authority, its certificate for two names, and an authority that nobody trusts.
const CERTIFICATES: &str = r#"
mkdir /certificates && cd /certificates
new() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 "$@" 2>&1; }
new -keyout ca.key -out ca.crt -subj '/CN=test authority' -addext keyUsage=critical,keyCertSign &&
new -keyout other.key -out other.crt -subj '/CN=other authority' -addext keyUsage=critical,keyCertSign &&
new -CA ca.crt -CAkey ca.key -keyout server.key -out server.crt -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,DNS:failfast.test -addext basicConstraints=critical,CA:FALSE \
    -addext extendedKeyUsage=serverAuth &&
chown postgres server.key
"#;

pub(crate) struct Tls {
    pub(crate) server: Server,
    pub(crate) authority: Vec<u8>,
    other_authority: Vec<u8>,
}

/// Both connectors.
const BUILDS: [fn(PoolBuilder, &[u8]) -> Pool; 2] = [
    |builder, ca| builder.build_tls(failfast::tls::rustls_with_ca(ca).unwrap()).unwrap(),
    |builder, ca| builder.build_tls(failfast::tls::native_tls_with_ca(ca).unwrap()).unwrap(),
];

impl Tls {
    pub(crate) async fn shared() -> &'static Tls {
        static SHARED: OnceCell<Tls> = OnceCell::const_new();
        SHARED.get_or_init(Tls::start).await
    }

    async fn start() -> Tls {
        let server = Server::own(&[]).await;
        server.exec(CERTIFICATES).await;
        for (name, value) in
            [("ssl_cert_file", "/certificates/server.crt"), ("ssl_key_file", "/certificates/server.key"), ("ssl", "on")]
        {
            server.execute(&format!("ALTER SYSTEM SET {name} = '{value}'")).await;
        }
        server.execute("SELECT pg_reload_conf()").await;
        eventually("the certificate is in use", Duration::from_secs(20), async || {
            server.scalar("SHOW ssl_cert_file").await == "/certificates/server.crt"
        })
        .await;
        let authority = server.exec("cat /certificates/ca.crt").await.into_bytes();
        let other_authority = server.exec("cat /certificates/other.crt").await.into_bytes();
        Tls { server, authority, other_authority }
    }

    fn at(&self, host: &str, settings: &str) -> PoolBuilder {
        let addr = self.server.addr();
        let place = format!("hostaddr={} port={}", addr.ip(), addr.port());
        Pool::builder(self.server.config_with(&format!("{host} {place} {settings}")))
    }
}

fn assert_no_tls(error: &ConnectError) {
    assert_eq!(*error.kind(), ConnectErrorKind::Tls, "{error:?}");
    assert!(error.to_string().contains(": no TLS: "), "{error}");
}

/// The pool recognizes a swapped driver's client also over TLS. It keeps one that was only used.
#[tokio::test]
async fn swapped_driver_clients_are_not_pooled() {
    let tls = Tls::shared().await;
    for build in BUILDS {
        let pool = build(tls.at("host=localhost", "sslmode=require"), &tls.authority);
        let (a, mut b) = (pool.get().await.unwrap(), pool.get().await.unwrap());
        a.transaction().await.unwrap().commit().await.unwrap();
        assert_eq!(pool.status().idle, 1);
        let mut a = pool.get().await.unwrap();
        std::mem::swap::<tokio_postgres::Client>(&mut a, &mut b);
        drop((a, b));
        assert_eq!(pool.status().idle, 0);
    }
}

#[tokio::test]
async fn after_a_drain_the_server_has_no_session_over_tls() {
    let tls = Tls::shared().await;
    let admin = tls.server.admin().await;
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'drained_tls'";
    for build in BUILDS {
        for _ in 0..5 {
            let pool = build(tls.at("host=localhost", "sslmode=require").name("drained_tls"), &tls.authority);
            pool.warm_up(4, LONG).await.unwrap();
            assert_eq!(pool.drain(LONG).await, 0);
            assert_eq!(admin.query_one(sessions, &[]).await.unwrap().get::<_, i64>(0), 0);
        }
    }
}

#[tokio::test]
async fn tls_is_used_if_authority_and_host_are_right() {
    let tls = Tls::shared().await;
    for build in BUILDS {
        for (host, settings, encrypted) in [
            ("host=localhost", "sslmode=require", "true"),
            ("host=failfast.test", "sslmode=require", "true"),
            ("host=localhost", "", "true"),
            ("host=localhost", "sslmode=require sslnegotiation=direct", "true"),
            ("host=localhost", "sslmode=require channel_binding=require", "true"),
            ("host=localhost", "sslmode=require channel_binding=disable", "true"),
            ("host=localhost", "sslmode=disable", "false"),
        ] {
            let pool = build(tls.at(host, settings), &tls.authority);
            assert_eq!(scalar(&pool, ENCRYPTED).await, encrypted, "{host} {settings}");
        }
    }
}

#[tokio::test]
async fn a_statement_that_timed_out_is_stopped_through_tls() {
    let tls = Tls::shared().await;
    for build in BUILDS {
        for settings in ["sslmode=require", "sslmode=require sslnegotiation=direct"] {
            let pool = build(tls.at("host=localhost", settings), &tls.authority);
            assert_eq!(scalar(&pool, ENCRYPTED).await, "true");
            stops_what_timed_out(&pool).await;
        }
    }
}

/// Not even `sslmode=prefer` connects without TLS then, because an attacker may be listening.
#[tokio::test]
async fn a_wrong_authority_is_refused() {
    let tls = Tls::shared().await;
    for build in BUILDS {
        for settings in ["sslmode=require", "sslmode=prefer"] {
            let pool = build(tls.at("host=localhost", settings), &tls.other_authority);
            assert_no_tls(&refusal(&pool).await);
        }
    }
    let trusted_here = failfast::tls::native_tls().unwrap();
    let pool = tls.at("host=localhost", "").build_tls(trusted_here).unwrap();
    assert_no_tls(&refusal(&pool).await);
}

#[tokio::test]
async fn a_wrong_host_is_refused() {
    let tls = Tls::shared().await;
    for build in BUILDS {
        for host in ["host=other.test", "host=127.0.0.1", ""] {
            for settings in ["sslmode=require", "sslmode=prefer", "sslmode=require sslnegotiation=direct"] {
                let pool = build(tls.at(host, settings), &tls.authority);
                let error = refusal(&pool).await;
                assert_no_tls(&error);
                let shown = error.to_string().to_lowercase();
                let reasons = ["not valid for name", "hostname mismatch", "ip address mismatch"];
                assert!(reasons.iter().any(|reason| shown.contains(reason)), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn without_a_connector_the_pool_does_not_ask_for_tls() {
    let tls = Tls::shared().await;
    let plain = tls.at("host=localhost", "sslmode=prefer").build().unwrap();
    assert_eq!(scalar(&plain, ENCRYPTED).await, "false");
    let no_tls = tls.at("host=localhost", "").build_tls(NoTls).unwrap();
    assert_eq!(scalar(&no_tls, ENCRYPTED).await, "false");
}

#[tokio::test]
async fn a_server_without_tls() {
    let server = Server::own(&[("ssl", "off")]).await;
    let authority = &Tls::shared().await.authority;
    let place = format!("host=127.0.0.1 port={}", server.addr().port());
    for build in BUILDS {
        let required = server.config_with(&format!("{place} sslmode=require"));
        let error = refusal(&build(Pool::builder(required), authority)).await;
        assert_no_tls(&error);
        assert!(error.to_string().ends_with("the server offers no TLS, and sslmode=require"), "{error}");
        let preferred = build(Pool::builder(server.config_with(&place)), authority);
        assert_eq!(scalar(&preferred, ENCRYPTED).await, "false");
    }
}

/// An attacker who writes to the stream before it is encrypted must not be able to speak for the server.
#[tokio::test]
async fn bytes_after_the_answer_do_not_count_as_the_servers() {
    const LOGGED_IN: &[u8] = b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
    let error = answered(LOGGED_IN).await;
    assert_no_tls(&error);
}

#[tokio::test]
async fn another_service_is_not_a_server() {
    let error = answered(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert_no_tls(&error);
    assert!(error.to_string().ends_with("is not that of a PostgreSQL server"), "{error}");
    let error = answered(b"E\0\0\0\x05\0").await;
    assert!(error.to_string().ends_with("with an error"), "{error}");
}

/// Returns the error of a dial that gets `answer` to its request for TLS.
async fn answered(answer: &'static [u8]) -> ConnectError {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 8]).await.unwrap();
        stream.write_all(answer).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let config = format!("host=localhost hostaddr=127.0.0.1 port={port} user=u password=p");
    let builder = Pool::builder(config.parse().unwrap());
    let error = refusal(&BUILDS[0](builder, &Tls::shared().await.authority)).await;
    service.abort();
    error
}

#[tokio::test]
async fn a_server_that_never_answers_has_only_connect_timeout() {
    let tls = Tls::shared().await;
    let proxy = Proxy::start(tls.server.addr()).await;
    proxy.stall();
    let settings = format!("host=localhost hostaddr=127.0.0.1 port={}", proxy.addr().port());
    let builder = Pool::builder(tls.server.config_with(&settings)).connect_timeout(Duration::from_millis(100));
    let error = refusal(&BUILDS[0](builder, &tls.authority)).await;
    assert_eq!(*error.kind(), ConnectErrorKind::Timeout(Duration::from_millis(100)));
}

/// A cancel is a connection of its own: TCP, the question for TLS, its handshake, the request and its end.
#[tokio::test]
async fn a_cancel_at_600_ms_a_round_trip_stops_the_statement_and_keeps_the_connection() {
    let tls = Tls::shared().await;
    let proxy = Proxy::start(tls.server.addr()).await;
    for way in [Way::ToServer, Way::ToClient] {
        proxy.delay(way, Duration::from_millis(300));
    }
    let place = format!("host=localhost hostaddr={} port={} sslmode=require", proxy.addr().ip(), proxy.addr().port());
    let builder = Pool::builder(tls.server.config_with(&place)).name("far_tls").max_size(1);
    let pool = BUILDS[0](builder.connect_timeout(LONG).acquire_timeout(LONG).query_timeout(LONG), &tls.authority);
    let process = async || pool.get_timeout(LONG).await.unwrap().process_id();
    let before = process().await;
    pool.call().timeout(Duration::from_millis(100)).batch_execute("SELECT pg_sleep(60)").await.unwrap_err();
    assert_eq!(process().await, before);
}

use tokio_postgres::NoTls;
use tokio_postgres::tls::{NoTlsError, NoTlsStream};

use super::check::LONGEST_TIMEOUT;
use super::*;

fn builder() -> PoolBuilder {
    Pool::builder("host=localhost user=u password=hunter2".parse().unwrap())
}

fn refusal(builder: PoolBuilder) -> String {
    builder.build().expect_err("a bad setting").to_string()
}

fn driver_refusal(settings: &str) -> String {
    refusal(Pool::builder(settings.parse().unwrap()))
}

fn tls_refusal(settings: &str) -> String {
    let built = Pool::builder(settings.parse().unwrap()).build_tls(Unused);
    built.expect_err("a bad setting").to_string()
}

/// A connector that is never called.
#[derive(Clone)]
struct Unused;

impl MakeTlsConnect<Socket> for Unused {
    type Stream = NoTlsStream;
    type TlsConnect = NoTls;
    type Error = NoTlsError;

    fn make_tls_connect(&mut self, _: &str) -> Result<NoTls, NoTlsError> {
        Ok(NoTls)
    }
}

#[test]
fn every_default_is_accepted() {
    let status = builder().build().unwrap().status();
    assert_eq!((&*status.name, status.max_size, status.max_waiting), ("failfast", 10, 10_000));
    let large = builder().max_size(500).build().unwrap();
    assert_eq!(large.status().max_waiting, 50_000);
    let largest = builder().max_size(262_143).build().unwrap();
    assert_eq!(largest.status().max_waiting, 1_000_000);
}

#[test]
fn name() {
    assert_eq!(refusal(builder().name("")), r#"name = "": must be 1 to 63 printable ASCII characters"#);
    assert_eq!(refusal(builder().name("a\nb")), r#"name = "a\nb": must be 1 to 63 printable ASCII characters"#);
    assert!(builder().name("x".repeat(63)).build().is_ok());
    assert!(refusal(builder().name("x".repeat(64))).starts_with("name = "));
}

#[test]
fn max_size() {
    assert_eq!(refusal(builder().max_size(0)), "max_size = 0: must be 1 to 262143");
    assert_eq!(refusal(builder().max_size(262_144)), "max_size = 262144: must be 1 to 262143");
    assert_eq!(builder().max_size(0).build().unwrap_err().setting(), "max_size");
}

#[test]
fn max_waiting() {
    assert_eq!(refusal(builder().max_waiting(1_000_001)), "max_waiting = 1000001: must be 0 to 1000000");
    assert!(builder().max_waiting(0).build().is_ok());
}

#[test]
fn max_connecting() {
    assert_eq!(refusal(builder().max_connecting(0)), "max_connecting = 0: must be 1 to 1000");
}

#[test]
fn acquire_timeout() {
    let none = refusal(builder().acquire_timeout(Duration::ZERO));
    assert_eq!(none, "acquire_timeout = 0ns: must be more than 0 and at most 24 hours");
    let endless = refusal(builder().acquire_timeout(Duration::MAX));
    assert!(endless.starts_with("acquire_timeout = 18446744073709551615"), "{endless}");
}

#[test]
fn connect_timeout() {
    let none = refusal(builder().connect_timeout(Duration::ZERO));
    assert_eq!(none, "connect_timeout = 0ns: must be more than 0 and at most 24 hours");
}

/// Otherwise the breaker would report that the probe hung, and hide its error.
#[tokio::test(start_paused = true)]
async fn a_probe_has_the_time_of_a_statement() {
    use crate::breaker::{Export, State};

    let query_timeout = Duration::from_secs(60);
    let pool = builder().query_timeout(query_timeout).build().unwrap();
    pool.breaker().import(&Export { state: State::HalfOpen, ..Export::default() });
    let _probe = pool.breaker().try_acquire().unwrap();
    tokio::time::advance(query_timeout).await;
    assert_eq!(pool.breaker().state(), State::HalfOpen);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(pool.breaker().state(), State::Open);

    let breaker = BreakerConfig::default().probe_timeout(Duration::ZERO);
    assert!(refusal(builder().breaker(breaker)).starts_with("breaker.probe_timeout = 0ns"));
    assert!(builder().query_timeout(LONGEST_TIMEOUT).build().is_ok());
}

#[test]
fn host() {
    assert_eq!(driver_refusal("user=u"), "host = (none): a host or a hostaddr is needed");
    let mismatch = driver_refusal("host=a,b hostaddr=127.0.0.1");
    assert_eq!(mismatch, "hostaddr = 1: must be as many as there are hosts");
    let ports = driver_refusal("host=a,b port=1,2,3");
    assert_eq!(ports, "port = 3: must be one, or as many as there are hosts");
}

#[test]
fn keepalives_out_of_the_kernels_range_are_refused() {
    assert_eq!(driver_refusal("host=a keepalives_idle=32768"), "keepalives_idle = 32768s: must be 1 s to 32767 s");
    assert_eq!(
        driver_refusal("host=a keepalives_interval=32768"),
        "keepalives_interval = 32768s: must be 1 s to 32767 s"
    );
    assert_eq!(driver_refusal("host=a keepalives_retries=128"), "keepalives_retries = 128: must be 1 to 127");
    let none = |config: &mut Config| refusal(Pool::builder(config.host("a").clone()));
    assert_eq!(none(Config::new().keepalives_idle(Duration::ZERO)), "keepalives_idle = 0ns: must be 1 s to 32767 s");
    let off = "host=a keepalives=0 keepalives_idle=32768";
    assert!(Pool::builder(off.parse().unwrap()).build().is_ok());
}

#[cfg(target_os = "linux")]
#[test]
fn a_user_timeout_out_of_the_kernels_range_is_refused() {
    assert_eq!(
        driver_refusal("host=a tcp_user_timeout=2147484"),
        "tcp_user_timeout = 2147484s: must be less than 2^31 ms"
    );
    let most = "host=a tcp_user_timeout=2147483";
    assert!(Pool::builder(most.parse().unwrap()).build().is_ok());
}

#[test]
fn an_empty_host_is_refused() {
    let empty = driver_refusal("host=a,,b");
    assert_eq!(empty, "host = (empty): must be a name, an address or a folder");
}

#[cfg(unix)]
#[test]
fn a_unix_socket_has_neither_an_address_nor_tls() {
    let address = driver_refusal("host=/run/postgresql hostaddr=127.0.0.1");
    assert_eq!(address, "hostaddr = 1: a host that is a Unix socket has no address");
    let required = tls_refusal("host=a,/run/postgresql sslmode=require");
    assert_eq!(required, "sslmode = require: a Unix socket has no TLS");
}

#[test]
fn tls_needs_a_connector() {
    let missing = "needs a TLS connector: build_tls() instead of build()";
    assert_eq!(driver_refusal("host=a sslmode=require"), format!("sslmode = require: {missing}"));
    assert_eq!(driver_refusal("host=a channel_binding=require"), format!("channel_binding = require: {missing}"));
    let no_tls = Pool::builder("host=a sslmode=require".parse().unwrap()).build_tls(NoTls);
    assert_eq!(no_tls.unwrap_err().setting(), "sslmode");
}

#[test]
fn options_that_only_tls_can_fulfil_need_sslmode_require() {
    assert_eq!(
        tls_refusal("host=a sslnegotiation=direct"),
        "sslnegotiation = direct: goes with sslmode=require, verify-ca or verify-full only"
    );
    assert_eq!(
        tls_refusal("host=a channel_binding=require"),
        "channel_binding = require: goes with sslmode=require, verify-ca or verify-full only"
    );
    let both = "host=a sslmode=require sslnegotiation=direct channel_binding=require";
    assert!(Pool::builder(both.parse().unwrap()).build_tls(Unused).is_ok());
}

#[test]
fn debug_shows_no_password() {
    let pool = builder().build().unwrap();
    assert!(!format!("{pool:?} {:?}", builder()).contains("hunter2"));
}

/// The driver takes a part of such a password for a host or a database name.
#[test]
fn a_host_that_may_hold_a_part_of_a_password_is_refused_and_not_shown() {
    for url in [
        "postgres://app:p@zanzibar@127.0.0.1/db",
        "postgres://app:p@zan/zibar@127.0.0.1/db",
        "postgres://app:p/a@zanzibar@127.0.0.1/db",
        "postgres://app:p@z#zanzibar@127.0.0.1/db",
        "postgres://app:p@a%23zanzibar/db",
        "postgres://app:p@a zanzibar/db",
    ] {
        let builder = Pool::builder(url.parse().unwrap());
        let shown = format!("{builder:?}");
        let without = refusal(builder.clone());
        let with_tls = builder.build_tls(Unused).expect_err(url).to_string();
        for text in [shown, without, with_tls] {
            assert!(text.contains("%40") && !text.contains("zan") && !text.contains("zibar"), "{url}: {text}");
        }
    }
    assert!(Pool::builder_by_url("postgres://app:p%40ssword@127.0.0.1/db%40x").unwrap().build().is_ok());
}

#[test]
fn tls_options_need_a_connector_that_follows_them() {
    let refused = |url: &str| Pool::builder_by_url(url).unwrap().build().expect_err(url).to_string();
    let foreign = |url: &str| Pool::builder_by_url(url).unwrap().build_tls(Unused).expect_err(url).to_string();
    let missing = "needs a TLS connector: build_tls() instead of build()";
    let other = "needs tls::rustls() or tls::native_tls(): another connector verifies as it was made";
    for (url, option) in [
        ("postgres://h/?sslmode=verify-full", "sslmode = verify-full"),
        ("postgres://h/?sslmode=verify-ca&sslrootcert=f", "sslmode = verify-ca"),
        ("postgres://h/?sslrootcert=f", "sslrootcert = f"),
        ("postgres://h/?sslrootcert=system", "sslrootcert = system"),
        ("postgres://h/?sslcert=c&sslkey=k", "sslcert = c"),
    ] {
        assert_eq!((refused(url), foreign(url)), (format!("{option}: {missing}"), format!("{option}: {other}")));
    }
    let disabled = "postgres://h/?sslmode=disable&sslrootcert=f&sslcert=c&sslkey=k";
    assert!(Pool::builder_by_url(disabled).unwrap().build().is_ok());
    assert!(Pool::builder_by_url(disabled).unwrap().build_tls(Unused).is_ok());
}

//! Real causes of failed dials. The error names each cause, and a cause in this process does not count against the
//! server.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Duration;

use failfast::breaker::State;
use failfast::{BreakerConfig, ConnectErrorKind, Error, Pool};
use tokio::process::Command;
use tokio::time::timeout;

use super::LONG;
use crate::support::{free_port, server::Server};

/// A circuit that opens at the first failure that counts.
fn pool(config: &str) -> Pool {
    let breaker = BreakerConfig::default().volume_threshold(1);
    let builder = Pool::builder(config.parse().unwrap()).breaker(breaker).connect_timeout(LONG);
    builder.build().unwrap()
}

/// The error of the first dial, and the state of the circuit after it.
async fn outcome(config: &str) -> (ConnectErrorKind, String, State) {
    let pool = pool(config);
    match pool.get_timeout(LONG).await {
        Err(Error::Connect { source, .. } | Error::CircuitOpen { last_connect_error: Some(source), .. }) => {
            (source.kind().clone(), source.to_string(), pool.breaker().state())
        }
        other => panic!("{config}: {other:?}"),
    }
}

async fn assert_counted(config: &str, words: &str) {
    let (kind, said, state) = outcome(config).await;
    assert!(said.ends_with(words), "{config}: {said}");
    assert_eq!((kind, state), (ConnectErrorKind::Io, State::Open), "{config}: {said}");
}

async fn assert_not_counted(config: &str, words: &str) {
    let (kind, said, state) = outcome(config).await;
    assert!(said.ends_with(words), "{config}: {said}");
    assert_eq!((kind, state), (ConnectErrorKind::Local, State::Closed), "{config}: {said}");
}

#[tokio::test]
async fn the_network_and_the_server_are_counted() {
    assert_counted(&format!("host=127.0.0.1 port={} user=u", free_port()), ": connection refused").await;
    assert_counted("host=/nowhere port=7 user=u", ": no such socket").await;
    // A broadcast address has no route for a connection.
    assert_counted("host=255.255.255.255 user=u", ": the network is unreachable").await;
    // No container has this address in the containers' network.
    let own = Server::shared().await.exec("hostname -i").await;
    let network = own.trim().rsplit_once('.').unwrap().0;
    assert_counted(&format!("host={network}.253 user=u"), ": no route to the host").await;
}

#[tokio::test]
async fn a_path_that_is_too_long_is_not_counted() {
    let words = ": the path of the socket is too long for this system";
    assert_not_counted(&format!("host=/{} user=u", "x".repeat(120)), words).await;
}

const FOLDER: &str = "FAILFAST_FORBIDDEN_FOLDER";

/// Runs itself again without the privileges of root, because root may do everything.
#[tokio::test]
async fn a_socket_without_permission_is_not_counted() {
    if let Ok(folder) = std::env::var(FOLDER) {
        let words = ": this process has no permission to connect";
        return assert_not_counted(&format!("host={folder} port=7 user=u"), words).await;
    }
    let folder = std::env::temp_dir().join(format!("failfast-{:016x}", fastrand::u64(..)));
    fs::create_dir(&folder).unwrap();
    let socket = folder.join(".s.PGSQL.7");
    let _listener = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, Permissions::from_mode(0o000)).unwrap();
    let mut child = Command::new("sh");
    child
        .args(["-c", r#"test "$(id -u)" != 0 || set -- setpriv --inh-caps=-all --bounding-set=-all "$@"; exec "$@""#])
        .arg("sh")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "dial::causes::a_socket_without_permission_is_not_counted"])
        .env(FOLDER, &folder)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(2 * LONG, child.output()).await;
    fs::remove_dir_all(&folder).unwrap();
    let output = output.unwrap().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
}

#[cfg(feature = "rustls")]
const WITHOUT_AUTHORITIES: &str = "FAILFAST_WITHOUT_AUTHORITIES";

/// Runs itself again in a process that finds no trusted authorities.
#[cfg(feature = "rustls")]
#[tokio::test]
async fn without_authorities_only_a_dial_with_tls_fails() {
    if let Ok(url) = std::env::var(WITHOUT_AUTHORITIES) {
        for (mode, connects) in [("disable", true), ("prefer", false), ("require", false)] {
            let builder = Pool::builder_by_url(&format!("{url}?sslmode={mode}")).unwrap();
            let pool = builder.build_tls(failfast::tls::rustls().unwrap()).unwrap();
            match pool.get_timeout(LONG).await {
                Ok(_) => assert!(connects, "{mode}"),
                Err(Error::Connect { source, .. }) if !connects => {
                    assert_eq!(*source.kind(), ConnectErrorKind::Tls);
                    assert!(source.to_string().contains("this machine trusts no authorities"), "{source}");
                }
                Err(error) => panic!("{mode}: {error}"),
            }
        }
        return;
    }
    let server = Server::own(&[]).await;
    server
        .exec(
            "cd \"$PGDATA\" && openssl req -new -x509 -days 9 -nodes -subj /CN=db -out server.crt -keyout server.key 2>&1 \
             && chown postgres server.crt server.key && chmod 600 server.key",
        )
        .await;
    server.execute("ALTER SYSTEM SET ssl = on").await;
    server.execute("SELECT pg_reload_conf()").await;
    crate::support::eventually("TLS is on", LONG, async || server.scalar("SHOW ssl").await == "on").await;
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "dial::causes::without_authorities_only_a_dial_with_tls_fails"])
        .env(WITHOUT_AUTHORITIES, server.url())
        .env("SSL_CERT_FILE", "/nowhere/ca.crt")
        .env("SSL_CERT_DIR", "/nowhere")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(4 * LONG, child.output()).await.unwrap().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
}

/// The pauses between dials grow while a lasting cause exists.
#[tokio::test]
async fn a_cause_in_this_process_is_lasting() {
    let pool = pool(&format!("host=/{} user=u", "x".repeat(120)));
    let Err(Error::Connect { .. }) = pool.get().await else { panic!("nothing is there") };
    let Err(Error::Connect { retry_after, .. }) = pool.get().await else { panic!("nothing is there") };
    assert!(retry_after > Duration::from_millis(800), "{retry_after:?}");
}

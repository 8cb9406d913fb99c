//! Settings from a file and from the environment. The test builds a pool from them on a real server.

use std::process::Stdio;
use std::time::Duration;

use failfast::{Config, Error, Settings};
use tokio::process::Command;
use tokio::time::timeout;
use tokio_postgres::config::Host;

use crate::pool::LONG;
use crate::support::{eventually, server::Server};

const FILE: &str = r#"
    name = "from_a_file"
    max_size = 2
    max_waiting = 7
    min_idle = 2
    shedding = "off"
    acquire_timeout = "150ms"
    query_timeout = "300 ms"

    [breaker]
    volume_threshold = 3
    reset_timeout = "50s"
    reset_timeout_jitter = 0

    [retry]
    max_attempts = 1

    [server_timeouts]
    lock = "4s"
    idle_in_transaction = "never"
"#;

fn url(config: &Config) -> String {
    let host = match &config.get_hosts()[0] {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => panic!("{}", path.display()),
    };
    let password = String::from_utf8_lossy(config.get_password().unwrap()).into_owned();
    let (user, database) = (config.get_user().unwrap(), config.get_dbname().unwrap());
    format!("postgres://{user}:{password}@{host}:{}/{database}", config.get_ports()[0])
}

#[tokio::test]
async fn a_pool_from_a_file_has_the_files_settings() {
    let text = format!("url = \"{}\"\n{FILE}", url(&Server::shared().await.config()));
    let settings: Settings = toml::from_str(&text).unwrap();
    let pool = settings.builder_by_url().unwrap().build().unwrap();
    let status = pool.status();
    assert_eq!((&*status.name, status.max_size, status.max_waiting), ("from_a_file", 2, 7));
    eventually("the pool keeps two idle connections", LONG, async || pool.status().idle == 2).await;

    let clients = [pool.get().await.unwrap(), pool.get().await.unwrap()];
    let error = pool.get().await.unwrap_err();
    let Error::AcquireTimeout { timeout, .. } = error else { panic!("{error:?}") };
    assert_eq!(timeout, Duration::from_millis(150));
    for (name, value) in
        [("lock_timeout", "4s"), ("idle_in_transaction_session_timeout", "0"), ("statement_timeout", "1300ms")]
    {
        let row = clients[0].query_one("SELECT current_setting($1)", &[&name]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), value, "{name}");
    }
    drop(clients);

    pool.breaker().reset("the earlier failures are not part of this check");
    for _ in 0..3 {
        let error = pool.query("SELECT pg_sleep(20)", &[]).await.unwrap_err();
        let Error::QueryTimeout { after, .. } = error else { panic!("{error:?}") };
        assert!((Duration::from_millis(300)..Duration::from_secs(10)).contains(&after), "{after:?}");
    }
    let error = pool.query("SELECT 1", &[]).await.unwrap_err();
    let Error::CircuitOpen { retry_after, .. } = error else { panic!("{error:?}") };
    assert!((Duration::from_secs(31)..=Duration::from_secs(50)).contains(&retry_after), "{retry_after:?}");
}

/// Runs itself again with other variables, because those of this process belong to all its tests.
#[tokio::test]
async fn a_pool_from_the_environment_has_its_settings() {
    const PREFIX: &str = "FAILFAST_SETTINGS";
    if std::env::var_os("FAILFAST_SETTINGS_URL").is_some() {
        let pool = Settings::from_env(PREFIX).unwrap().builder_by_url().unwrap().build().unwrap();
        let status = pool.status();
        assert_eq!((&*status.name, status.max_size), ("from_env", 3));
        let error = pool.query("SELECT pg_sleep(20)", &[]).await.unwrap_err();
        assert!(matches!(error, Error::QueryTimeout { .. }), "{error:?}");
        println!("the pool had {} connections at most", status.max_size);
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "settings::a_pool_from_the_environment_has_its_settings", "--nocapture"]);
    child.env("FAILFAST_SETTINGS_URL", url(&Server::shared().await.config()));
    child.env("FAILFAST_SETTINGS_NAME", "from_env").env("FAILFAST_SETTINGS_MAX_SIZE", "3");
    child.env("FAILFAST_SETTINGS_QUERY_TIMEOUT", "300ms").env("FAILFAST_SETTINGS_RETRY__MAX_ATTEMPTS", "1");
    let run = child.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(LONG, run).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("the pool had 3 connections at most"), "{said}");
}

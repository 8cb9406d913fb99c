//! The error says that the process is out of file descriptors, whether a socket or a file of the resolver needs one.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use failfast::{ConnectErrorKind, Pool};
use tokio::process::Command;
use tokio::time::timeout;

use super::{LONG, refusal};
use crate::support::{eventually, server::Server};

const URL: &str = "FAILFAST_FEW_FILES";

/// Runs itself again in a process with a low limit of open files.
#[tokio::test]
async fn too_many_open_files() {
    if let Ok(url) = std::env::var(URL) {
        return with_few_files(&url).await;
    }
    let mut child = Command::new("sh");
    child
        .args(["-c", r#"ulimit -n 64 && exec "$0" --exact dial::files::too_many_open_files"#])
        .arg(std::env::current_exe().unwrap())
        .env(URL, Server::shared().await.url())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(2 * LONG, child.output()).await.unwrap().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
}

async fn with_few_files(url: &str) {
    let all = std::iter::from_fn(|| File::open("/dev/null").ok()).collect::<Vec<_>>();
    assert!(!all.is_empty());
    let pool = Pool::builder(url.parse().unwrap()).build().unwrap();
    let error = refusal(&pool).await;
    assert_eq!(*error.kind(), ConnectErrorKind::TooManyOpenFiles, "{error:?}");
    assert!(error.to_string().ends_with(": too many open files in this process"), "{error}");
    for name in ["localhost", "nowhere.invalid"] {
        let config = format!("host={name} user=u").parse().unwrap();
        let error = refusal(&Pool::builder(config).build().unwrap()).await;
        assert_eq!(*error.kind(), ConnectErrorKind::TooManyOpenFiles, "{error:?}");
    }
    drop(all);
    eventually("the pool is back", LONG, async || pool.get_timeout(Duration::from_secs(1)).await.is_ok()).await;
}

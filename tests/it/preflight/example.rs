//! The exit status of `examples/preflight.rs`, as a pipeline sees it.

use std::process::Command;

use super::role;
use crate::support::server::Server;

fn run(url: Option<&str>, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_example-preflight"));
    command.args(arguments).env_remove("DATABASE_URL");
    if let Some(url) = url {
        command.env("DATABASE_URL", url);
    }
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_ends_with_the_status_of_its_report() {
    let server = Server::shared().await;
    role(server, "pre_example").await;
    server.execute("ALTER ROLE pre_example SET idle_in_transaction_session_timeout = '1min'").await;
    let url = format!("postgresql://pre_example:secret@{}/failfast?application_name=pre_example", server.addr());
    // A session of the fleet, so that its demand is known.
    let (_instance, driving) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(driving);

    let arguments = ["--table", "t_pre_example", "--instances", "2", "--surge", "1", "--max-size", "4"];
    let (code, out, _) = run(Some(&url), &arguments);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("statement_timeout is not set"), "{out}");

    server.execute("ALTER ROLE pre_example SET statement_timeout = '5s'").await;
    let (code, out, _) = run(Some(&url), &arguments);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.starts_with("preflight: 0 critical, 0 not known"), "{out}");

    let (code, out, _) = run(Some(&url), &["--table", "no_such_table"]);
    assert_eq!(code, Some(2), "{out}");
    let (code, _, error) = run(Some(&url), &["--tabel", "orders"]);
    assert!(code == Some(2) && error.starts_with("usage: preflight "), "{error}");
    let (code, _, error) = run(None, &[]);
    assert!(code == Some(2) && error.starts_with("set DATABASE_URL"), "{error}");
}

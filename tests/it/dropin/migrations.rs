//! Migrations by refinery. It needs the driver's own client, which the guard reaches by three derefs.

use failfast::Client;

use crate::pool::shared;
use crate::support::server::Server;

mod embedded {
    refinery::embed_migrations!("it/dropin/migrations");
}

/// Other tests use the same database, so this runner has a table of its own.
fn runner() -> refinery::Runner {
    let mut runner = embedded::migrations::runner();
    runner.set_migration_table_name("dropin_history");
    runner
}

async fn migrate(mut client: Client) -> Vec<String> {
    let report = runner().run_async(&mut ***client).await.unwrap();
    report.applied_migrations().iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn refinery_migrates_on_the_guard_and_leaves_it_clean() {
    let server = Server::shared().await;
    let pool = shared("dropin_migrations").await.max_size(1).build().unwrap();
    let process_id = pool.get().await.unwrap().process_id();
    assert_eq!(migrate(pool.get().await.unwrap()).await, ["V1__items", "V2__prices"]);
    assert!(migrate(pool.get().await.unwrap()).await.is_empty(), "once");

    let broken =
        refinery::Migration::unapplied("V3__broken", "CREATE TABLE dropin_half (n int); SELECT 1 / 0").unwrap();
    let mut migrations = runner().get_migrations().clone();
    migrations.push(broken);
    let mut runner = refinery::Runner::new(&migrations);
    runner.set_migration_table_name("dropin_history");
    let mut client = pool.get().await.unwrap();
    let failed = runner.run_async(&mut ***client).await;
    assert!(failed.is_err());
    drop(client);

    let next = pool.get().await.unwrap();
    assert_eq!(next.process_id(), process_id, "the pool closed the connection");
    next.execute("INSERT INTO dropin_items (name, cents) VALUES ('apple', 50)", &[]).await.unwrap();
    assert_eq!(
        server.scalar("SELECT cents FROM dropin_items").await,
        "50",
        "the failed migration left a transaction open"
    );
    assert_eq!(server.scalar("SELECT to_regclass('dropin_half') IS NULL").await, "t");
}

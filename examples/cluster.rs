//! A primary and its replicas as one: writes, reads from replicas by how fresh they have to be, and a read of what was
//! just written. While it runs, fail over, stop a replica or pause its replay, and read what it prints.
//!
//! `DATABASE_URL=postgres://app@db1,db2,db3/orders cargo run --release --features cluster --example cluster`. With one
//! host it works, too, but every read goes there. It makes a table, `cluster_example`, and drops it. Ends after ten
//! rounds, or after as many as its argument says.

use std::env;
use std::error::Error;
use std::time::{Duration, Instant};

use failfast::{Cluster, Event, Freshness, Transaction};
use tokio::time::sleep;

/// How long the service waits for its primary at the start.
const PATIENCE: Duration = Duration::from_secs(10);
/// The deadline of a write. It may wait for a failover.
const LIMIT: Duration = Duration::from_secs(5);
const ROUND: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL: postgres://app@db1,db2,db3/orders")?;
    let rounds: u32 = env::args().nth(1).map_or(Ok(10), |rounds| rounds.parse())?;
    let cluster = Cluster::builder_by_urls([url.as_str()])?
        .pool(|builder| builder.name("orders").max_size(5).acquire_timeout(Duration::from_millis(500)))
        .observer(|event: &Event| println!("  {event}"))
        .build()?;
    cluster.warm_up(1, PATIENCE).await?;
    cluster.batch_execute("CREATE TABLE IF NOT EXISTS cluster_example (n int8)").await?;
    cluster.execute("INSERT INTO cluster_example VALUES (0)", &[]).await?;
    for round in 1..=rounds {
        if let Err(error) = one_round(&cluster).await {
            println!("round {round}: {error}; come back after {:?}", error.retry_after());
        }
        sleep(ROUND).await;
    }
    for host in cluster.hosts() {
        println!("{host}");
    }
    cluster.batch_execute("DROP TABLE cluster_example").await?;
    cluster.drain(LIMIT).await;
    Ok(())
}

async fn one_round(cluster: &Cluster) -> Result<(), failfast::Error> {
    // A transaction that was not committed runs again on the new primary.
    let add = async |tx: Transaction| tx.execute("UPDATE cluster_example SET n = n + 1", &[]).await;
    let (_, position) = cluster.call().across_failover().deadline(LIMIT).transaction_at(add).await?;
    let written = Instant::now();

    let sql = "SELECT n, pg_is_in_recovery() FROM cluster_example";
    let reads = [
        // Another process has the position from a header or a cookie.
        ("after the position", cluster.call().after(position)),
        ("after the write", cluster.call().after(written)),
        ("within two seconds", cluster.call().read(Freshness::Within(Duration::from_secs(2)))),
        ("any", cluster.call().read(Freshness::Any)),
    ];
    println!("wrote, at {position}");
    for (what, call) in reads {
        let row = call.query_one(sql, &[]).await?;
        let server = if row.get(1) { "a replica" } else { "the primary" };
        println!("  {what}: {} from {server}", row.get::<_, i64>(0));
    }
    Ok(())
}

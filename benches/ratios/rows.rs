//! Times many rows through a connection of the pool, which reads the server's messages, beside the plain driver.

use std::time::{Duration, Instant};

use failfast::Pool;
use tokio_postgres::{Client, NoTls};

use super::Report;
use super::support::Throwaway;
use super::turns::{self, Plan, Ratio, Side};

const PLAN: Plan = Plan { sets: 12, rounds: 6 };
const ROWS: usize = 100_000;
/// Rows like those of a table: a number, a text, a time.
const SQL: &str = "SELECT n, 'customer number ' || n, now() FROM generate_series(1, 100000) n";

pub(super) async fn measure(server: &Throwaway, report: &mut Report) {
    if report.wants("rows-100000") {
        many_rows(server).await.at_most(report, "rows-100000", 1.02);
    }
}

async fn many_rows(server: &Throwaway) -> Ratio {
    let prepare = async || {
        let pool = Pool::builder(server.config()).max_size(1).build().expect("good settings");
        let ours = pool.get_timeout(Duration::from_secs(20)).await.expect("a connection");
        (ours, plain(server).await)
    };
    turns::measure(&format!("{ROWS} rows"), PLAN, prepare, async |(ours, theirs), side| match side {
        Side::Ours => fetch(ours).await,
        Side::Theirs => fetch(theirs).await,
    })
    .await
}

async fn plain(server: &Throwaway) -> Client {
    let (client, connection) = server.config().connect(NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

async fn fetch(client: &Client) -> Duration {
    let begun = Instant::now();
    let rows = client.query(SQL, &[]).await.expect("rows");
    assert_eq!(rows.len(), ROWS);
    begun.elapsed()
}

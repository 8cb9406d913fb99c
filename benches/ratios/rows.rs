//! Many rows through a connection on which we listen, beside the plain driver.

use std::time::{Duration, Instant};

use failfast::Pool;
use tokio_postgres::{Client, NoTls};

use super::support::Throwaway;
use super::{Report, median};

const SETS: usize = 12;
const ROUNDS: usize = 9;
const ROWS: usize = 100_000;
/// Like those of a table: a number, a text, a time.
const SQL: &str = "SELECT n, 'customer number ' || n, now() FROM generate_series(1, 100000) n";

pub(super) async fn measure(server: &Throwaway, report: &mut Report) {
    if report.wants("rows-100000") {
        report.at_most("rows-100000", many_rows(server).await, 1.02);
    }
}

/// Ours and two plain connections take turns; `-aa` is the ratio of those two: how far the machine can be trusted. Each is compared with what
/// was measured just before or after it, because a fetch is long enough for the machine to change. New ones several times over: it matters where in memory
/// they happen to lie.
async fn many_rows(server: &Throwaway) -> f64 {
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..SETS {
        let pool = Pool::builder(server.config()).max_size(1).build().expect("good settings");
        let ours = pool.get_timeout(Duration::from_secs(20)).await.expect("a connection");
        let (theirs, others) = (plain(server).await, plain(server).await);
        let clients: [&Client; 3] = [&ours, &theirs, &others];
        for round in 0..ROUNDS {
            for turn in 0..3 {
                let which = (round + turn) % 3;
                times[which].push(fetch(clients[which]).await);
            }
        }
    }
    let [ours, theirs, others] = times;
    println!("# rows-100000-aa {:.3}", median_ratio(&others, &theirs));
    let ratio = median_ratio(&ours, &theirs);
    println!("# {ROWS} rows: {:.1?} beside {:.1?}", median(ours), median(theirs));
    ratio
}

fn median_ratio(ours: &[Duration], theirs: &[Duration]) -> f64 {
    let mut ratios: Vec<_> = ours.iter().zip(theirs).map(|(ours, theirs)| ours.div_duration_f64(*theirs)).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
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

//! Times a busy pool that is looked at four times a second, as `examples/top.rs` does, beside one that is not.

use std::time::{Duration, Instant};

use failfast::Pool;
use futures_util::future::join_all;

use super::Report;
use super::support::Throwaway;
use super::turns::{self, Plan, Side};

const CONNECTIONS: usize = 10;
const TASKS: usize = 16;
/// The calls of one task. All tasks together need about a quarter of a second for them.
const CALLS: usize = 1_200;

pub(super) async fn measure(server: &Throwaway, report: &mut Report) {
    if !report.wants("holders") {
        return;
    }
    let prepare = async || {
        let builder = Pool::builder(server.config()).max_size(CONNECTIONS).acquire_timeout(Duration::from_secs(60));
        let pool = builder.build().expect("good settings");
        pool.warm_up(CONNECTIONS, Duration::from_secs(60)).await.expect("connections");
        pool
    };
    let what = format!("{} calls by {TASKS} tasks, looked at once", TASKS * CALLS);
    let ratio = turns::measure(&what, Plan { sets: 3, rounds: 18 }, prepare, async |pool, side| {
        let begun = Instant::now();
        let calls = join_all((0..TASKS).map(|_| calls(pool.clone())));
        if side == Side::Ours {
            let (looks, _) = tokio::join!(look(pool), calls);
            assert!(looks <= CONNECTIONS, "{looks} holders of {CONNECTIONS} connections");
        } else {
            calls.await;
        }
        begun.elapsed()
    })
    .await;
    ratio.at_most(report, "holders", 1.01);
}

async fn calls(pool: Pool) {
    let task = tokio::spawn(async move {
        for _ in 0..CALLS {
            pool.query_one("SELECT 1", &[]).await.expect("a row");
        }
    });
    task.await.expect("no panic");
}

/// Returns how many holders there are while the calls run.
async fn look(pool: &Pool) -> usize {
    tokio::time::sleep(Duration::from_millis(50)).await;
    let status = pool.status();
    assert!(status.in_use + status.settling + status.idle <= CONNECTIONS, "{status}");
    pool.holders().len()
}

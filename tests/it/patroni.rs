//! Failovers of a real Patroni cluster.

use std::time::{Duration, Instant};

use crate::support::patroni::{Cut, Patroni};

const FAILOVER: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn probe() {
    let begun = Instant::now();
    let cluster = Patroni::start(3).await.unwrap();
    println!("whole after {:.1?}", begun.elapsed());
    for fault in ["switchover", "kill", "postgres", "peers", "everybody", "pause"] {
        let (old, timeline) = cluster.leader().await.unwrap();
        let watch = cluster.watch();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begun = Instant::now();
        match fault {
            "switchover" => cluster.switchover((old + 1) % 3).await,
            "kill" => cluster.kill(old).await,
            "postgres" => cluster.kill_postgres(old).await,
            "peers" => cluster.partition(old, Cut::Peers).await,
            "everybody" => cluster.partition(old, Cut::Everybody).await,
            _ => cluster.pause(old).await,
        }
        println!("{fault}: {:.1?}", begun.elapsed());
        if fault == "postgres" {
            cluster.is_whole().await;
            println!("whole {:.1?}", begun.elapsed());
            continue;
        }
        let writable = watch.writable_above(timeline, FAILOVER).await;
        println!("{writable:?} {:.1?}", writable.at - begun);
        match fault {
            "kill" => cluster.start_again(old).await,
            "peers" | "everybody" => cluster.heal(old).await,
            "pause" => cluster.unpause(old).await,
            _ => {}
        }
        cluster.is_whole().await;
        println!("whole {:.1?} {:?}", begun.elapsed(), watch.seen());
    }
}

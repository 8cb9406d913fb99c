//! The long series that `./dev reads` runs, and the figures that it prints: replicas that pause, an idle primary,
//! writers that read their rows, standbys that reopen behind.

use std::time::Duration;

use super::beats::Beats;
use super::behind::{Crash, LAZY, no_read_is_stale_during, remember, reopen_behind};
use super::reads::{pause_and_resume, stay_in_while_idle};
use super::writers::each_writer_reads_its_row;
use super::{BOUND, SECOND, builder, is_complete};
use crate::support::cluster::Replicated;

fn middle_and_last(mut times: Vec<Duration>) -> String {
    times.sort();
    format!("median {:.2?}, longest {:.2?}", times[times.len() / 2], times[times.len() - 1])
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a series of minutes, which ./dev reads runs"]
async fn of_100_000_reads_none_is_older_than_its_bound() {
    const READS: u64 = 100_000;
    const ROUNDS: usize = 5;
    let nodes = Replicated::start(2).await;
    let cluster = builder(&nodes).build().unwrap();
    let beats = Beats::begin(&cluster).await;
    is_complete(&cluster, &nodes).await;
    let (mut lefts, mut backs) = (Vec::new(), Vec::new());
    let faults = async {
        while lefts.len() < ROUNDS || beats.seen().by_replicas() < READS {
            let [left, back] = pause_and_resume(&nodes, &beats, 1 + lefts.len() % 2).await;
            println!("left after {left:.2?}, back after {back:.2?}; {}", beats.seen());
            lefts.push(left);
            backs.push(back);
        }
        beats.end();
    };
    let read = || beats.keep_reading(&cluster, BOUND);
    tokio::join!(beats.keep_writing(&cluster), read(), read(), read(), read(), read(), read(), faults);
    let seen = beats.seen();
    println!("{} pauses: left {}; back {}", lefts.len(), middle_and_last(lefts), middle_and_last(backs));
    println!("{seen}");
    assert!(seen.stale.is_empty(), "{:?}", seen.stale);
    assert!(seen.by_replicas() >= READS);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "ten minutes, which ./dev reads runs"]
async fn both_standbys_stay_in_for_ten_idle_minutes() {
    stay_in_while_idle(SECOND * 600).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a series of minutes, which ./dev reads runs"]
async fn a_thousand_writers_read_their_rows() {
    for spill in [1.0, 0.1] {
        for round in 1..=3 {
            let reads = each_writer_reads_its_row(1_000, spill).await;
            println!("spill {spill}, round {round}: {reads}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a series of minutes, which ./dev reads runs"]
async fn standbys_that_reopen_behind_serve_no_stale_read() {
    const ROUNDS: usize = 10;
    let mut nodes = Replicated::start_with(2, &LAZY).await;
    let cluster = builder(&nodes).spill(1.0).build().unwrap();
    let beats = Beats::begin(&cluster).await;
    is_complete(&cluster, &nodes).await;
    remember(&nodes, 1).await;
    remember(&nodes, 2).await;
    let faults = async |beats: &Beats| {
        for round in 0..ROUNDS {
            for crash in [Crash::Killed, Crash::Session] {
                let behind = reopen_behind(&mut nodes, beats, 1 + round % 2, crash).await;
                println!("{crash:?}: it has reopened {behind} rows behind");
            }
        }
    };
    no_read_is_stale_during(&cluster, &beats, faults).await;
}

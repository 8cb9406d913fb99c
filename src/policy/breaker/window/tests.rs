//! Both windows, by examples and compared with a plain list.

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
const SUCCESS: Counts = Counts { fires: 0, completed: 1, failures: 0, unreachable: 0, slow: 0, rejected: 0, busy: 0 };
const FAILURE: Counts = Counts { failures: 1, ..SUCCESS };

// O: the window forgets the counts of a bucket once it has moved past it.
#[test]
fn conformance_09_after_300_ms_a_window_of_200_ms_is_empty() {
    let start = Instant::now();
    let mut window = TimeWindow::new(start, 200 * MS, 2);
    window.add(start, FAILURE);
    assert_eq!(window.sum(start + 199 * MS).failures, 1);
    assert_eq!(*window.sum(start + 300 * MS), Counts::default());
}

// O: counts stay until the window rotates past their bucket.
#[test]
fn conformance_10_counts_stay_until_their_bucket_moves_out() {
    let start = Instant::now();
    let mut window = TimeWindow::new(start, 300 * MS, 3);
    window.add(start, FAILURE);
    window.add(start + 99 * MS, FAILURE);
    window.add(start + 100 * MS, FAILURE);
    assert_eq!(window.sum(start + 299 * MS).failures, 3);
    assert_eq!(window.sum(start + 300 * MS).failures, 1);
    assert_eq!(window.sum(start + 400 * MS).failures, 0);
}

#[test]
fn a_call_with_an_earlier_time_counts_in_the_current_bucket() {
    let start = Instant::now();
    let mut window = TimeWindow::new(start, 200 * MS, 2);
    window.add(start + 150 * MS, FAILURE);
    window.add(start, FAILURE);
    assert_eq!(window.sum(start + 299 * MS).failures, 2);
}

#[test]
fn one_bucket_is_enough() {
    let start = Instant::now();
    let mut window = TimeWindow::new(start, 100 * MS, 1);
    window.add(start, FAILURE);
    assert_eq!(window.sum(start + 99 * MS).failures, 1);
    assert_eq!(window.sum(start + 100 * MS).failures, 0);
}

// R: the oldest call is forgotten first.
#[test]
fn the_oldest_call_is_forgotten_when_another_one_comes() {
    let mut window = CallWindow::new(3);
    for failures in [1, 0, 0, 0] {
        window.add(Counts { failures, unreachable: failures, slow: failures, ..SUCCESS });
    }
    assert_eq!(window.sum, Counts { completed: 3, ..Counts::default() });
}

#[test]
fn a_rejected_or_busy_call_displaces_no_ended_call() {
    let mut window = CallWindow::new(2);
    window.add(SUCCESS);
    for _ in 0..5 {
        window.add(Counts { rejected: 1, busy: 1, ..Counts::default() });
    }
    assert_eq!(window.sum, Counts { rejected: 5, busy: 5, ..SUCCESS });
    window.clear();
    assert_eq!(window.sum, Counts::default());
}

/// An import adds the counts of another breaker at once.
#[test]
fn an_import_of_too_many_calls_keeps_their_shares() {
    for most in [8, 10_000] {
        let (mut window, many) = (CallWindow::new(most), 1 << 50);
        window.add(Counts { completed: many, failures: many / 2, unreachable: many / 4, slow: many, ..SUCCESS });
        let most = u64::from(most);
        let expected = Counts { completed: most, failures: most / 2, unreachable: most / 4, slow: most, ..SUCCESS };
        assert_eq!(window.sum, expected);
    }
}

proptest! {
    #[test]
    fn a_time_window_counts_the_calls_in_its_buckets(
        buckets in 1u32..6,
        gaps in prop::collection::vec(prop_oneof![0u64..20, 0u64..400], 1..80),
    ) {
        let start = Instant::now();
        let mut window = TimeWindow::new(start, 10 * MS * buckets, buckets);
        let (mut at, mut seen) = (0, Vec::new());
        for gap in gaps {
            at += gap;
            window.add(start + MS * u32::try_from(at).unwrap(), FAILURE);
            seen.push(at / 10);
            let oldest = (at / 10 + 1).saturating_sub(u64::from(buckets));
            let expected = seen.iter().filter(|bucket| **bucket >= oldest).count() as u64;
            prop_assert_eq!(window.sum(start + MS * u32::try_from(at).unwrap()).failures, expected);
        }
    }

    #[test]
    fn a_call_window_counts_the_last_calls(most in 1u32..8, calls in prop::collection::vec((0u64..2, 0u64..2), 1..60)) {
        let mut window = CallWindow::new(most);
        for (number, (failures, slow)) in calls.iter().enumerate() {
            window.add(Counts { failures: *failures, slow: *slow, ..SUCCESS });
            let last = &calls[(number + 1).saturating_sub(most as usize)..=number];
            let expected = Counts {
                completed: last.len() as u64,
                failures: last.iter().map(|(failures, _)| failures).sum(),
                slow: last.iter().map(|(_, slow)| slow).sum(),
                ..Counts::default()
            };
            prop_assert_eq!(window.sum, expected);
        }
    }
}

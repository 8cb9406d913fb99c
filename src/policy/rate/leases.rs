//! What the leases of one rate take: how long the next is expected to last, and for how long those that have not ended
//! are overdue.
//!
//! A call is charged with the expected duration when it begins, and with the real one when its lease ends. Between the
//! two, a lease that lasts longer is overdue. Without counting that, an operation that suddenly becomes slow could take
//! every connection before the first of its leases ends.

/// What a lease is expected to take before the first has ended, in nanoseconds.
const FIRST_GUESS: u64 = 10_000_000;
/// How much each new lease counts in the mean: an eighth.
const PART: i64 = 8;

/// The lower bits of the word of running leases are their number: as many as a pool can have.
const NUMBER_BITS: u32 = 18;
const NUMBER: u64 = (1 << NUMBER_BITS) - 1;

/// Returns how long the next lease is expected to take, in nanoseconds. `mean` is 0 before the first lease.
pub(crate) fn expected(mean: u64) -> u64 {
    if mean == 0 { FIRST_GUESS } else { mean }
}

/// A lease counts as at most so many times the mean.
const FAR: u64 = 8;

/// Returns the mean after another lease, in nanoseconds.
pub(crate) fn mean_after(mean: u64, lease: u64) -> u64 {
    if mean == 0 {
        return lease.max(1);
    }
    // One lease that was forgotten for an hour is not what calls usually take.
    let lease = lease.min(mean.saturating_mul(FAR));
    let difference = i64::try_from(i128::from(lease) - i128::from(mean)).unwrap_or(i64::MAX);
    mean.saturating_add_signed(difference / PART).max(1)
}

/// Returns what a lease that is expected to end at `end` adds to the word of running leases. It subtracts the same when
/// it ends. Both wrap.
///
/// The word holds the number of the leases, and above it the sum of their expected ends in microseconds. That the sum
/// wraps does no harm: only its distance from the present counts.
pub(crate) fn running(end: u64) -> u64 {
    (micros(end) << NUMBER_BITS) | 1
}

/// Returns for how many nanoseconds the running leases have lasted longer than expected, all together. It is 0 if they
/// are expected to last longer still.
pub(crate) fn overdue(word: u64, now: u64) -> u64 {
    let lasted = micros(now).wrapping_mul(word & NUMBER) << NUMBER_BITS;
    // The sign of the difference is that of its upper bits.
    let overdue = lasted.wrapping_sub(word & !NUMBER) as i64 >> NUMBER_BITS;
    u64::try_from(overdue).unwrap_or(0).saturating_mul(1_000)
}

fn micros(nanos: u64) -> u64 {
    nanos / 1_000
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const MILLISECOND: u64 = 1_000_000;
    const YEAR: u64 = 365 * 24 * 3_600 * 1_000 * MILLISECOND;

    #[test]
    fn the_mean_follows_the_leases() {
        assert_eq!(expected(0), FIRST_GUESS);
        assert_eq!(mean_after(0, 4_000), 4_000);
        assert_eq!(mean_after(4_000, 12_000), 5_000);
        assert_eq!(mean_after(4_000, 0), 3_500);
        let mean = (0..100).fold(4_000, |mean, _| mean_after(mean, 90 * MILLISECOND));
        assert!(mean > 89 * MILLISECOND, "{mean}");
        assert_eq!(expected(mean), mean);
        for extreme in [0, u64::MAX] {
            let mean = (0..1_000).fold(0, |mean, _| mean_after(mean, extreme));
            assert!(expected(mean) > 0 && mean_after(mean, 5) > 0, "{mean}");
        }
    }

    #[test]
    fn a_lease_is_overdue_after_its_expected_end_only() {
        let word = running(50 * MILLISECOND);
        assert_eq!(overdue(0, 7), 0);
        assert_eq!(overdue(word, 10 * MILLISECOND), 0);
        assert_eq!(overdue(word, 50 * MILLISECOND), 0);
        assert_eq!(overdue(word, 80 * MILLISECOND), 30 * MILLISECOND);
        let two = word.wrapping_add(running(60 * MILLISECOND));
        assert_eq!(overdue(two, 80 * MILLISECOND), 50 * MILLISECOND);
        assert_eq!(overdue(two.wrapping_sub(word), 80 * MILLISECOND), 20 * MILLISECOND);
    }

    proptest! {
        /// Also years after the pool began, when the sum has wrapped.
        #[test]
        fn one_word_has_the_sum_of_all_leases(
            begun in 0..20 * YEAR,
            leases in vec((0..100_u64, 0..20_000_u64), 0..300),
            later in 0..10_000_u64,
        ) {
            let begun = begun / MILLISECOND * MILLISECOND;
            let now = begun + later * MILLISECOND;
            let (mut word, mut sum) = (0_u64, 0_i128);
            for (has_ended, end) in leases {
                let end = begun + end * MILLISECOND;
                word = word.wrapping_add(running(end));
                if has_ended < 30 {
                    word = word.wrapping_sub(running(end));
                } else {
                    sum += i128::from(now) - i128::from(end);
                }
            }
            prop_assert_eq!(i128::from(overdue(word, now)), sum.max(0));
        }
    }
}

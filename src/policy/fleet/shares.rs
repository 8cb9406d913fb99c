//! Who gets how many connections: max-min fair. Nobody gets more than it wants while another wants more than it gets.

/// What one member asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) minimum: usize,
    pub(super) wanted: usize,
}

/// The share of each member. Ties go to those that come first, so all members have to list them in the same order.
///
/// Everybody gets its minimum, even if the sum of all minimums is above the capacity. If connections are left when all
/// wishes are fulfilled, half of them is divided as well: a sudden load finds some in every process. The other half
/// stays free for the first that needs more.
pub(super) fn shares(capacity: usize, wishes: &[Wish]) -> Vec<usize> {
    let at = |level: usize| wishes.iter().map(move |wish| wish.wanted.min(level).max(wish.minimum));
    let level = highest(capacity, |level| at(level).sum());
    let mut shares: Vec<_> = at(level).collect();
    let mut left = capacity.saturating_sub(shares.iter().sum());
    for (share, wish) in shares.iter_mut().zip(wishes) {
        if left > 0 && *share == level && wish.wanted > level {
            *share += 1;
            left -= 1;
        }
    }
    let target = capacity - left.div_ceil(2).min(capacity);
    let raised = |level: usize| shares.iter().map(move |share| level.max(*share));
    let level = highest(target, |level| raised(level).sum());
    raised(level).collect()
}

/// The highest level at which the sum is at most the capacity. The sum grows with the level.
fn highest(capacity: usize, sum: impl Fn(usize) -> usize) -> usize {
    let (mut low, mut high) = (0, capacity);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if sum(middle) <= capacity { low = middle } else { high = middle - 1 }
    }
    low
}

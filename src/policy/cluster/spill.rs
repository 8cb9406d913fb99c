//! How many reads that no replica can serve may be at work on the primary?
//!
//! Without a bound, replicas that lag move all their load to the primary, which then fails for the writers, too.

/// Returns how many such reads may run on a primary with this many connections: a share of them, and at least one
/// unless the share is 0.
pub(crate) fn places(share: f64, connections: usize) -> usize {
    if share <= 0.0 {
        return 0;
    }
    ((connections as f64 * share) as usize).clamp(1, connections.max(1))
}

#[cfg(test)]
mod tests {
    use super::places;

    #[test]
    fn a_share_is_at_least_one_place_unless_it_is_nothing() {
        assert_eq!([places(0.1, 20), places(0.1, 5), places(0.1, 1)], [2, 1, 1]);
        assert_eq!([places(0.0, 20), places(1.0, 20), places(5.0, 20)], [0, 20, 20]);
    }
}

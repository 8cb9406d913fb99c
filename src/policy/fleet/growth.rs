//! What is free for a member that wants to grow, and how much of that it may claim at once.

use super::reading::{Peer, Scope};

/// How many connections of a scope are taken or claimed. Includes one connection for each beacon, and the strangers.
pub(super) fn taken(scope: &Scope, strangers: usize, peers: &[&Peer]) -> usize {
    let claimed: usize = peers.iter().map(|peer| peer.beacon.claim()).sum();
    // Connections beyond all claims are strangers for certain.
    (strangers + peers.len() + claimed).max(scope.connections)
}

/// By how much the member at `place` may grow if `free` connections are free. All members grow at the same time. If
/// there is not enough for all, each takes an equal part. With three members or more, a member takes at most a third.
/// The rest is for members whose wishes it cannot see yet: they may read at the same time, and grow into the same
/// connections.
pub(super) fn step(free: usize, peers: &[&Peer], shares: &[usize], place: Option<usize>) -> usize {
    let Some(place) = place else { return 0 };
    let lacks: Vec<_> =
        peers.iter().zip(shares).map(|(peer, share)| share.saturating_sub(peer.beacon.claim())).collect();
    let most = free.div_ceil(peers.len().clamp(1, 3));
    if lacks.iter().sum::<usize>() <= free {
        return lacks[place].min(most);
    }
    let growing = lacks.iter().filter(|lack| **lack > 0).count().max(1);
    let before = lacks[..place].iter().filter(|lack| **lack > 0).count();
    (free / growing + usize::from(before < free % growing)).min(most)
}

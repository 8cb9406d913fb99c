//! Single rules of a member, one after the other.

use std::time::{Duration, Instant};

use crate::policy::fleet::beacon::Beacon;
use crate::policy::fleet::{FleetState, Member, Own, Peer, Reading, Scope, Terms};

const SECOND: Duration = Duration::from_secs(1);

fn member(now: Instant) -> Member {
    Member::new(now, Terms { id: "own".into(), minimum: 2, most: 40 })
}

fn other(process: u32, wanted: usize, granted: usize) -> Peer {
    let beacon = Beacon { id: format!("p{process}"), wanted, granted, held: granted, minimum: 2 };
    Peer { process, beacon, is_within: [true; 2] }
}

/// A reading on a server for 100 clients, by the member with the process 1.
fn reading(member: &Member, others: &[Peer], strangers: usize) -> Reading {
    let mine = Peer { process: 1, beacon: member.beacon(), is_within: [true; 2] };
    let held: usize = others.iter().map(|peer| peer.beacon.held).sum::<usize>() + mine.beacon.held;
    let connections = held + others.len() + 1 + strangers;
    let scope = Scope { limit: 100, headroom: None, connections };
    let peers = others.iter().cloned().chain([mine]).collect();
    Reading { process: 1, peers, scopes: [Some(scope), None, None] }
}

/// A busy member that has read so many times, once in two seconds.
fn busy(begun: Instant, readings: u32, others: &[Peer]) -> (Member, Instant) {
    let (mut member, mut now) = (member(begun), begun);
    for _ in 0..readings {
        now += 2 * SECOND;
        read(&mut member, now, others, 0);
    }
    (member, now)
}

fn read(member: &mut Member, now: Instant, others: &[Peer], strangers: usize) {
    let held = member.limit();
    member.tick(now, &Own { held, in_use: held, waiting: 0, is_short: true, demand: Some(30.0), ..Own::default() });
    let reading = reading(member, others, strangers);
    member.on_reading(now, reading);
    let granted = member.beacon().granted;
    member.on_shown(granted);
    let second = self::reading(member, others, strangers);
    member.on_second_reading(now, &second);
}

#[test]
fn a_newcomer_lives_on_its_minimum_until_it_was_seen_twice() {
    let (one, now) = busy(Instant::now(), 1, &[]);
    assert_eq!((one.limit(), one.state(now)), (2, FleetState::Joining));
    let (two, now) = busy(Instant::now(), 2, &[]);
    assert_eq!((two.limit(), two.state(now)), (40, FleetState::Sharing));
}

#[test]
fn growth_waits_until_it_is_shown_and_confirmed() {
    let (mut member, now) = busy(Instant::now(), 1, &[]);
    let reading = reading(&member, &[], 0);
    member.on_reading(now + SECOND, reading);
    assert_eq!((member.limit(), member.beacon().granted), (2, 40));
    member.on_shown(40);
    assert_eq!((member.limit(), member.is_claiming()), (2, true), "somebody else may have claimed the same");
    member.on_lost();
    assert_eq!((member.limit(), member.beacon().granted), (2, 2));
}

/// A member that has just shown its claim of all 40 that it wants, of the 89 that it saw free.
fn claiming() -> (Member, Instant) {
    let (mut member, now) = busy(Instant::now(), 1, &[]);
    let first = reading(&member, &[], 0);
    member.on_reading(now + SECOND, first);
    member.on_shown(40);
    (member, now + SECOND)
}

/// They may belong to a member that has lost its beacon right after its claim.
#[test]
fn what_nobody_claims_at_the_second_reading_is_not_used() {
    for (unknown, kept) in [(0, 40), (49, 40), (60, 29), (88, 2)] {
        let (mut member, now) = claiming();
        let second = reading(&member, &[], unknown);
        member.on_second_reading(now, &second);
        assert_eq!((member.limit(), member.beacon().granted), (kept, kept), "{unknown} are unknown");
    }
}

#[test]
fn what_another_has_claimed_at_the_same_time_is_given_back() {
    for (theirs, kept) in [(0, 40), (48, 40), (49, 39), (60, 28), (86, 2), (90, 2), (200, 2)] {
        let (mut member, now) = claiming();
        let others = if theirs == 0 { vec![] } else { vec![other(2, theirs, theirs)] };
        let second = reading(&member, &others, 0);
        member.on_second_reading(now, &second);
        assert_eq!((member.limit(), member.beacon().granted), (kept, kept), "another claims {theirs}");
    }
}

#[test]
fn a_second_reading_without_the_claim_confirms_nothing() {
    let (mut member, now) = claiming();
    let mut second = reading(&member, &[], 0);
    second.peers[0].beacon.granted = 2;
    member.on_second_reading(now, &second);
    assert_eq!((member.limit(), member.beacon().granted), (2, 2));
}

#[test]
fn the_end_of_a_claim_never_takes_what_is_in_use() {
    let (mut member, now) = claiming();
    member.drain();
    let second = reading(&member, &[], 0);
    member.on_second_reading(now, &second);
    assert!(!member.is_claiming() && member.limit() <= 2, "a pool that drains does not grow");
}

#[test]
fn it_shrinks_at_once_when_others_want_their_part() {
    let (mut member, now) = busy(Instant::now(), 2, &[]);
    let others = [other(2, 90, 2), other(3, 90, 2)];
    read(&mut member, now + SECOND, &others, 0);
    assert_eq!(member.limit(), 29, "a third of 100 - 10 headroom - 3 connections for beacons");
}

#[test]
fn it_grows_only_into_what_nobody_claims() {
    let others = [other(2, 90, 60), other(3, 1, 10)];
    let (member, _) = busy(Instant::now(), 2, &others);
    assert_eq!(member.limit(), 2 + 5, "a third of 100 - 10 - 3 - 60 - 10 - 2, for the others may grow as well");
}

#[test]
fn what_another_claims_and_does_not_use_is_not_free() {
    let mut idle = other(2, 90, 60);
    idle.beacon.held = 0;
    let (member, _) = busy(Instant::now(), 2, &[idle]);
    assert_eq!(member.limit(), 2 + 13, "half of 100 - 10 - 2 - 60 - 2, for the other may grow as well");
}

#[test]
fn what_a_member_claimed_that_has_just_vanished_is_not_free_yet() {
    let others = [other(2, 90, 60)];
    let (mut member, now) = busy(Instant::now(), 2, &others);
    read(&mut member, now + 2 * SECOND, &[], 0);
    assert_eq!(member.limit(), 28, "what nobody has claimed");
    read(&mut member, now + 3 * SECOND, &[], 0);
    assert_eq!(member.limit(), 40);
}

#[test]
fn the_connections_of_a_member_that_has_vanished_are_not_remembered() {
    let (mut member, now) = busy(Instant::now(), 2, &[other(2, 20, 20)]);
    for second in 1..9 {
        read(&mut member, now + second * SECOND, &[], 20);
    }
    assert_eq!(member.view().unwrap().strangers, 20);
    read(&mut member, now + 9 * SECOND, &[], 0);
    assert_eq!(member.view().unwrap().strangers, 0);
}

#[test]
fn what_a_member_uses_of_what_it_was_just_granted_is_no_stranger() {
    let (mut member, now) = busy(Instant::now(), 2, &[other(2, 40, 10)]);
    for round in 1..4 {
        let mut growing = other(2, 40, 10 + 5 * round);
        growing.beacon.held -= 5;
        read(&mut member, now + u32::try_from(round).unwrap() * SECOND, &[growing], 5);
        assert_eq!(member.view().unwrap().strangers, 0);
    }
}

#[test]
fn nothing_takes_the_minimum_away() {
    let (mut member, now) = busy(Instant::now(), 2, &[]);
    member.on_refused(now, 0);
    assert_eq!(member.limit(), 2);
    let nothing = Own { held: 0, in_use: 0, waiting: 0, is_short: false, demand: None, ..Own::default() };
    member.tick(now + 100 * SECOND, &nothing);
    assert_eq!((member.limit(), member.state(now + 100 * SECOND)), (2, FleetState::Blind));
    read(&mut member, now + 101 * SECOND, &[other(2, 90, 95)], 0);
    assert_eq!(member.limit(), 2, "there is no capacity");
}

#[test]
fn those_that_grow_at_the_same_time_divide_what_is_free() {
    let others = [other(2, 90, 20), other(3, 90, 20), other(4, 60, 40)];
    let (member, _) = busy(Instant::now(), 2, &others);
    assert_eq!(member.limit(), 2 + 2, "100 - 10 - 4 - 82 are free for two");
}

#[test]
fn a_blind_member_keeps_what_it_has_and_later_takes_an_equal_part() {
    let others = [other(2, 5, 5), other(3, 5, 5), other(4, 5, 5)];
    let (mut member, now) = busy(Instant::now(), 3, &others);
    assert_eq!(member.limit(), 40);
    let at = |member: &mut Member, seconds: u32, held: usize| {
        let now = now + seconds * SECOND;
        member.tick(now, &Own { held, in_use: held, waiting: 0, is_short: false, demand: None, ..Own::default() });
        (member.limit(), member.state(now))
    };
    assert_eq!(at(&mut member, 16, 30), (40, FleetState::Sharing));
    assert_eq!(at(&mut member, 18, 30), (30, FleetState::Blind));
    assert_eq!(at(&mut member, 40, 30), (30, FleetState::Blind));
    assert_eq!(at(&mut member, 63, 30), (21, FleetState::Blind), "a quarter of 86");
}

#[test]
fn after_a_refusal_it_does_not_grow_and_then_by_half_steps() {
    let others = [other(2, 90, 43)];
    let (mut member, mut now) = busy(Instant::now(), 1, &others);
    member.on_refused(now, 2);
    for _ in 0..14 {
        now += 2 * SECOND;
        read(&mut member, now, &others, 0);
    }
    assert_eq!((member.limit(), member.state(now)), (2, FleetState::ServerFull));
    now += 3 * SECOND;
    read(&mut member, now, &others, 0);
    assert_eq!(member.limit(), 2 + 11, "half of what it would take of the 43 that are free");
}

#[test]
fn a_stranger_counts_when_two_readings_show_it_and_after_four_seconds_for_a_minute() {
    let (mut member, mut now) = busy(Instant::now(), 2, &[]);
    let strangers = |member: &mut Member, now: Instant, count: usize| {
        read(member, now, &[], count);
        member.view().unwrap().strangers
    };
    now += SECOND;
    assert_eq!(strangers(&mut member, now, 60), 0);
    assert_eq!(strangers(&mut member, now + SECOND, 70), 60);
    assert_eq!(member.limit(), 29);
    assert_eq!(strangers(&mut member, now + 2 * SECOND, 0), 0, "it was seen too shortly to be remembered");
    for second in 3..9 {
        strangers(&mut member, now + second * SECOND, 60);
    }
    assert_eq!(strangers(&mut member, now + 9 * SECOND, 0), 60);
    assert_eq!(strangers(&mut member, now + 70 * SECOND, 0), 0);
}

#[test]
fn a_drained_member_wants_nothing_and_claims_what_is_left() {
    let (mut member, now) = busy(Instant::now(), 2, &[]);
    member.tick(now, &Own { held: 5, in_use: 5, waiting: 0, is_short: true, demand: Some(9.0), ..Own::default() });
    member.drain();
    assert_eq!(member.beacon().to_string(), "own w0 g5 h5 m0");
    assert_eq!(member.state(now), FleetState::Draining);
}

#[test]
fn without_room_for_its_beacon_it_gives_up_one_connection_each_time() {
    let (mut member, mut now) = busy(Instant::now(), 2, &[]);
    let before = member.limit();
    for given_up in 1..=before + 5 {
        now += SECOND;
        let held = member.limit();
        member.tick(now, &Own { held, in_use: held, is_short: true, ..Own::default() });
        member.on_lost();
        member.on_beacon_refused(now);
        assert_eq!(member.limit(), before.saturating_sub(given_up).max(2), "not below its minimum");
    }
}

#[test]
fn behind_a_pooler_it_is_off_until_the_server_itself_answers() {
    let (mut member, now) = busy(Instant::now(), 2, &[]);
    member.on_pooler();
    assert_eq!((member.limit(), member.state(now)), (40, FleetState::Off));
    member.on_server(7);
    assert_eq!((member.limit(), member.state(now)), (7, FleetState::Joining));
}

#[test]
fn after_a_loss_it_waits_until_the_others_are_back() {
    let others = [other(2, 20, 20), other(3, 20, 20)];
    let (mut member, mut now) = busy(Instant::now(), 2, &others);
    let before = member.limit();
    member.on_lost();
    // The server is away for longer than the others are waited for.
    now += 60 * SECOND;
    for _ in 0..9 {
        read(&mut member, now, &[], 0);
        assert_eq!(member.limit(), before, "the others are on their way");
        now += 2 * SECOND;
    }
    read(&mut member, now, &[], 0);
    assert!(member.limit() > before, "they do not come back");
}

#[test]
fn after_each_loss_it_waits_for_those_that_were_there_last() {
    let (mut member, now) = busy(Instant::now(), 40, &[]);
    member.on_lost();
    let others = [other(2, 30, 30), other(3, 30, 30)];
    read(&mut member, now + SECOND, &others, 0);
    read(&mut member, now + 2 * SECOND, &others, 0);
    member.on_lost();
    let before = member.limit();
    assert_eq!(before, 29, "a third of 100 - 10 - 3");
    read(&mut member, now + 3 * SECOND, &[], 0);
    member.on_lost();
    for seconds in 4..21 {
        read(&mut member, now + seconds * SECOND, &[], 0);
        assert_eq!(member.limit(), before, "after {seconds} s");
    }
}

/// The server is overloaded, and answers too late now and then, while the others have gone for ever.
#[test]
fn however_often_the_connection_is_lost_it_waits_for_a_minute_at_most() {
    let others = [other(2, 20, 20), other(3, 20, 20)];
    for losses in [5, 10, 16] {
        let (mut member, begun) = busy(Instant::now(), 2, &others);
        let before = member.limit();
        let grown = (0..200).find(|second| {
            if second % losses == 0 {
                member.on_lost();
            } else {
                read(&mut member, begun + *second * SECOND, &[], 0);
            }
            member.limit() > before
        });
        assert!(
            grown.is_some_and(|second| (15..=60 + 2 * losses).contains(&second)),
            "lost every {losses} s: {grown:?}"
        );
    }
}

#[test]
fn a_large_fleet_reads_more_seldom() {
    let others: Vec<_> = (2..=1_000).map(|process| other(process, 2, 2)).collect();
    let (member, now) = busy(Instant::now(), 1, &others);
    assert_eq!(member.pause(now, 0.5), 20 * SECOND);
    assert_eq!((member.pause(now, 0.0), member.pause(now, 1.0)), (15 * SECOND, 25 * SECOND));
}

#[test]
fn the_limit_of_a_role_holds_among_those_of_the_role_only() {
    let (mut member, now) = busy(Instant::now(), 1, &[]);
    let mut outside = other(2, 90, 20);
    outside.is_within = [true, false];
    let mut reading = reading(&member, &[outside, other(3, 90, 2)], 0);
    reading.scopes[2] = Some(Scope { limit: 20, headroom: Some(2), connections: 6 });
    member.on_reading(now + SECOND, reading);
    assert_eq!(member.view().unwrap().share, 8, "half of 20 - 2 - 2");
    assert_eq!(member.beacon().wanted, 16, "what the role cannot have is left to the others");
}

/// A limit that follows the database: what the pool would not use, the others may have.
#[test]
fn a_member_asks_for_no_more_than_it_would_use() {
    let (mut member, now) = busy(Instant::now(), 2, &[]);
    assert_eq!(member.wanted(), 39);
    let short = Own { held: 40, in_use: 40, is_short: true, demand: Some(30.0), useful: 9, ..Own::default() };
    member.tick(now, &short);
    assert_eq!(member.wanted(), 9);
    member.tick(now, &Own { useful: 1, ..short });
    assert_eq!(member.wanted(), 2, "its minimum");
}

#[test]
fn a_member_that_wants_little_shows_the_capacity_of_the_tighter_scope() {
    let (begun, others) = (Instant::now(), [other(2, 90, 7), other(3, 90, 7)]);
    let mut member = member(begun);
    member.tick(begun, &Own { held: 2, ..Own::default() });
    let mut reading = reading(&member, &others, 0);
    let server = reading.scopes[0].expect("it has a limit");
    reading.scopes[2] = Some(Scope { limit: 30, ..server });
    member.on_reading(begun + SECOND, reading);
    let view = member.view().unwrap();
    assert_eq!((view.share, view.capacity), (2, 22), "30 - 5 headroom - 3 connections for beacons");
}

//! A fleet in virtual time: its members, their connections, the server's view of them, and everything that can happen
//! to a process or to its connection for beacons.

mod rules;
mod world;

use proptest::prelude::*;

use self::world::{Faults, World};
use super::beacon::Beacon;
use super::shares::{Wish, shares};

fn any_beacon() -> impl Strategy<Value = Beacon> {
    ("[a-z0-9]{1,8}", 0..=262_143_usize, 0..=262_143_usize, 0..=262_143_usize, 0..=262_143_usize)
        .prop_map(|(id, wanted, granted, held, minimum)| Beacon { id, wanted, granted, held, minimum })
}

#[test]
fn a_beacon_is_a_short_line() {
    let beacon = Beacon { id: "k3f9aq".to_owned(), wanted: 14, granted: 9, held: 7, minimum: 2 };
    assert_eq!(beacon.text("shop"), "ff1 shop k3f9aq w14 g9 h7 m2");
    let longest = Beacon { id: "k3f9aq".into(), wanted: 262_143, granted: 262_143, held: 262_143, minimum: 262_143 };
    assert!(longest.text("abcdefghijklmno").len() <= 63, "{}", longest.text("abcdefghijklmno").len());
}

#[test]
fn strange_text_is_no_beacon() {
    let read = |text: &str| Beacon::read(text, "shop", 100);
    assert!(read("ff1 shop a w1 g2 h3 m4").is_some());
    for text in [
        "",
        "ff1",
        "ff1 shop",
        "ff1 shop ",
        "ff1 shop a",
        "ff1 shop a w1 g2 h3",
        "ff1 shop a w1 g2 h3 m4 ",
        "ff1 shop a w1 g2 h3 m4 x",
        "ff1 shop  w1 g2 h3 m4",
        "ff2 shop a w1 g2 h3 m4",
        "ff1 shopping a w1 g2 h3 m4",
        "ff1 shop a w-1 g2 h3 m4",
        "ff1 shop a w+1 g2 h3 m4",
        "ff1 shop a w1 g2 h3 m101",
        "ff1 shop a w g2 h3 m4",
        "ff1 shop a w1 g99999999999999999999999 h3 m4",
        "ff1 shop abcdefghi w1 g2 h3 m4",
        "ff1 shop ä w1 g2 h3 m4",
    ] {
        assert_eq!(read(text), None, "{text:?}");
    }
}

proptest! {
    #[test]
    fn a_beacon_is_read_as_it_was_written(beacon in any_beacon()) {
        prop_assert_eq!(Beacon::read(&beacon.text("shop"), "shop", 262_143), Some(beacon));
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in "(ff1 )?(shop )?\\PC{0,60}") {
        if let Some(beacon) = Beacon::read(&text, "shop", 50) {
            prop_assert!(beacon.claim() <= 50 && beacon.wanted <= 50 && beacon.minimum <= 50);
        }
    }

    #[test]
    fn shares_are_max_min_fair(
        capacity in 0..500_usize,
        wishes in prop::collection::vec((0..4_usize, 0..80_usize), 1..60),
    ) {
        let wishes: Vec<_> =
            wishes.into_iter().map(|(minimum, more)| Wish { minimum, wanted: minimum + more }).collect();
        let given = shares(capacity, &wishes);
        let minimums: usize = wishes.iter().map(|wish| wish.minimum).sum();
        let (sum, wanted): (usize, usize) = (given.iter().sum(), wishes.iter().map(|wish| wish.wanted).sum());
        prop_assert!(sum <= capacity.max(minimums), "{} of {}", sum, capacity);
        prop_assert!(given.iter().zip(&wishes).all(|(share, wish)| *share >= wish.minimum));
        if wanted <= capacity {
            prop_assert!(given.iter().zip(&wishes).all(|(share, wish)| *share >= wish.wanted), "all is there");
        } else if minimums <= capacity {
            prop_assert_eq!(sum, capacity, "nothing is left while somebody wants more");
            // Nobody has more than one above its minimum and above another that wants more.
            for (mine, my_wish) in given.iter().zip(&wishes).filter(|(share, wish)| **share < wish.wanted) {
                let others = given.iter().zip(&wishes).filter(|(share, wish)| **share > wish.minimum);
                for (other, _) in others {
                    prop_assert!(*other <= mine + 1, "{:?} has {}, another {}", my_wish, mine, other);
                }
            }
        }
    }
}

/// Joins, deaths, losses of the connection, slow answers, silence, and loads that change.
fn live(seed: u64, members: usize, faults: Faults) -> World {
    let mut world = World::new(seed, members, faults);
    world.run(150.0);
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_sum_stays_below_the_limit_whatever_happens(seed: u64, members in 2..=50_usize) {
        let world = live(seed, members, Faults::ALL);
        prop_assert_eq!(&world.violations, &[] as &[String]);
    }

    #[test]
    fn after_a_change_of_load_all_is_fair_within_five_rounds(seed: u64, members in 2..=50_usize) {
        let mut world = World::new(seed, members, Faults::NONE);
        world.run(20.0);
        world.change_loads();
        // The loads of the last seconds are still expected for one round more.
        world.run(world.round() * 5.0 + 3.0);
        prop_assert_eq!(world.unfair(), Vec::<String>::new());
        prop_assert_eq!(&world.violations, &[] as &[String]);
    }

    #[test]
    fn a_fleet_yields_to_a_stranger_and_comes_back(seed: u64, members in 2..=50_usize) {
        let mut world = World::new(seed, members, Faults::NONE);
        world.load_all();
        world.run(20.0);
        world.want_stranger(world.capacity() / 3);
        world.run(5.0 + world.round());
        prop_assert!(world.has_stranger(), "the stranger has {}", world.strangers);
        world.end_stranger();
        world.run(75.0);
        prop_assert_eq!(world.unfair(), Vec::<String>::new());
    }

    /// The strangers also take the places of the beacons.
    #[test]
    fn a_fleet_without_beacons_yields_to_a_stranger_and_comes_back(seed: u64, members in 2..=50_usize) {
        let mut world = World::new(seed, members, Faults::NONE);
        world.load_all();
        world.run(20.0);
        world.lose_all();
        world.want_stranger(world.capacity() / 3);
        world.run(60.0);
        prop_assert!(world.has_stranger(), "the stranger has {}", world.strangers);
        world.end_stranger();
        world.run(180.0);
        prop_assert_eq!(world.unfair(), Vec::<String>::new());
    }

    #[test]
    fn after_a_restart_of_the_server_all_is_fair_within_five_rounds(seed: u64, members in 2..=50_usize, seconds in 0.0..40.0) {
        let mut world = World::new(seed, members, Faults::NONE);
        world.run(20.0);
        world.restart(seconds);
        world.run(seconds + world.round() * 5.0 + 3.0);
        prop_assert_eq!(world.unfair(), Vec::<String>::new());
        prop_assert_eq!(&world.violations, &[] as &[String]);
    }
}

#[test]
fn a_thousand_members_stay_below_the_limit_and_are_fair() {
    for seed in [1, 2, 3] {
        let mut world = World::new(seed, 1_000, Faults::ALL);
        world.run(120.0);
        assert_eq!(world.violations, &[] as &[String], "seed {seed}");
        let mut world = World::new(seed, 1_000, Faults::NONE);
        world.run(world.round() * 3.0);
        world.change_loads();
        world.run(world.round() * 5.0 + 3.0);
        assert_eq!(world.unfair(), Vec::<String>::new(), "seed {seed}");
        assert_eq!(world.violations, &[] as &[String], "seed {seed}");
    }
}

#[test]
fn the_slots_of_a_killed_process_are_used_again_within_five_seconds() {
    for seed in 0..40 {
        let mut world = World::new(seed, 8, Faults::NONE);
        world.load_all();
        world.run(25.0);
        let before = world.held();
        world.kill(0);
        assert!(world.held() < before);
        world.run(5.0);
        assert!(world.held() + 1 >= before, "seed {seed}: {} of {before}", world.held());
        assert_eq!(world.violations, &[] as &[String], "seed {seed}");
    }
}

#[test]
fn the_slots_of_a_process_without_a_network_are_used_again_within_thirty_seconds() {
    for seed in 0..40 {
        let mut world = World::new(seed, 8, Faults::NONE);
        world.load_all();
        world.run(25.0);
        let before = world.held();
        world.cut(0);
        world.run(30.0);
        assert!(world.held() + 1 >= before, "seed {seed}: {} of {before}", world.held());
        assert_eq!(world.violations, &[] as &[String], "seed {seed}");
    }
}

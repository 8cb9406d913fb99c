use proptest::prelude::*;

use super::*;

fn shares(size: usize) -> Shares {
    Shares::new(Lane::ALL.map(LaneLimits::of), size)
}

#[test]
fn by_default_critical_has_a_fifth_and_background_at_most_half() {
    let slots = |size| {
        let shares = shares(size);
        (shares.guaranteed, shares.at_most)
    };
    assert_eq!(slots(20), ([4, 1, 1], [20, 20, 10]));
    assert_eq!(slots(5), ([1, 1, 1], [5, 5, 2]));
    assert_eq!(slots(4), ([1, 0, 0], [4, 4, 2]));
    assert_eq!(slots(2), ([1, 0, 0], [2, 2, 1]));
    assert_eq!(slots(1), ([0, 0, 0], [1, 1, 1]), "a guarantee would keep the others out for ever");
}

#[test]
fn a_guarantee_is_lent_to_short_leases_only_and_one_slot_of_critical_never() {
    let mut shares = shares(20);
    assert_eq!(shares.available_to(Lane::Normal, 20), 15, "4 of Critical and 1 of Background are kept");
    shares.may_borrow = [true; 3];
    assert_eq!(Lane::ALL.map(|lane| shares.available_to(lane, 20)), [20, 19, 10]);
    shares.in_use[Lane::Normal as usize] = 19;
    assert_eq!(Lane::ALL.map(|lane| shares.available_to(lane, 1)), [1, 0, 0]);
}

#[test]
fn the_next_slot_goes_to_a_guarantee_and_then_to_the_highest_lane() {
    let mut shares = shares(20);
    shares.in_use = [3, 15, 1];
    assert_eq!(shares.next(1, [1, 1, 1]), Some(Lane::Critical));
    shares.in_use = [18, 1, 0];
    assert_eq!(shares.next(1, [1, 1, 1]), Some(Lane::Background), "its guarantee");
    assert_eq!(shares.next(1, [1, 1, 0]), None, "kept for it");
    shares.may_borrow = [true; 3];
    assert_eq!(shares.next(1, [1, 1, 1]), Some(Lane::Background), "its guarantee, also if it could be lent");
    shares.may_borrow = [false; 3];
    shares.in_use = [4, 10, 1];
    assert_eq!(shares.next(5, [0, 3, 7]), Some(Lane::Normal));
    assert_eq!(shares.servable(5, [0, 3, 7], 99), 5);
    assert_eq!(shares.servable(5, [0, 3, 1], 99), 4);
}

#[test]
fn background_keeps_its_guarantee_when_its_share_is_zero() {
    let mut shares = shares(20);
    shares.set_background_share(0.5);
    assert_eq!(shares.at_most(Lane::Background), 5);
    shares.set_background_share(0.0);
    assert_eq!(shares.at_most(Lane::Background), 1);
}

fn limits() -> impl Strategy<Value = PerLane<LaneLimits>> {
    let lane = || (prop::option::of(0.0..=1.0), 0.0..=1.0);
    [lane(), lane(), lane()].prop_map(|lanes| lanes.map(|(guaranteed, at_most)| LaneLimits { guaranteed, at_most }))
}

#[derive(Debug, Clone)]
enum Step {
    Take(usize),
    Release(usize),
    Resize(usize),
    Lend([bool; 3]),
    Throttle(f64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (0usize..3).prop_map(Step::Take),
        8 => (0usize..3).prop_map(Step::Release),
        1 => (1usize..40).prop_map(Step::Resize),
        1 => any::<[bool; 3]>().prop_map(Step::Lend),
        1 => (0.0..=1.0).prop_map(Step::Throttle),
    ]
}

proptest! {
    #[test]
    fn guarantees_are_kept(limits in limits(), size in 1usize..40, steps in prop::collection::vec(step(), 0..200)) {
        let mut shares = Shares::new(limits, size);
        for step in steps {
            match step {
                Step::Take(lane) => {
                    let lane = Lane::ALL[lane];
                    let used: usize = shares.in_use.iter().sum();
                    let free = shares.size.saturating_sub(used);
                    let available = shares.available_to(lane, free);
                    prop_assert!(available <= free);
                    if available > 0 {
                        shares.in_use[lane as usize] += 1;
                        prop_assert!(shares.in_use(lane) <= shares.at_most(lane));
                        let left = free - 1;
                        let owed = Lane::ALL.into_iter().filter(|other| *other != lane).map(|other| shares.owed(other));
                        if !shares.may_borrow[lane as usize] && shares.borrowed(lane) > 0 {
                            prop_assert!(left >= owed.sum(), "a lane with long leases took what is another's");
                        }
                        let is_critical_kept = lane == Lane::Critical
                            || shares.guaranteed(Lane::Critical) == 0
                            || shares.in_use(Lane::Critical) > 0;
                        prop_assert!(is_critical_kept || left > 0, "the last slot of critical was lent");
                    }
                }
                Step::Release(lane) => shares.in_use[lane] = shares.in_use[lane].saturating_sub(1),
                Step::Resize(size) => shares.resize(size),
                Step::Lend(may_borrow) => shares.may_borrow = may_borrow,
                Step::Throttle(share) => shares.set_background_share(share),
            }
            prop_assert!(shares.guaranteed.iter().sum::<usize>() <= shares.size);
            let wants_critical = limits[0].guaranteed.is_some_and(|share| share > 0.0);
            prop_assert!(shares.guaranteed(Lane::Critical) > 0 || !wants_critical || shares.size < 2);
            for lane in Lane::ALL {
                prop_assert!(shares.guaranteed(lane) <= shares.at_most(lane));
            }
        }
    }
}

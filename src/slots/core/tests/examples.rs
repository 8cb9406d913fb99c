//! The rules one by one, each in a few steps.

use super::*;

fn limits() -> Limits {
    Limits {
        max_size: 2,
        max_waiting: 2,
        max_connecting: 2,
        wait_budget: Duration::from_secs(1),
        ages: Ages::default(),
        lanes: Lane::ALL.map(LaneLimits::of),
    }
}

type TestCore = Core<u32, char>;

fn core() -> (TestCore, Instant) {
    limited(limits())
}

fn limited(limits: Limits) -> (TestCore, Instant) {
    let now = Instant::now();
    (Core::new(now, limits), now)
}

/// Joins the queue.
fn wait(core: &mut TestCore, now: Instant, name: char) -> WaiterId {
    match core.enter(now, patient(now, 60_000), || name) {
        Ok(Entered::Waits(id)) => id,
        other => panic!("{name} should wait: {other:?}"),
    }
}

/// Begins the wanted dials and returns their numbers.
fn begin(core: &mut TestCore, now: Instant) -> Vec<u64> {
    core.begin_dials(now).dials.collect()
}

/// Dials one connection that stays idle.
fn connect(core: &mut TestCore, now: Instant, conn: u32) {
    let id = wait(core, now, '-');
    let dial = begin(core, now)[0];
    core.leave(id);
    assert_eq!(core.on_dialed(now, dial, conn).to, Place::Idle);
}

/// Takes an idle connection.
fn take(core: &mut TestCore, now: Instant, expected: u32) -> Held<u32> {
    let held = core.take(now, Lane::Normal).expect("an idle connection");
    assert_eq!(held.conn, expected);
    held
}

/// Returns the waiter that gets the connection, and the connection.
fn handed(placed: Placed<u32, char>) -> (char, Held<u32>) {
    match placed.to {
        Place::Waiter(_, name, held) => (name, held),
        other => panic!("should be handed over: {other:?}"),
    }
}

/// The names of waiters.
fn names(waiters: Vec<(WaiterId, char)>) -> Vec<char> {
    waiters.into_iter().map(|(_, name)| name).collect()
}

#[test]
fn the_freshest_idle_connection_is_taken_first() {
    let (mut core, now) = core();
    wait(&mut core, now, 'a');
    wait(&mut core, now, 'b');
    let dials = begin(&mut core, now);
    let (a, one) = handed(core.on_dialed(now, dials[0], 1));
    let (b, two) = handed(core.on_dialed(now, dials[1], 2));
    assert_eq!((a, one.conn, b, two.conn), ('a', 1, 'b', 2));
    assert_eq!(release(&mut core, now, two).to, Place::Idle);
    assert_eq!(release(&mut core, now, one).to, Place::Idle);
    take(&mut core, now, 1);
    take(&mut core, now, 2);
    assert_eq!(core.take(now, Lane::Normal), None);
}

#[test]
fn the_first_connection_serves_the_first_waiter() {
    let (mut core, now) = core();
    connect(&mut core, now, 1);
    let held = take(&mut core, now, 1);
    wait(&mut core, now, 'a');
    let dial = begin(&mut core, now)[0];
    let (name, held) = handed(release(&mut core, now, held));
    assert_eq!((name, held.conn), ('a', 1));
    assert_eq!(core.on_dialed(now, dial, 2).to, Place::Idle);
}

#[test]
fn a_full_queue_refuses() {
    let (mut core, now) = core();
    wait(&mut core, now, 'a');
    wait(&mut core, now, 'b');
    let refused = core.enter(now, patient(now, 1_000), || panic!("not asked"));
    assert!(matches!(refused, Err(Refusal::Shed(ShedReason::QueueFull, _))), "{refused:?}");
    let endless = WaitPolicy { shedding: Shedding::Off, ..patient(now, 1_000) };
    assert!(core.enter(now, endless, || 'c').is_ok());
}

#[test]
fn a_waiter_past_its_deadline_is_passed_over() {
    let (mut core, now) = core();
    assert!(core.enter(now, patient(now, 10), || 'a').is_ok());
    wait(&mut core, now, 'b');
    let dial = begin(&mut core, now)[0];
    let placed = core.on_dialed(now + 10 * MS, dial, 1);
    assert!(matches!(placed.refused[..], [(_, 'a', Refusal::TimedOut)]), "{placed:?}");
    assert_eq!(handed(placed).0, 'b');
}

#[test]
fn a_waiter_that_could_not_finish_gets_no_connection() {
    let (mut core, now) = core();
    connect(&mut core, now, 1);
    let held = take(&mut core, now, 1);
    assert_eq!(release(&mut core, now + 20 * MS, held).to, Place::Idle);
    let now = now + 20 * MS;
    let held = take(&mut core, now, 1);
    let call = |millis| WaitPolicy { includes_work: true, shedding: Shedding::Predictive, ..patient(now, millis) };
    assert!(core.enter(now, call(35), || 'a').is_ok());
    assert!(core.enter(now, call(41), || 'b').is_ok());
    let placed = release(&mut core, now + 20 * MS, held);
    assert!(matches!(placed.refused[..], [(_, 'a', Refusal::Shed(ShedReason::TooLate, _))]), "{placed:?}");
    assert_eq!(handed(placed).0, 'b');
}

#[test]
fn no_dial_begins_for_a_caller_that_left() {
    let (mut core, now) = core();
    let id = wait(&mut core, now, 'a');
    assert_eq!(core.leave(id), Some('a'));
    assert!(begin(&mut core, now).is_empty());
}

#[test]
fn at_most_max_connecting_dials_at_once() {
    let (mut core, now) = limited(Limits { max_size: 50, max_waiting: 50, max_connecting: 4, ..limits() });
    for _ in 0..50 {
        wait(&mut core, now, 'a');
    }
    let dials = begin(&mut core, now);
    assert_eq!(dials.len(), 4);
    assert!(begin(&mut core, now).is_empty());
    core.on_dialed(now, dials[2], 1);
    assert_eq!(begin(&mut core, now).len(), 1);
}

#[test]
fn a_closing_connection_keeps_its_slot_until_it_has_ended() {
    let (mut core, now) = limited(Limits { max_size: 1, ..limits() });
    connect(&mut core, now, 1);
    take(&mut core, now, 1);
    wait(&mut core, now, 'a');
    core.retire(now, ENDED);
    assert!(begin(&mut core, now).is_empty());
    core.on_closed();
    assert_eq!(begin(&mut core, now).len(), 1);
}

#[test]
fn a_detached_connection_frees_its_slot_at_once() {
    let (mut core, now) = limited(Limits { max_size: 1, ..limits() });
    connect(&mut core, now, 1);
    take(&mut core, now, 1);
    wait(&mut core, now, 'a');
    core.detach(now, ENDED);
    assert_eq!(begin(&mut core, now).len(), 1);
}

#[test]
fn while_dials_fail_callers_are_refused_until_the_next_dial_is_due() {
    let (mut core, now) = core();
    wait(&mut core, now, 'a');
    wait(&mut core, now, 'b');
    let dials = begin(&mut core, now);
    assert!(core.on_dial_failed(now, dials[0], Trouble::Passing, 0.0).is_empty(), "the other dial may still succeed");
    assert_eq!(names(core.on_dial_failed(now, dials[1], Trouble::Passing, 0.0)), ['a', 'b']);
    assert_eq!(core.enter(now, patient(now, 1_000), || 'c'), Err(Refusal::Unreachable((), 50 * MS)));

    let due = now + 50 * MS;
    wait(&mut core, due, 'c');
    wait(&mut core, due, 'd');
    let dials = begin(&mut core, due);
    assert_eq!(dials.len(), 1, "one dial at a time after a failure");
    assert_eq!(handed(core.on_dialed(due, dials[0], 1)).0, 'c');
    assert_eq!(begin(&mut core, due).len(), 1);
}

/// All connections of a busy pool end at once, and dials fail. The estimates from before must not prevent the next
/// dial.
#[test]
fn a_pool_that_has_lost_everything_dials_again_however_busy_it_was() {
    let (mut core, begun) = limited(Limits { max_size: 1, ..limits() });
    connect(&mut core, begun, 1);
    let mut now = begun;
    for _ in 0..10_000 {
        let held = take(&mut core, now, 1);
        now += Duration::from_micros(100);
        release(&mut core, now, held);
    }
    let _lost = take(&mut core, now, 1);
    core.retire(now, ENDED);
    core.on_closed();
    wait(&mut core, now, 'a');
    let dial = begin(&mut core, now)[0];
    now += Duration::from_millis(900);
    assert_eq!(names(core.on_dial_failed(now, dial, Trouble::Passing, 0.0)), ['a']);
    now += Duration::from_millis(50);
    let predictive = WaitPolicy { shedding: Shedding::Predictive, ..patient(now, 200) };
    let entered = core.enter(now, predictive, || 'b');
    assert!(matches!(entered, Ok(Entered::Waits(_))), "{entered:?}");
    assert_eq!(begin(&mut core, now).len(), 1);
}

#[test]
fn the_pause_doubles_up_to_a_second_and_a_success_ends_it() {
    let (mut core, mut now) = core();
    for expected in [50, 100, 200, 400, 800, 1000, 1000] {
        wait(&mut core, now, 'a');
        let dial = begin(&mut core, now)[0];
        assert_eq!(names(core.on_dial_failed(now, dial, Trouble::Passing, 0.0)), ['a']);
        let pause = Duration::from_millis(expected);
        assert_eq!(core.enter(now, patient(now, 1_000), || 'b'), Err(Refusal::Unreachable((), pause)));
        now += pause;
    }
    connect(&mut core, now, 1);
    take(&mut core, now, 1);
    wait(&mut core, now, 'a');
    assert_eq!(begin(&mut core, now).len(), 1);
}

#[test]
fn the_core_requests_once_to_be_asked_again_after_a_pause() {
    let (mut core, now) = core();
    connect(&mut core, now, 1);
    core.on_asked_again();
    take(&mut core, now, 1);
    wait(&mut core, now, 'a');
    let dial = begin(&mut core, now)[0];
    assert!(
        core.on_dial_failed(now, dial, Trouble::Passing, 0.0).is_empty(),
        "a connection is alive: waiting may help"
    );
    let due = now + 50 * MS;
    assert_eq!(core.begin_dials(now).ask_again, Some(due));
    assert_eq!(core.begin_dials(now).ask_again, None);
    core.on_asked_again();
    assert_eq!(begin(&mut core, due).len(), 1);
}

#[test]
fn a_quiet_dial_is_joined_by_others_up_to_max_connecting() {
    let (mut core, now) = limited(Limits { max_size: 9, max_connecting: 3, ..limits() });
    wait(&mut core, now, 'a');
    assert_eq!(begin(&mut core, now), [0]);
    assert!(begin(&mut core, now + 60_000 * MS).is_empty(), "time alone does not make a dial quiet");
    for quiet in 0..2 {
        core.on_dial_quiet(quiet);
        assert_eq!(begin(&mut core, now), [quiet + 1], "another beside it");
    }
    core.on_dial_quiet(2);
    assert!(begin(&mut core, now).is_empty(), "three are under way");
    assert_eq!(core.begin_check(now), None, "the limit counts for a look as well");
    assert_eq!(handed(core.on_dialed(now, 1, 7)).0, 'a');
    assert_eq!(core.counts().dialing, 2, "the others have their time");
    assert_eq!(core.on_dialed(now, 0, 8).to, Place::Idle);
}

/// After a failure one dial at a time is made; a quiet one does not keep the next from its turn.
#[test]
fn a_quiet_dial_after_a_failure_is_joined_by_one() {
    let (mut core, now) = limited(Limits { max_size: 9, max_waiting: 9, max_connecting: 3, ..limits() });
    core.set_target(9);
    let dials = begin(&mut core, now);
    assert_eq!(dials.len(), 3);
    dials.iter().for_each(|dial| drop(core.on_dial_failed(now, *dial, Trouble::Passing, 0.0)));
    let later = now + 50 * MS;
    assert_eq!(begin(&mut core, later), [3]);
    core.on_dial_quiet(3);
    assert_eq!(begin(&mut core, later), [4]);
    core.on_dial_quiet(4);
    assert_eq!(begin(&mut core, later), [5]);
    core.on_dial_quiet(5);
    assert!(begin(&mut core, later).is_empty());
}

#[test]
fn a_smaller_limit_drains_and_a_larger_one_dials() {
    let (mut core, now) = limited(Limits { max_size: 4, max_waiting: 9, max_connecting: 9, ..limits() });
    core.set_target(4);
    let dials = begin(&mut core, now);
    assert_eq!(dials.len(), 4);
    core.set_target(0);
    for dial in dials {
        assert_eq!(core.on_dialed(now, dial, dial as u32).to, Place::Idle);
    }
    let mut held: Vec<_> = (0..3).map(|_| core.take(now, Lane::Normal).expect("idle")).collect();
    assert_eq!(core.resize(now, 2), [0], "idle ones beyond the limit end now");
    assert_eq!(
        release(&mut core, now, held.pop().expect("held")).to,
        Place::Closing(1),
        "leases when they are given back"
    );
    assert_eq!(release(&mut core, now, held.pop().expect("held")).to, Place::Idle);
    wait_behind_everything(&mut core, now, &mut held);
    assert!(begin(&mut core, now).is_empty());
    core.resize(now, 5);
    assert_eq!(begin(&mut core, now).len(), 1, "two are still closing");
}

/// Takes what is idle, and waits.
fn wait_behind_everything(core: &mut TestCore, now: Instant, held: &mut Vec<Held<u32>>) {
    held.extend(std::iter::from_fn(|| core.take(now, Lane::Normal)));
    wait(core, now, 'a');
}

#[test]
fn a_flush_retires_all_older_connections() {
    let (mut core, now) = limited(Limits { max_size: 3, ..limits() });
    connect(&mut core, now, 1);
    let held = take(&mut core, now, 1);
    connect(&mut core, now, 2);
    let idle = take(&mut core, now, 2);
    assert_eq!(release(&mut core, now, idle).to, Place::Idle);
    core.set_target(3);
    let dial = begin(&mut core, now)[0];
    assert_eq!(core.flush(now), [2]);
    assert_eq!(release(&mut core, now, held).to, Place::Closing(1));
    assert_eq!(core.on_dialed(now, dial, 3).to, Place::Closing(3), "the dial began before the flush");
    core.on_closed();
    let dial = begin(&mut core, now)[0];
    assert_eq!(core.on_dialed(now, dial, 4).to, Place::Idle);
}

#[test]
fn draining_serves_the_waiters() {
    let (mut core, now) = limited(Limits { max_size: 1, ..limits() });
    connect(&mut core, now, 1);
    let held = take(&mut core, now, 1);
    wait(&mut core, now, 'a');
    core.drain();
    assert_eq!(core.enter(now, patient(now, 1_000), || 'b'), Err(Refusal::Closed));
    let (name, held) = handed(release(&mut core, now, held));
    assert_eq!(name, 'a');
    assert_eq!(release(&mut core, now, held).to, Place::Closing(1));
}

#[test]
fn closing_refuses_newcomers_and_retires_what_comes_back() {
    let (mut core, now) = core();
    connect(&mut core, now, 1);
    let one = take(&mut core, now, 1);
    connect(&mut core, now, 2);
    let two = take(&mut core, now, 2);
    wait(&mut core, now, 'a');
    let (idle, waiters, dials) = core.close(now);
    assert_eq!((idle, names(waiters), dials), (vec![], vec!['a'], vec![]));
    assert_eq!(core.enter(now, patient(now, 1_000), || 'b'), Err(Refusal::Closed));
    assert_eq!(release(&mut core, now, one).to, Place::Closing(1));
    assert_eq!(release(&mut core, now, two).to, Place::Closing(2));
    core.on_closed();
    core.on_closed();
    assert!(begin(&mut core, now).is_empty());
    assert_eq!(core.counts().closing, 0);
}

#[test]
fn server_checks_dial_no_more_at_once_than_others() {
    let (mut core, now) = limited(Limits { max_size: 5, max_waiting: 5, ..limits() });
    core.limit_dials(1, Some(4));
    "abcd".chars().for_each(|name| _ = wait(&mut core, now, name));
    assert_eq!(begin(&mut core, now).len(), limits().max_connecting);
}

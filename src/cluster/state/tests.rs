//! What a cluster concludes, without a server.

mod random;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const BOUND: Need = Need::Within(Duration::from_secs(2));

/// A primary (host 0) and two replicas.
struct World {
    state: State,
    begun: Instant,
    millis: u64,
    events: Vec<EventKind>,
    systems: [u64; 3],
    /// The hosts that the last answer wants to be asked at once.
    ask: Vec<usize>,
}

impl World {
    fn new() -> Self {
        let begun = Instant::now();
        let labels = ["a:5432", "b:5432", "c:5432"].map(Arc::from);
        let state = State::new(begun, labels.into_iter(), Looks::default(), SECOND * 30);
        Self { state, begun, millis: 0, events: Vec::new(), systems: [7; 3], ask: Vec::new() }
    }

    fn now(&self) -> Instant {
        self.begun + Duration::from_millis(self.millis)
    }

    fn wait(&mut self, millis: u64) -> &mut Self {
        self.millis += millis;
        self
    }

    fn answer(&mut self, host: usize, timeline: u32, is_in_recovery: bool, place: u64, started: i64) -> bool {
        self.answer_in(true, host, timeline, is_in_recovery, place, started)
    }

    /// As [`answer`](Self::answer), in a new session of the scout or in the one of before.
    fn answer_in(
        &mut self,
        is_new_session: bool,
        host: usize,
        timeline: u32,
        is_in_recovery: bool,
        place: u64,
        started: i64,
    ) -> bool {
        let now = self.now();
        let system = Some(self.systems[host]);
        let sighting = Sighting { at: now, is_in_recovery, timeline: Some(timeline), system, started };
        let outcome =
            self.state.on_answer(now, host, now, Answer { sighting, place: Some(Lsn(place)) }, is_new_session);
        self.events.extend(outcome.events);
        self.ask = outcome.ask;
        outcome.flush
    }

    /// All hosts answer: the primary writes, and the replicas have replayed this much.
    fn round(&mut self, written: u64, replayed: [u64; 2]) -> &mut Self {
        self.answer(0, 1, false, written, 100);
        self.answer(1, 1, true, replayed[0], 101);
        self.answer(2, 1, true, replayed[1], 102);
        self.wait(1_000)
    }

    fn dial(&mut self, host: usize, started: i64, replayed: Option<Lsn>) -> bool {
        self.state.on_dialed(host, self.now(), started, replayed)
    }

    fn candidates(&self, need: Need) -> Vec<usize> {
        self.state.candidates(self.now(), need, &[]).replicas.iter().map(|(host, _)| *host).collect()
    }

    fn names(&self) -> Vec<&str> {
        self.events.iter().map(EventKind::as_str).collect()
    }
}

#[test]
fn a_replica_that_stops_replaying_is_left_in_time_and_returns_after_three_good_looks() {
    let mut world = World::new();
    for second in 1..10 {
        world.round(second * 100, [second * 100, second * 100]);
    }
    assert_eq!(world.candidates(BOUND), [1, 2]);
    world.round(1_000, [1_000, 900]).wait(500);
    assert_eq!(world.candidates(BOUND), [1], "the bound has passed");
    assert_eq!(world.candidates(Need::Any), [1, 2]);
    for second in 11..14 {
        world.round(second * 100, [second * 100, 900]);
    }
    world.round(1_400, [1_400, 1_400]);
    assert_eq!(world.candidates(BOUND), [1], "one good look");
    world.round(1_500, [1_500, 1_500]);
    assert_eq!(world.candidates(BOUND), [1], "two");
    world.round(1_600, [1_600, 1_600]);
    assert_eq!(world.candidates(BOUND), [1, 2]);
}

#[test]
fn nothing_is_known_of_a_replica_on_another_timeline() {
    let mut world = World::new();
    world.round(100, [100, 100]).round(200, [200, 200]);
    world.answer(1, 2, false, 250, 101);
    world.answer(2, 1, true, 400, 102);
    world.wait(500);
    assert_eq!(world.candidates(BOUND), [0; 0], "400 is not on timeline 2");
    assert_eq!(world.candidates(Need::Any), [2]);
    let position = Position { system: 7, timeline: 1, lsn: Lsn(100) };
    assert_eq!(world.candidates(Need::Position(position)), [0; 0], "of the old timeline");
    world.answer(2, 2, true, 260, 102);
    assert_eq!(world.candidates(BOUND), [2]);
    assert_eq!(world.names(), ["primary_changed"]);
    let Some(EventKind::PrimaryChanged { from, to, last, first }) = world.events.pop() else { panic!() };
    assert_eq!((from.as_deref(), to.as_deref()), (Some("a:5432"), Some("b:5432")));
    let at = |timeline, place| Some(Position { system: 7, timeline, lsn: Lsn(place) });
    assert_eq!((last, first), (at(1, 200), at(2, 250)));
}

#[test]
fn positions_and_instants_ask_for_what_they_say() {
    let mut world = World::new();
    world.round(100, [100, 100]).round(200, [200, 150]).round(300, [300, 200]);
    let position = |lsn| Need::Position(Position { system: 7, timeline: 1, lsn: Lsn(lsn) });
    assert_eq!(world.candidates(position(200)), [1, 2]);
    assert_eq!(world.candidates(position(201)), [1]);
    assert_eq!(world.candidates(position(301)), [0; 0]);
    assert_eq!(world.candidates(Need::Position(Position { system: 8, timeline: 1, lsn: Lsn(1) })), [0; 0]);
    assert_eq!(world.candidates(Need::Since(world.begun + SECOND)), [1, 2]);
    assert_eq!(world.candidates(Need::Since(world.begun + SECOND * 2)), [1]);
    assert_eq!(world.candidates(Need::Since(world.now())), [0; 0], "the primary was not asked since");
}

#[test]
fn a_position_of_before_a_failover_is_served_by_a_replica_of_the_new_history() {
    let mut world = World::new();
    world.round(100, [100, 100]).round(200, [200, 200]);
    let position = |system, timeline, lsn| Need::Position(Position { system, timeline, lsn: Lsn(lsn) });
    world.answer(1, 2, false, 250, 101);
    world.answer(2, 2, true, 240, 102);
    assert_eq!(world.candidates(position(7, 1, 200)), [0; 0], "it may not have replayed up to the switch");
    world.answer(2, 2, true, 250, 102);
    assert_eq!(world.candidates(position(7, 1, 200)), [2]);
    assert_eq!(world.candidates(position(7, 1, 900)), [0; 0], "a read may have seen 900 on the new timeline");
    world.answer(1, 2, false, 900, 101);
    world.answer(2, 2, true, 900, 102);
    assert_eq!(world.candidates(position(7, 1, 900)), [2], "what the old primary wrote behind the switch is lost");
    assert_eq!(world.candidates(position(8, 1, 200)), [0; 0], "of another system");
    assert_eq!(world.candidates(position(7, 3, 200)), [0; 0], "of a timeline that is not known here");
    assert_eq!(world.candidates(position(7, 2, 901)), [0; 0]);
}

#[test]
fn what_was_written_since_the_last_two_looks_is_unproven() {
    let mut world = World::new();
    let begun = world.now();
    assert!(world.state.is_unproven(Need::Since(begun)));
    world.round(100, [100, 100]);
    let written = world.now() - SECOND / 2;
    world.round(200, [200, 100]);
    assert!(world.state.is_unproven(Need::Since(written)), "one look");
    world.round(300, [300, 100]);
    assert!(!world.state.is_unproven(Need::Since(written)));
    assert!(!world.state.is_unproven(BOUND) && !world.state.is_unproven(Need::Any));
}

#[test]
fn the_system_is_known_without_a_primary() {
    let mut world = World::new();
    world.answer(1, 1, true, 100, 101);
    assert_eq!((world.state.primacy(), world.state.system()), (Primacy::NoPrimary, Some(7)));
    assert!(world.state.is_replica(1) && !world.state.is_replica(0));
    world.wait(3_000);
    assert!(world.state.is_silent(world.now(), 1));
}

#[test]
fn a_host_that_leads_to_several_servers_serves_no_bounded_reads() {
    let mut world = World::new();
    world.round(100, [100, 100]);
    assert!(!world.dial(1, 101, None), "the server that the scout knows");
    assert!(world.dial(1, 999, None), "another one");
    assert_eq!(world.candidates(BOUND), [2], "until the scout has looked again");
    world.round(200, [200, 200]);
    assert_eq!(world.names(), ["host_balances"]);
    assert_eq!((world.candidates(BOUND), world.candidates(Need::Any)), (vec![2], vec![1, 2]));
    assert!(world.state.report(world.now(), 1).is_balanced);
}

#[test]
fn a_restart_is_no_balancer_and_replaces_the_connections() {
    let mut world = World::new();
    world.round(100, [100, 100]);
    assert!(world.dial(1, 555, None), "the pool has noticed the restart first");
    assert!(!world.candidates(BOUND).contains(&1));
    assert!(world.answer(1, 1, true, 50, 555), "the pool's older connections are of no use");
    assert_eq!(world.names(), [""; 0]);
    assert!(
        !world.candidates(Need::Position(Position { system: 7, timeline: 1, lsn: Lsn(60) })).contains(&1),
        "it is behind"
    );
    world.answer(1, 1, true, 100, 555);
    assert!(world.candidates(Need::Position(Position { system: 7, timeline: 1, lsn: Lsn(60) })).contains(&1));
}

#[test]
fn lag_and_silence_are_reported_and_so_are_their_ends() {
    let mut world = World::new();
    for second in 1..=60 {
        world.round(second * 100, [second * 100, 100]);
    }
    assert_eq!(world.names(), ["replica_lags", "replica_lags"], "at 15 s, and again 30 s later");
    let last = world.events.last().unwrap();
    assert!(matches!(last, EventKind::ReplicaLags { lag: Some(lag), .. } if lag.as_secs() >= 45), "{last:?}");
    assert_eq!(last.severity(), crate::event::Severity::Critical);
    world.events.clear();
    for second in 61..=120 {
        world.round(second * 100, [second * 100, second * 100]);
    }
    assert_eq!(world.names(), ["replica_caught_up"]);
    world.events.clear();
    for second in 121..=130 {
        world.answer(0, 1, false, second * 100, 100);
        world.answer(1, 1, true, second * 100, 101);
        let (now, reason) = (world.now(), "no answer".to_owned());
        let outcome = world.state.on_failure(now, 2, reason);
        world.events.extend(outcome.events);
        world.wait(1_000);
    }
    assert_eq!(world.names(), ["host_silent"]);
    assert_eq!(world.candidates(Need::Any), [1]);
    world.round(14_000, [14_000, 14_000]);
    assert_eq!(world.names(), ["host_silent", "host_answers"]);
}

#[test]
fn why_there_is_no_primary_is_said_of_each_host() {
    let mut world = World::new();
    let why = |world: &mut World| {
        let now = world.now();
        world.state.why_no_primary(now).to_string()
    };
    let begun = "a:5432 has not answered yet; b:5432 has not answered yet; c:5432 has not answered yet";
    assert_eq!(why(&mut world), begun);
    world.answer(1, 2, true, 100, 101);
    let now = world.now();
    world.state.on_failure(now, 0, "a:5432: connection refused".to_owned());
    world.state.on_failure(now, 2, "no answer within 1 s".to_owned());
    assert_eq!(why(&mut world), "a:5432: connection refused; b:5432 is a replica; c:5432: no answer within 1 s");
    world.answer(0, 1, false, 90, 100);
    assert!(why(&mut world).starts_with("a:5432 accepts writes on timeline 1; b:5432 is a replica;"));
    world.wait(3_000);
    let now = world.now();
    world.state.on_failure(now, 1, "b:5432: the host name could not be resolved".to_owned());
    assert!(why(&mut world).contains("; b:5432 is silent: the host name could not be resolved;"));
}

/// A host is silent after three looks, however often it is looked at.
#[test]
fn a_cluster_that_looks_more_often_notices_a_silence_sooner() {
    let begun = Instant::now();
    let tenth = SECOND / 10;
    let looks = Looks { every: tenth, timeout: tenth };
    let mut state = State::new(begun, ["a:5432".into()].into_iter(), looks, SECOND * 30);
    let sighting = Sighting { at: begun, is_in_recovery: true, timeline: Some(1), system: Some(7), started: 1 };
    state.on_answer(begun, 0, begun, Answer { sighting, place: Some(Lsn(1)) }, true);
    assert!(state.has(begun + tenth * 2, 0, Need::Any) && !state.is_silent(begun + tenth * 2, 0));
    assert!(!state.has(begun + tenth * 3, 0, Need::Any) && state.is_silent(begun + tenth * 3, 0));
}

#[test]
fn a_missing_primary_is_reported_after_a_while() {
    let mut world = World::new();
    world.round(100, [100, 100]);
    for _ in 0..5 {
        world.answer(0, 1, true, 100, 103);
        world.answer(1, 1, true, 100, 101);
        world.answer(2, 1, true, 100, 102);
        world.wait(1_000);
    }
    assert_eq!(world.names(), ["primary_missing"]);
    world.answer(1, 2, false, 120, 101);
    assert_eq!(world.names(), ["primary_missing", "primary_found", "primary_changed"]);
}

#[test]
fn a_lost_session_proves_nothing_any_more() {
    let mut world = World::new();
    world.round(100, [100, 100]).round(200, [200, 200]);
    let position = Need::Position(Position { system: 7, timeline: 1, lsn: Lsn(200) });
    assert_eq!(world.candidates(position), [1, 2]);
    let now = world.now();
    world.state.on_failure(now, 1, "connection closed".to_owned());
    assert_eq!(world.candidates(position), [2], "after a crash, the replay goes on from an earlier place");
    assert_eq!(world.candidates(BOUND), [2]);
}

#[test]
fn any_replica_serves_while_the_primary_is_silent_unless_it_was_far_behind_before() {
    let mut world = World::new();
    for second in 1..=40 {
        world.round(second * 100, [second * 100, 500]);
    }
    for _ in 0..60 {
        world.answer(1, 1, true, 4_000, 101);
        world.answer(2, 1, true, 500, 102);
        world.wait(1_000);
    }
    assert_eq!((world.candidates(Need::Any), world.candidates(BOUND)), (vec![1], vec![]));
}

#[test]
fn a_replica_that_cannot_follow_to_the_new_timeline_serves_nothing_in_the_end() {
    let mut world = World::new();
    world.round(100, [100, 100]);
    world.answer(1, 2, false, 120, 101);
    world.answer(2, 1, true, 110, 102);
    assert_eq!(world.candidates(Need::Any), [2]);
    for second in 2..40 {
        world.answer(1, 2, false, second * 100, 101);
        world.answer(2, 1, true, 110, 102);
        world.wait(1_000);
    }
    assert_eq!(world.candidates(Need::Any), [0; 0]);
}

#[test]
fn a_name_that_led_to_several_servers_is_compared_anew_later() {
    let mut world = World::new();
    world.round(100, [100, 100]);
    world.dial(1, 999, None);
    world.round(200, [200, 200]);
    for second in 3..590 {
        world.round(second * 100, [second * 100, second * 100]);
    }
    assert_eq!(world.candidates(BOUND), [2]);
    let mut is_flushed = false;
    for second in 590..610 {
        is_flushed |= world.answer(1, 1, true, second * 100, 101);
        world.round(second * 100, [second * 100, second * 100]);
    }
    assert!(is_flushed, "connections of before may lead anywhere");
    assert_eq!(world.candidates(BOUND), [1, 2]);
    assert!(world.dial(1, 999, None), "compared again");
    assert_eq!(world.candidates(BOUND), [2]);
}

/// The server's process goes on, and so does its start time.
#[test]
fn a_replica_that_has_recovered_by_itself_proves_nothing_until_it_is_asked_anew() {
    let mut world = World::new();
    world.round(100, [100, 100]).round(200, [200, 200]);
    let position = Need::Position(Position { system: 7, timeline: 1, lsn: Lsn(200) });
    assert!(!world.dial(1, 101, Some(Lsn(200))) && !world.dial(1, 101, Some(Lsn(250))));
    assert_eq!(world.candidates(position), [1, 2]);
    assert!(world.dial(1, 101, Some(Lsn(150))), "it has gone back");
    assert_eq!((world.candidates(position), world.candidates(BOUND)), (vec![2], vec![2]));
    world.answer_in(false, 1, 1, true, 200, 101);
    assert_eq!(world.candidates(position), [2], "an answer of before the crash");
    world.answer(1, 1, true, 160, 101);
    assert_eq!(world.candidates(position), [2]);
    world.answer(1, 1, true, 200, 101);
    assert_eq!(world.candidates(position), [1, 2]);
    assert_eq!(world.names(), [""; 0]);
}

/// A name for readers that leads to the primary as well.
#[test]
fn a_name_that_leads_to_several_servers_is_the_last_choice_for_the_primary() {
    let mut world = World::new();
    world.answer(0, 1, false, 100, 100);
    world.answer(1, 1, false, 100, 100);
    world.answer(2, 1, true, 100, 102);
    assert!(world.state.is_primary(0) && world.state.is_one_server(0));
    world.dial(0, 102, Some(Lsn(100)));
    assert!(world.state.is_primary(0) && !world.state.is_one_server(0));
    world.answer(0, 1, false, 100, 100);
    assert!(world.state.is_primary(1) && world.state.is_one_server(1));
    assert_eq!(world.names(), ["host_balances"]);
}

/// A pooler gives each question of the scout to another server.
#[test]
fn one_session_that_shows_two_servers_is_no_restart() {
    let mut world = World::new();
    world.round(100, [100, 100]);
    assert!(!world.answer_in(false, 1, 1, true, 100, 555), "a flush would not help");
    assert!(!world.answer_in(false, 1, 1, true, 100, 101));
    assert_eq!(world.names(), ["host_balances"]);
    assert_eq!(world.candidates(Need::Position(Position { system: 7, timeline: 1, lsn: Lsn(50) })), [2]);
}

/// The server behind its pooler was restarted, or the pooler leads to another one from now on. The scout's session with
/// the pooler has survived.
#[test]
fn a_server_that_was_restarted_behind_a_pooler_is_one_server() {
    let mut world = World::new();
    world.round(100, [100, 100]);
    let position = Need::Position(Position { system: 7, timeline: 1, lsn: Lsn(50) });
    assert!(!world.answer_in(false, 1, 1, true, 100, 555), "the pool's connections lead there as well");
    assert_eq!(
        (world.candidates(position), world.ask.as_slice()),
        (vec![2], &[1][..]),
        "until the scout has connected"
    );
    assert!(world.answer(1, 1, true, 100, 555), "connections to another pooler may lead elsewhere");
    assert_eq!(world.candidates(position), [1, 2]);
    // Once more, and then the first one after a long time: nobody can know.
    world.answer_in(false, 1, 1, true, 100, 777);
    world.answer(1, 1, true, 100, 777);
    world.wait(600_000);
    world.answer_in(false, 1, 1, true, 100, 555);
    world.answer(1, 1, true, 100, 555);
    assert_eq!(world.names().iter().filter(|name| **name == "host_balances").count(), 0);
    world.answer_in(false, 1, 1, true, 100, 777);
    assert_eq!(world.names().last(), Some(&"host_balances"), "it is back so soon");
}

/// Both replicas were promoted, each without knowing of the other: `b` to timeline 2, and after its death `a`, from
/// timeline 1, to a timeline 2 of its own. `c` still has the log of `b`.
#[test]
fn a_replica_with_another_log_under_the_same_number_serves_no_bounded_reads() {
    let mut world = World::new();
    world.round(100, [100, 100]).round(200, [200, 200]);
    world.answer(1, 2, false, 900, 101);
    world.answer(2, 2, true, 900, 102);
    let own = Need::Position(Position { system: 7, timeline: 2, lsn: Lsn(252) });
    for second in 1..10 {
        world.wait(1_000);
        world.answer(0, 2, false, 250 + second * 100, 555);
        world.answer(2, 2, true, 900, 102);
        if world.state.is_primary(0) {
            assert_eq!((world.candidates(BOUND), world.candidates(own)), (vec![], vec![]), "second {second}");
        }
    }
    assert!(world.state.is_primary(0));
    // `b` is back for a moment, with its place, and `a` is gone: then `c` was right all the time.
    let mut other = World::new();
    other.round(100, [100, 100]);
    for second in 2..12 {
        other.answer(0, 1, false, 100 + second * 100, 100);
        other.answer(2, 1, true, 100 + second * 100, 102);
        other.wait(1_000);
    }
    for _ in 0..5 {
        other.answer(1, 1, false, 150, 101);
        other.answer(2, 1, true, 1_200, 102);
        other.wait(1_000);
    }
    assert!(other.state.is_primary(1));
    assert_eq!(other.candidates(BOUND), [0; 0]);
    for second in 12..20 {
        other.answer(0, 1, false, 100 + second * 100, 100);
        other.answer(2, 1, true, 100 + second * 100, 102);
        other.wait(1_000);
    }
    assert!(other.state.is_primary(0));
    assert_eq!(other.candidates(BOUND), [2]);
    // It was made anew from the primary.
    world.answer(2, 2, true, 1_150, 103);
    assert_eq!(world.candidates(own), [2]);
}

#[test]
fn an_answer_of_an_older_session_does_not_resolve_a_doubt() {
    let mut world = World::new();
    world.round(100, [100, 100]);
    assert!(world.dial(1, 555, None), "the name leads to a new server");
    world.answer_in(false, 1, 1, true, 100, 101);
    assert_eq!(world.names(), [""; 0]);
    world.answer(1, 1, true, 100, 555);
    assert_eq!(world.names(), [""; 0]);
}

#[test]
fn connections_of_before_the_first_answer_are_compared_with_it() {
    let mut world = World::new();
    assert!(!world.dial(1, 999, None));
    assert!(world.answer(1, 1, true, 100, 101), "they lead elsewhere");
    assert!(!world.answer(1, 1, true, 100, 101));
}

#[test]
fn each_connection_of_before_the_first_answer_is_compared_with_it() {
    let mut world = World::new();
    assert!(!world.dial(1, 999, None));
    assert!(!world.dial(1, 101, None), "the last one leads where the scout is");
    assert!(world.answer(1, 1, true, 100, 101), "the first one does not");
    assert!(!world.answer(1, 1, true, 100, 101));
    assert!(!world.dial(2, 102, None) && !world.dial(2, 102, None));
    assert!(!world.answer(2, 1, true, 100, 102), "all of them lead there");
}

#[test]
fn a_server_under_two_names_that_restarts_is_not_reported_as_two_primaries() {
    let mut world = World::new();
    world.answer(0, 1, false, 100, 100);
    world.answer(1, 1, false, 100, 100);
    world.answer(2, 1, true, 100, 102);
    world.wait(1_000);
    world.answer(0, 1, false, 100, 555);
    assert_eq!((world.state.primacy(), &world.ask[..]), (Primacy::NoPrimary, &[1][..]));
    world.wait(20);
    let now = world.now();
    world.state.on_failure(now, 1, "connection closed".to_owned());
    assert!(world.state.is_primary(0), "the process that the other name has shown is gone");
    world.answer(1, 1, false, 100, 555);
    assert!(world.state.is_primary(0) && world.ask.is_empty());
    assert_eq!(world.names(), [""; 0]);
}

/// The name of the primary was moved to a second server, and the first one still accepts writes under its other name.
#[test]
fn a_name_that_leaves_a_server_which_goes_on_writing_makes_two_primaries() {
    let mut world = World::new();
    world.answer(0, 1, false, 100, 100);
    world.answer(1, 1, false, 100, 100);
    world.answer(2, 1, true, 100, 102);
    world.answer(0, 1, false, 100, 555);
    assert_eq!(world.state.primacy(), Primacy::NoPrimary);
    world.answer(1, 1, false, 100, 100);
    assert_eq!(world.state.primacy(), Primacy::TwoPrimaries(0, 1));
}

#[test]
fn an_empty_database_that_answers_first_gets_no_writes_and_serves_no_reads() {
    let mut world = World::new();
    world.systems = [8, 7, 7];
    world.answer(0, 1, false, 100, 100);
    assert_eq!((world.state.primacy(), world.candidates(Need::Any)), (Primacy::NoPrimary, vec![]));
    let now = world.now();
    world.state.on_failure(now, 2, "connection refused".to_owned());
    world.answer(1, 5, true, 900, 101);
    let systems = [("a:5432".into(), 8), ("b:5432".into(), 7)];
    assert_eq!((world.state.systems(), world.candidates(Need::Any)), (Some(systems), vec![]));
    for _ in 0..4 {
        world.wait(1_000);
        world.answer(0, 1, false, 100, 100);
        world.answer(1, 5, true, 900, 101);
    }
    assert_eq!(world.names(), ["two_systems", "host_silent"]);
    world.answer(2, 6, false, 950, 102);
    assert!(world.state.is_primary(2) && world.state.systems().is_none(), "most hosts agree");
}

#[test]
fn the_nearest_replica_is_one_that_would_serve_the_read_with_less_lag() {
    let mut world = World::new();
    for second in 1..10 {
        world.round(second * 100, [second * 100 - 50, 100]);
    }
    let nearest = |world: &World, need, excluded: &[usize]| {
        let candidates = world.state.candidates(world.now(), need, excluded);
        let seconds = |lag: Option<Duration>| lag.map(|lag| lag.as_secs());
        (seconds(candidates.nearest), seconds(candidates.soonest))
    };
    let ahead = Need::Position(Position { system: 7, timeline: 1, lsn: Lsn(901) });
    assert_eq!(nearest(&world, ahead, &[]), (Some(2), Some(2)));
    assert_eq!(nearest(&world, ahead, &[1]), (Some(9), Some(9)), "the first one has failed");
    assert_eq!(nearest(&world, BOUND, &[1]), (Some(9), None), "three good looks would be needed");
    world.answer(2, 1, true, 900, 102);
    assert_eq!(nearest(&world, BOUND, &[1]), (None, None), "it has caught up, and serves nothing yet all the same");
    world.answer(2, 1, true, 100, 102);
    world.dial(1, 999, None);
    assert_eq!(nearest(&world, ahead, &[]), (Some(9), Some(9)), "it leads to several servers");
}

#[test]
fn a_position_that_no_host_can_reach_is_known_to_be_one() {
    let mut world = World::new();
    world.round(100, [100, 100]);
    let is_out = |system, timeline, lsn| {
        let position = Position { system, timeline, lsn: Lsn(lsn) };
        world.state.is_out_of_reach(world.now(), Need::Position(position))
    };
    assert!(is_out(8, 1, 50) && is_out(7, 2, 50) && is_out(7, 1, u64::MAX) && is_out(7, 0, u64::MAX));
    assert!(!is_out(7, 1, 150) && !is_out(7, 0, 150));
}

#[test]
fn a_forgotten_timeline_lets_the_primary_of_before_be_found() {
    let mut world = World::new();
    world.round(100, [100, 100]);
    world.answer(1, 2, false, 120, 101);
    world.answer(1, 1, true, 110, 105);
    world.answer(0, 1, false, 130, 100);
    assert_eq!(world.state.primacy(), Primacy::NoPrimary);
    let now = world.now();
    let (forgotten, events) = world.state.forget_timeline(now);
    assert_eq!((forgotten, world.state.is_primary(0)), (2, true));
    assert_eq!(events.iter().map(EventKind::as_str).collect::<Vec<_>>(), ["primary_changed"]);
}

/// The calls that come meanwhile wait for it.
#[test]
fn a_host_that_has_failed_before_another_one_has_answered_is_asked_again_first() {
    let mut world = World::new();
    for host in 0..3 {
        let now = world.now();
        world.state.on_failure(now, host, "connection refused".to_owned());
    }
    assert!(world.state.has_asked_all(), "calls fail");
    world.wait(100);
    world.answer(0, 1, false, 100, 100);
    assert!(!world.state.has_asked_all() && !world.state.is_primary(0), "calls wait");
    for host in [1, 2] {
        let now = world.now();
        world.state.on_failure(now, host, "connection refused".to_owned());
    }
    assert!(world.state.has_asked_all() && world.state.is_primary(0));
}

#[test]
fn a_missed_answer_of_the_primary_takes_no_replica_out_for_longer() {
    let mut world = World::new();
    for second in 1..10 {
        world.round(second * 100, [second * 100, second * 100]);
    }
    for _ in 0..4 {
        world.answer(1, 1, true, 900, 101);
        world.wait(1_000);
    }
    assert_eq!(world.candidates(BOUND), [0; 0], "nobody knows what the primary has written since");
    world.round(1_400, [1_400, 1_400]);
    assert!(world.candidates(BOUND).contains(&1));
}

#[test]
fn a_primary_that_is_silent_is_missing() {
    let mut world = World::new();
    world.round(100, [100, 100]);
    for _ in 0..8 {
        world.answer(1, 1, true, 100, 101);
        world.answer(2, 1, true, 100, 102);
        world.wait(1_000);
    }
    assert_eq!(world.names(), ["host_silent", "primary_missing"]);
}

/// What replicas answered before says nothing about their lag, and reads would use up the spill budget meanwhile.
#[test]
fn the_replicas_of_a_new_primary_are_asked_at_once() {
    let mut world = World::new();
    world.answer(1, 1, true, 50, 101);
    world.answer(2, 1, true, 50, 102);
    assert!(world.ask.is_empty(), "there is no primary yet");
    world.answer(0, 1, false, 40, 100);
    assert_eq!(world.ask, [1, 2]);
    world.answer(1, 1, true, 50, 101);
    assert_eq!((world.candidates(BOUND), world.ask.is_empty()), (vec![1], true));
}

//! One member of a fleet: how much of its pool it may use, from what it reads and from what it cannot read.
//!
//! ```text
//! Joining ──its beacon was seen twice──▶ Sharing ──no reading for long──▶ Blind
//!   ▲ ▲                                    │                                │
//!   │ └─────── the connection was lost ────┘                                │
//!   └────────────────────────── the next reading ───────────────────────────┘
//! ```
//!
//! A member that joins uses what it has: its minimum. A blind one keeps what it has, and after a minute no more than an
//! equal part of what it last saw. Behind a pooler, a reading says nothing about the server: the member is off, and the
//! pool uses all of `max_size`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::beacon::Beacon;
use super::growth::{step, taken};
use super::reading::{Peer, Reading};
use super::shares::{Wish, shares};
use super::state::FleetState;
use super::strangers::Strangers;

/// The pause between two readings of a small fleet, and the shortest one of a member that needs more.
const EVERY: Duration = Duration::from_secs(2);
const HURRY: Duration = Duration::from_secs(1);
/// All members together have at most so many rounds a second. So what a fleet costs the server grows with the number of
/// connections only, not with its square. A round in which a member grows reads twice.
const ROUNDS_PER_SECOND: f64 = 50.0;
/// All members together change their beacons between readings at most so many times a second, and each of them at most
/// once in this time.
const CHANGES_PER_SECOND: f64 = 200.0;
const CHANGE: Duration = Duration::from_millis(250);
/// A member without a reading for this long, and a round more, uses no more than it has.
const BLIND: Duration = Duration::from_secs(15);
/// After this long, it uses no more than an equal part.
const LONG_BLIND: Duration = Duration::from_secs(60);
/// After the server has refused a connection, a member does not grow for this long.
const REFUSED: Duration = Duration::from_secs(30);
/// This long after that, its steps become twice as large.
const CALM: Duration = Duration::from_secs(60);
/// A member whose beacon has vanished may still be there for this long.
const GHOST: Duration = Duration::from_secs(1);
/// The connections of members that have vanished end within this time.
const ORPHAN: Duration = Duration::from_secs(60);
/// A member still wants what it needed this long ago.
const RECENT: Duration = Duration::from_secs(2);
/// How much more than its load a member wants.
const RESERVE: f64 = 1.3;
/// The smallest step is 1/64 of the usual one.
const MOST_HALVINGS: u32 = 6;

/// What the owner has set.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) id: String,
    pub(crate) minimum: usize,
    /// `max_size`.
    pub(crate) most: usize,
}

/// What the pool has and needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own {
    /// Connections in every state, dials included.
    pub(crate) held: usize,
    pub(crate) in_use: usize,
    pub(crate) waiting: usize,
    /// Whether callers wait, or have all connections.
    pub(crate) is_short: bool,
    pub(crate) demand: Option<f64>,
    /// The pool would not use more than this, whatever it is granted: the database cannot bear more.
    pub(crate) useful: usize,
}

impl Default for Own {
    fn default() -> Self {
        Self { held: 0, in_use: 0, waiting: 0, is_short: false, demand: None, useful: usize::MAX }
    }
}

/// What the latest reading has shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    pub(crate) at: Instant,
    pub(crate) members: usize,
    /// What the members divide: the tightest scope's limit less headroom, strangers and the members' own connections.
    pub(crate) capacity: usize,
    pub(crate) strangers: usize,
    /// The headroom of that scope.
    pub(crate) headroom: usize,
    pub(crate) share: usize,
    /// The minimums of all members.
    pub(crate) minimums: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// This many readings in a row have shown the member's own beacon.
    Seen(u32),
    Draining,
    Off,
}

/// After the connection was lost, the member does not grow before as many members are back as there were.
#[derive(Debug)]
struct Awaited {
    members: usize,
    /// Those that are not back by then are blind, and use no more than they have. It is set when the member itself is
    /// back, after each loss anew.
    until: Option<Instant>,
    /// However often the connection is lost meanwhile, the member waits no longer than this.
    latest: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Member {
    terms: Terms,
    phase: Phase,
    begun: Instant,
    /// How many connections the member claims, of `most`.
    claim: usize,
    /// What of it the pool may use: the others have seen the claim, or a later reading has confirmed it.
    confirmed: usize,
    held: usize,
    /// As in [`Own`].
    useful: usize,
    /// The capacity of its role or database, if that is limited. The server would refuse connections beyond it.
    bearable: usize,
    /// What was needed, and when. Each entry is lower than the one before.
    needs: VecDeque<(Instant, usize)>,
    view: Option<View>,
    /// Claims at the latest reading, by process.
    claims: HashMap<u32, usize>,
    /// When members vanished, and what they had claimed.
    vanished: VecDeque<(Instant, usize)>,
    strangers: [Strangers; 3],
    awaited: Option<Awaited>,
    refused: Option<Instant>,
    halvings: u32,
}

impl Member {
    pub(crate) fn new(now: Instant, terms: Terms) -> Self {
        let claim = terms.minimum.min(terms.most);
        Self {
            terms,
            phase: Phase::Seen(0),
            begun: now,
            claim,
            confirmed: claim,
            held: 0,
            useful: usize::MAX,
            bearable: usize::MAX,
            needs: VecDeque::new(),
            view: None,
            claims: HashMap::new(),
            vanished: VecDeque::new(),
            strangers: Default::default(),
            awaited: None,
            refused: None,
            halvings: 0,
        }
    }

    /// How many connections the pool may use now.
    pub(crate) fn limit(&self) -> usize {
        if self.phase == Phase::Off { self.terms.most } else { self.claim.min(self.confirmed) }
    }

    /// The server shows a beacon with this number to the others. Beyond the minimum, a larger claim needs a second
    /// reading.
    pub(crate) fn on_shown(&mut self, granted: usize) {
        self.confirmed = granted.min(self.confirmed.max(self.minimum()));
    }

    /// The member claims more than it may use.
    pub(crate) fn is_claiming(&self) -> bool {
        self.claim > self.confirmed
    }

    pub(crate) fn most(&self) -> usize {
        self.terms.most
    }

    pub(crate) fn minimum(&self) -> usize {
        self.terms.minimum.min(self.terms.most)
    }

    pub(crate) fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// How many connections the member wants, from what it needed in the last seconds.
    pub(crate) fn wanted(&self) -> usize {
        if self.phase == Phase::Draining {
            return 0;
        }
        let needed = self.needs.front().map_or(0, |(_, needed)| *needed);
        needed.min(self.useful).min(self.bearable).clamp(self.minimum(), self.terms.most)
    }

    /// The beacon to show. The others rely on it, so what it grants may be used only once it is
    /// [shown](Self::on_shown) and confirmed.
    pub(crate) fn beacon(&self) -> Beacon {
        let minimum = if self.phase == Phase::Draining { 0 } else { self.minimum() };
        let id = self.terms.id.clone();
        Beacon { id, wanted: self.wanted(), granted: self.claim, held: self.held, minimum }
    }

    /// How the member takes part.
    pub(crate) fn state(&self, now: Instant) -> FleetState {
        match self.phase {
            Phase::Off => FleetState::Off,
            Phase::Draining => FleetState::Draining,
            Phase::Seen(_) if self.blind_for(now) >= BLIND => FleetState::Blind,
            Phase::Seen(_) if self.is_refused(now) => FleetState::ServerFull,
            Phase::Seen(0 | 1) => FleetState::Joining,
            Phase::Seen(_) => FleetState::Sharing,
        }
    }

    /// How long until the next reading. `random01` spreads the members.
    pub(crate) fn pause(&self, now: Instant, random01: f64) -> Duration {
        let just_vanished = self.vanished.back().is_some_and(|(at, _)| now.saturating_duration_since(*at) <= GHOST);
        let is_hasty = just_vanished || self.phase == Phase::Seen(1) || self.wanted() > self.claim;
        let pause = self.round().max(if is_hasty { HURRY } else { EVERY });
        pause.mul_f64(0.75 + random01 / 2.0)
    }

    /// The shortest pause between two changes of the beacon.
    pub(crate) fn change_pause(&self) -> Duration {
        CHANGE.max(self.round().mul_f64(ROUNDS_PER_SECOND / CHANGES_PER_SECOND))
    }

    fn round(&self) -> Duration {
        round(self.view.map_or(1, |view| view.members))
    }

    /// Records what the pool has and needs, several times a second, and applies the rules that depend on time alone.
    pub(crate) fn tick(&mut self, now: Instant, own: &Own) {
        (self.held, self.useful) = (own.held, own.useful);
        let needed = if own.is_short {
            let needed = with_reserve(own.demand.unwrap_or_default()).max(own.in_use + own.waiting);
            // Callers may also have been refused.
            needed.max(own.in_use * 2).max(self.claim + 1)
        } else {
            with_reserve(own.in_use as f64)
        };
        while self.needs.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > RECENT) {
            self.needs.pop_front();
        }
        while self.needs.back().is_some_and(|(_, earlier)| *earlier <= needed) {
            self.needs.pop_back();
        }
        self.needs.push_back((now, needed));
        match self.phase {
            Phase::Off => {}
            Phase::Draining => self.lower(own.held.max(1)),
            Phase::Seen(_) => self.live_blind(now),
        }
        if self.refused.is_some_and(|at| now.saturating_duration_since(at) >= REFUSED + CALM) {
            self.halvings = self.halvings.saturating_sub(1);
            self.refused = (self.halvings > 0).then(|| now.checked_sub(REFUSED)).flatten();
        }
    }

    fn live_blind(&mut self, now: Instant) {
        let blind = self.blind_for(now);
        if blind >= BLIND {
            self.lower(self.held);
        }
        if let Some(view) = self.view.filter(|_| blind >= LONG_BLIND) {
            self.lower(view.capacity / view.members.max(1));
        }
    }

    /// How long readings have been overdue.
    fn blind_for(&self, now: Instant) -> Duration {
        let latest = self.view.map_or(self.begun, |view| view.at);
        now.saturating_duration_since(latest).saturating_sub(self.round().max(EVERY))
    }

    fn is_refused(&self, now: Instant) -> bool {
        self.refused.is_some_and(|at| now.saturating_duration_since(at) < REFUSED)
    }

    /// Lowers the limit to this, but not below the minimum.
    fn lower(&mut self, to: usize) {
        let floor = if self.phase == Phase::Draining { 1 } else { self.minimum() };
        self.claim = self.claim.min(to.max(floor));
    }

    /// The connection for the beacon was lost. The next one may lead to another server, so two readings have to show
    /// the beacon again. All members may have lost theirs. While they come back, the connections of those that are
    /// missing look free.
    pub(crate) fn on_lost(&mut self) {
        self.claim = self.claim.min(self.confirmed);
        if let Phase::Seen(_) = self.phase {
            self.phase = Phase::Seen(0);
        }
        let (before, latest) = self.awaited.as_ref().map_or((0, None), |awaited| (awaited.members, awaited.latest));
        if let Some(view) = self.view {
            self.awaited = Some(Awaited { members: view.members.max(before), until: None, latest });
        }
    }

    /// The server has refused a connection, because it has no more.
    pub(crate) fn on_refused(&mut self, now: Instant, held: usize) {
        if !self.is_refused(now) {
            self.halvings = (self.halvings + 1).min(MOST_HALVINGS);
        }
        self.refused = Some(now);
        if let Phase::Seen(_) = self.phase {
            self.lower(held);
        }
    }

    /// The server has refused the connection for the beacon, because it has no more. Without a beacon the member does
    /// not see that others need some of its own. So it gives up one of them each time.
    pub(crate) fn on_beacon_refused(&mut self, now: Instant) {
        self.on_refused(now, self.held.saturating_sub(1));
    }

    /// A pooler answers. The next connection may lead to the server itself.
    pub(crate) fn on_pooler(&mut self) {
        if self.phase != Phase::Draining {
            self.phase = Phase::Off;
        }
    }

    /// The server itself answers on a new connection.
    pub(crate) fn on_server(&mut self, held: usize) {
        if self.phase == Phase::Off {
            self.phase = Phase::Seen(0);
            self.claim = self.terms.most;
            self.lower(held);
            self.confirmed = self.claim;
        }
    }

    pub(crate) fn drain(&mut self) {
        self.phase = Phase::Draining;
        self.lower(self.held.max(1));
    }

    /// The owner has changed `max_size`.
    pub(crate) fn resize(&mut self, most: usize) {
        self.terms.most = most;
        self.claim = self.claim.clamp(self.minimum(), most);
    }

    /// Computes the share, and what of it may be used.
    pub(crate) fn on_reading(&mut self, now: Instant, mut reading: Reading) {
        let Phase::Seen(times) = self.phase else { return };
        reading.peers.sort_by(|one, other| (&one.beacon.id, one.process).cmp(&(&other.beacon.id, other.process)));
        let own = reading.process;
        let is_seen = reading.peers.iter().any(|peer| peer.process == own);
        self.phase = Phase::Seen(if is_seen { (times + 1).min(2) } else { 0 });
        self.notice_vanished(now, &reading);
        // The pool may have changed since the beacon was written.
        let beacon = self.beacon();
        if let Some(mine) = reading.peers.iter_mut().find(|peer| peer.process == own) {
            mine.beacon = beacon;
        }
        let (mut view, mut room, mut bearable) = (None, usize::MAX, usize::MAX);
        for (number, scope) in reading.scopes.iter().enumerate() {
            let Some(scope) = scope else { continue };
            let peers: Vec<_> = reading.within(number).collect();
            let beyond = |known: usize| scope.connections.saturating_sub(peers.len() + known);
            let most = beyond(peers.iter().map(|peer| peer.beacon.held).sum());
            let least = beyond(peers.iter().map(|peer| self.known_of(peer)).sum());
            let orphans = self.vanished.iter().map(|(_, claim)| claim).sum();
            let strangers = &mut self.strangers[number];
            strangers.on_reading(now, (least, most), orphans);
            let (headroom, counted) = (scope.headroom(), strangers.counted());
            let usable = scope.limit.saturating_sub(headroom);
            let capacity = usable.saturating_sub(counted + peers.len());
            if number > 0 {
                bearable = bearable.min(capacity);
            }
            let wish = |peer: &&Peer| Wish { minimum: peer.beacon.minimum, wanted: peer.beacon.wanted };
            let shares = shares(capacity, &peers.iter().map(wish).collect::<Vec<_>>());
            let place = peers.iter().position(|peer| peer.process == own);
            let share = place.map_or(self.claim, |place| shares[place]);
            let free = usable.saturating_sub(taken(scope, counted, &peers) + self.ghosts(now));
            room = room.min(step(free, &peers, &shares, place));
            // A member that wants little gets the same share of each scope. Then the smaller capacity is the tighter
            // one.
            if view.is_none_or(|view: View| (share, capacity) < (view.share, view.capacity)) {
                let minimums = peers.iter().map(|peer| peer.beacon.minimum).sum();
                let (at, members, strangers) = (now, peers.len(), counted);
                view = Some(View { at, members, capacity, strangers, headroom, share, minimums });
            }
        }
        self.bearable = bearable;
        self.claims = reading.peers.iter().map(|peer| (peer.process, peer.beacon.claim())).collect();
        let Some(view) = view else { return };
        // The size of the fleet decides how often it reads, whatever scope is the tightest.
        self.view = Some(View { members: reading.peers.len().max(1), ..view });
        self.await_others(now, reading.peers.len());
        let target = view.share.clamp(self.minimum(), self.terms.most);
        if target <= self.claim {
            self.lower(target);
        } else if self.may_grow(now) {
            let room = if room > 0 { (room >> self.halvings).max(1) } else { 0 };
            self.claim = target.min(self.claim + room);
        }
    }

    /// Another member may have claimed the same connections at the same time. Of two, the one that reads later sees the
    /// claim of the other. So a claim is used only after a reading that was asked for when the claim was shown, and
    /// what is too much is given back.
    pub(crate) fn on_second_reading(&mut self, now: Instant, reading: &Reading) {
        let is_shown = |peer: &Peer| peer.process == reading.process && peer.beacon.granted >= self.claim;
        if !self.is_claiming() || !reading.peers.iter().any(is_shown) {
            self.claim = self.claim.min(self.confirmed);
            return;
        }
        let scopes = reading.scopes.iter().enumerate().filter_map(|(number, scope)| Some((number, scope.as_ref()?)));
        let excess = scopes.map(|(number, scope)| {
            let peers: Vec<_> = reading.within(number).collect();
            let known =
                peers.iter().map(|peer| if peer.process == reading.process { self.held } else { self.known_of(peer) });
            // Some may belong to a member that has lost the connection for its beacon right after a claim.
            let unknown = scope.connections.saturating_sub(peers.len() + known.sum::<usize>());
            let strangers = self.strangers[number].counted().max(unknown);
            let usable = scope.limit.saturating_sub(scope.headroom());
            (taken(scope, strangers, &peers) + self.ghosts(now)).saturating_sub(usable)
        });
        self.claim = self.claim.saturating_sub(excess.max().unwrap_or_default()).max(self.confirmed);
        self.confirmed = self.claim;
    }

    fn may_grow(&self, now: Instant) -> bool {
        self.phase == Phase::Seen(2) && self.awaited.is_none() && !self.is_refused(now)
    }

    /// This many members are there.
    fn await_others(&mut self, now: Instant, members: usize) {
        if let Some(awaited) = &mut self.awaited {
            let until = *awaited.until.get_or_insert(now + BLIND + round(awaited.members).max(EVERY));
            let latest = *awaited.latest.get_or_insert(now + LONG_BLIND);
            if members >= awaited.members || now >= until.min(latest) {
                self.awaited = None;
            }
        }
    }

    fn notice_vanished(&mut self, now: Instant, reading: &Reading) {
        while self.vanished.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > ORPHAN) {
            self.vanished.pop_front();
        }
        let there: HashSet<_> = reading.peers.iter().map(|peer| peer.process).collect();
        let gone = self.claims.iter().filter(|(process, _)| !there.contains(*process));
        // And one for its beacon.
        self.vanished.extend(gone.map(|(_, claim)| (now, *claim + 1)));
    }

    /// How many connections of a member are not strangers. A member that has just been granted more may have more than
    /// its beacon says.
    fn known_of(&self, peer: &Peer) -> usize {
        let before = self.claims.get(&peer.process).copied().unwrap_or_default();
        let Beacon { granted, held, .. } = peer.beacon;
        if granted > before { granted.max(held) } else { held }
    }

    /// The claims of members that have just vanished.
    fn ghosts(&self, now: Instant) -> usize {
        let recent = self.vanished.iter().filter(|(at, _)| now.saturating_duration_since(*at) < GHOST);
        recent.map(|(_, claim)| claim).sum()
    }
}

/// The usual pause of a fleet of this size, if it is a large one.
fn round(members: usize) -> Duration {
    Duration::from_secs_f64(members as f64 / ROUNDS_PER_SECOND)
}

/// What is needed for a load, with a reserve.
fn with_reserve(load: f64) -> usize {
    (load * RESERVE).ceil() as usize
}

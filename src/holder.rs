//! Who holds a connection: an operation, for how long, and what it is doing with it.

use std::backtrace::Backtrace;
use std::cmp::Reverse;
use std::fmt;
use std::ops::Deref;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::human::HumanDuration;
use crate::operation::Operation;
use crate::policy::Lane;

/// How many holders an error shows.
const SHOWN: usize = 3;

/// A caller that holds a connection of the pool. [`Pool::holders`](crate::Pool::holders) lists them.
///
/// `Display` is the operation, its age and its state, never SQL: `load_dashboard 1.2 s (waiting for the server)`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Holder {
    /// The operation for which the connection was taken.
    pub operation: Operation,
    /// The lane of the caller.
    pub lane: Lane,
    /// The place in the caller's code that took the connection.
    pub taken: &'static Location<'static>,
    /// How long the lease has lasted. It is a lower bound, at most about a tenth of a second too low.
    pub age: Duration,
    /// What the lease is waiting for.
    pub state: HolderState,
    /// Whether a transaction is open on the connection.
    pub in_transaction: bool,
    /// How long statements have been running on the connection without a pause. `None` if none is running.
    pub running: Option<Duration>,
    /// The id of the server's process, as in `pg_stat_activity.pid`. `None` if the server did not report it.
    pub process_id: Option<i32>,
    /// Where the connection was taken, if [`leak_backtraces`](crate::PoolBuilder::leak_backtraces) is on.
    pub backtrace: Option<Arc<Backtrace>>,
}

/// What a [`Holder`] is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HolderState {
    /// A statement is running: the server has to answer.
    WaitingForServer,
    /// The caller has to act: to run the next statement, to read the rows of its stream, to send the data of its COPY,
    /// or to drop the client.
    WaitingForCaller,
    /// The caller has given the connection back, and the pool is settling it: it stops what still runs, rolls back, or
    /// resets the session.
    Settling,
}

impl HolderState {
    /// Returns a word in snake case that never changes: `server`, `caller` or `settling`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WaitingForServer => "server",
            Self::WaitingForCaller => "caller",
            Self::Settling => "settling",
        }
    }
}

impl fmt::Display for HolderState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WaitingForServer => "waiting for the server",
            Self::WaitingForCaller => "waiting for the caller",
            Self::Settling => "settling",
        })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, age, state, .. } = self;
        let transaction = if self.in_transaction { ", in a transaction" } else { "" };
        write!(f, "{operation} {} ({state}{transaction})", HumanDuration(*age))
    }
}

/// The callers that have held connections longest, as an error shows them: at most three, the longest first.
///
/// The list is at most a twentieth of a second older than the error. It derefs to a slice of [`Holder`]. `Display` is
/// empty without a holder, otherwise `; longest held: report 12 s (waiting for the caller), ...`.
#[derive(Debug, Clone, Default)]
pub struct LongestHeld(Option<Arc<Vec<Holder>>>);

impl LongestHeld {
    /// The list without a holder.
    pub(crate) const NONE: Self = Self(None);

    /// `holders` are sorted, the longest first.
    pub(crate) fn of(holders: &[Holder]) -> Self {
        if holders.is_empty() {
            return Self::NONE;
        }
        Self(Some(Arc::new(holders.iter().take(SHOWN).cloned().collect())))
    }
}

impl Deref for LongestHeld {
    type Target = [Holder];

    fn deref(&self) -> &[Holder] {
        self.0.as_ref().map_or(&[], |holders| holders)
    }
}

impl fmt::Display for LongestHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, holder) in self.iter().enumerate() {
            write!(f, "{}{holder}", if index == 0 { "; longest held: " } else { ", " })?;
        }
        Ok(())
    }
}

/// Sorts holders, the longest first.
pub(crate) fn sort(holders: &mut [Holder]) {
    holders.sort_by_key(|holder| Reverse((holder.age, holder.running)));
}

#[cfg(test)]
impl Holder {
    pub(crate) fn of(operation: &'static str, age: Duration, state: HolderState) -> Self {
        Self {
            operation: Operation::Named(operation),
            lane: Lane::Normal,
            taken: Location::caller(),
            age,
            state,
            in_transaction: false,
            running: None,
            process_id: Some(4711),
            backtrace: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [HolderState; 3] =
        [HolderState::WaitingForServer, HolderState::WaitingForCaller, HolderState::Settling];

    fn holder(operation: &'static str, millis: u64, state: HolderState) -> Holder {
        Holder::of(operation, Duration::from_millis(millis), state)
    }

    #[test]
    fn the_three_longest_are_shown_with_age_and_state() {
        let [server, caller, settling] = STATES;
        let mut holders =
            [holder("login", 80, server), holder("search", 800, settling), holder("b", 90, server)].to_vec();
        holders.push(Holder { in_transaction: true, ..holder("report", 12_300, caller) });
        holders.push(Holder { in_transaction: true, ..holder("load_dashboard", 1_200, server) });
        sort(&mut holders);
        let longest = LongestHeld::of(&holders);
        assert_eq!(longest.len(), 3);
        assert_eq!(
            longest.to_string(),
            "; longest held: report 12 s (waiting for the caller, in a transaction), \
             load_dashboard 1.2 s (waiting for the server, in a transaction), search 800 ms (settling)"
        );
    }

    #[test]
    fn without_a_holder_nothing_is_shown() {
        assert_eq!(LongestHeld::of(&[]).to_string() + &LongestHeld::default().to_string(), "");
        assert!(LongestHeld::NONE.is_empty());
    }

    #[test]
    fn of_equally_old_leases_the_one_whose_statement_runs_longer_comes_first() {
        let running = |millis| Some(Duration::from_millis(millis));
        let [state, ..] = STATES;
        let mut holders = [("waits", None), ("short", running(10)), ("long", running(20))]
            .map(|(operation, running)| Holder { running, ..holder(operation, 100, state) });
        sort(&mut holders);
        assert_eq!(holders.map(|holder| holder.operation.to_string()), ["long", "short", "waits"]);
    }

    #[test]
    fn each_state_has_a_word_of_its_own() {
        assert_eq!(STATES.map(HolderState::as_str), ["server", "caller", "settling"]);
    }
}

//! The owner's settings of a fleet.

/// The longest name of a budget: the beacon has 63 bytes, and each of its numbers may have six digits.
const LONGEST_BUDGET: usize = 15;

/// How the processes of a fleet share the connections of a server, for
/// [`PoolBuilder::fleet`](crate::PoolBuilder::fleet).
///
/// ```
/// use failfast::{FleetConfig, Pool};
///
/// # fn example(config: failfast::Config) -> failfast::PoolBuilder {
/// Pool::builder(config).max_size(40).fleet(FleetConfig::new("shop").minimum(2))
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it does nothing until it is given to fleet()"]
pub struct FleetConfig {
    pub(crate) name: String,
    pub(crate) minimum: usize,
    pub(crate) headroom: Option<usize>,
}

impl FleetConfig {
    /// Returns the settings of the budget with this name: 1 to 15 characters of `a` to `z`, `0` to `9`, `-` and `_`.
    ///
    /// All pools that share a server need the same name, whatever their databases and roles are. For the members, the
    /// connections of a pool with another name are strangers: they reduce what the members divide. `build` returns an
    /// error for another name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), minimum: 1, headroom: None }
    }

    /// Sets how many connections the pool may use in any case, also before it knows the others. 1 to `max_size`.
    /// Default 1.
    pub fn minimum(mut self, minimum: usize) -> Self {
        self.minimum = minimum;
        self
    }

    /// Sets how many of the server's connections the fleet leaves free, for processes that start and for people. All
    /// members need the same value. 0 to 262,143. Default: a tenth of those that the server has for ordinary roles, at
    /// least 5. If the database or the role has a limit, the same number of connections stays free below that limit,
    /// but at most half of it.
    ///
    /// `build` returns an error for a value that is out of range.
    pub fn headroom(mut self, headroom: usize) -> Self {
        self.headroom = Some(headroom);
        self
    }
}

pub(crate) fn is_budget(name: &str) -> bool {
    let is_known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    (1..=LONGEST_BUDGET).contains(&name.len()) && name.bytes().all(is_known)
}

//! What a cluster knows of each host, for an operator.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::human::HumanDuration;
use crate::status::Status;

/// The role of a host, by its last answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// The cluster sends its writes to this host.
    Primary,
    /// The host replays the log of another server.
    Replica,
    /// The host accepts writes, and the cluster sends it none: its timeline is lower than another one, another host
    /// accepts writes on the same timeline, it belongs to another database system, or it is not known yet whether it
    /// belongs to the cluster.
    Fenced,
    /// The host has never answered.
    Unknown,
}

impl Role {
    /// The name, which never changes: `primary`, `replica`, `fenced`, `unknown`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Fenced => "fenced",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a cluster knows of one host. [`Cluster::hosts`](crate::Cluster::hosts) returns it.
///
/// `Display` is one line: `db2:5432: replica, timeline 3, at most 1.1 s behind; pool orders@db2:5432: ...`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HostStatus {
    /// Host and port.
    pub host: Arc<str>,
    /// The role, by the host's last answer.
    pub role: Role,
    /// The timeline. `None` if the host does not show it.
    pub timeline: Option<u32>,
    /// The upper bound of a replica's lag. `None` for other hosts, and if it is not known.
    pub lag: Option<Duration>,
    /// Whether the host has not answered for 3 s, or as [`look_timeout`](crate::ClusterBuilder::look_timeout) says.
    pub is_silent: bool,
    /// Whether the host's name leads to several servers. Then it serves no reads with a bound.
    pub is_balanced: bool,
    /// The host's pool.
    pub pool: Status,
}

impl fmt::Display for HostStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.host, self.role)?;
        if let Some(timeline) = self.timeline {
            write!(f, ", timeline {timeline}")?;
        }
        match self.lag {
            Some(lag) => write!(f, ", at most {} behind", HumanDuration(lag))?,
            None if self.role == Role::Replica => f.write_str(", behind by an unknown time")?,
            None => {}
        }
        if self.is_silent {
            f.write_str(", silent")?;
        }
        if self.is_balanced {
            f.write_str(", leads to several servers")?;
        }
        write!(f, "; {}", self.pool)
    }
}

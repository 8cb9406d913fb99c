//! The line of each event for an operator.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::kind::EventKind;
use crate::error::one_line;
use crate::human::{Count, HumanDuration};
use crate::policy::{Advice, AdviceReason, Lane};
use crate::status::Status;

/// How long a condition lasts before the pool repeats its event. From then on, the line says how long it has lasted.
const WORTH_SAYING: Duration = Duration::from_secs(30);

/// The shortest time that a line mentions: a log gives the time of each line to the second.
const JUST_NOW: Duration = Duration::from_secs(1);

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { settings } => write!(f, "started: {settings}"),
            Self::PoolTooLarge { max_size, left } => {
                write!(f, "max_size is {max_size}, but the server has only {} left", Count(*left, "connection"))?;
                f.write_str(": lower max_size, or raise max_connections of the server")
            }
            Self::UtilizationHigh { status, lasting } | Self::UtilizationCritical { status, lasting } => {
                write!(f, "{}{}", Utilization(status), SoFar(*lasting))
            }
            Self::UtilizationNormal { status, lasted } => {
                write!(f, "{}: normal again, after {}", Utilization(status), HumanDuration(*lasted))
            }
            Self::Exhausted { status, lasting } => {
                let Status { in_use, max_size, waiting, .. } = status;
                write!(f, "exhausted{} ({in_use}/{max_size}), {waiting} waiting", For(*lasting))
            }
            Self::ExhaustionEnded { status, lasted } => {
                write!(f, "no longer exhausted, after {}; {}", HumanDuration(*lasted), Utilization(status))
            }
            Self::ExhaustionPredicted { status, within, over, .. } => {
                write!(f, "{}, and the trend of the last {} exhausts it ", Utilization(status), HumanDuration(*over))?;
                if within.is_zero() { f.write_str("now") } else { write!(f, "in {}", HumanDuration(*within)) }
            }
            Self::ExhaustionPredictionEnded { status, .. } => {
                write!(f, "{}: utilization no longer rises", Utilization(status))
            }
            Self::Shedding { status, refused, lasting } => {
                write!(f, "refusing callers{}: {refused}; {}", For(*lasting), Utilization(status))
            }
            Self::SheddingEnded { refused, lasted, .. } => {
                write!(f, "no longer refusing callers, after {}: {refused}", HumanDuration(*lasted))
            }
            Self::LeasesInflated { operation, from, to, lasting } => {
                let (from, to) = (HumanDuration(*from), HumanDuration(*to));
                write!(f, "{operation} holds its connections for {to}, which used to be {from}{}", SoFar(*lasting))
            }
            Self::LeasesNormal { operation, to, lasted } => {
                write!(
                    f,
                    "{operation} holds its connections for {}, which is normal again, after {}",
                    HumanDuration(*to),
                    HumanDuration(*lasted)
                )
            }
            Self::TrafficAnomaly { calls_per_minute, usual, lasting } => {
                write!(f, "{calls_per_minute} calls in a minute, which used to be {usual}{}", SoFar(*lasting))
            }
            Self::TrafficNormal { calls_per_minute, lasted } => {
                let lasted = HumanDuration(*lasted);
                write!(f, "{calls_per_minute} calls in a minute, which is normal again, after {lasted}")
            }
            Self::BackgroundThrottled { share, operation, lasting } => {
                write!(f, "the lane background may use {:.0}% of its limit{}", share * 100.0, SoFar(*lasting))?;
                write!(f, ", because {operation} holds its connections too long")
            }
            Self::BackgroundRestored { lasted } => {
                write!(f, "the lane background may use all of its limit again, after {}", HumanDuration(*lasted))
            }
            Self::LeakSuspected { operation, held, taken, .. } => {
                let (held, file, line) = (HumanDuration(*held), taken.file(), taken.line());
                write!(f, "leaked? {operation} has held a connection for {held}, taken at {file}:{line}")
            }
            Self::LongRunning { count, than, longest: (operation, running), lasting } => {
                let (than, running) = (HumanDuration(*than), HumanDuration(*running));
                let count = Count(*count, "statement");
                write!(f, "{count} running for more than {than}{}; the longest, ", SoFar(*lasting))?;
                write!(f, "{operation}, for {running}")
            }
            Self::LongRunningEnded { lasted } => {
                write!(f, "no statement runs for too long any more, after {}", HumanDuration(*lasted))
            }
            Self::SlowAcquire { status, count, than, longest, lasting } => {
                let (than, longest) = (HumanDuration(*than), HumanDuration(*longest));
                let count = Count(*count, "caller");
                write!(f, "{count} waited for more than {than}{}, at most {longest}", SoFar(*lasting))?;
                write!(f, "; {}", Utilization(status))
            }
            Self::SlowAcquireEnded { lasted } => {
                write!(f, "callers no longer wait for too long, after {}", HumanDuration(*lasted))
            }
            Self::ConnectFailed { error, count, lasting } => {
                write!(f, "cannot connect{}, {} failed: {error}", For(*lasting), Count(*count, "attempt"))
            }
            Self::ConnectRecovered { lasted } => write!(f, "connects again, after {}", HumanDuration(*lasted)),
            Self::ConnectionLost { lost, count, ago } => {
                write!(f, "lost {}{}: {lost}", Count(*count, "connection"), Ago(*count, *ago))
            }
            Self::ListenInterrupted { reason } => write!(f, "a listener may miss notifications: {reason}"),
            Self::ListenResumed { lasted } => write!(f, "the listener listens again, after {}", HumanDuration(*lasted)),
            Self::ServerShuttingDown { lost } => write!(f, "the server shuts down: {lost}"),
            Self::ServerWarning { message, sqlstate, count, ago } => {
                let (warnings, ago) = (Count(*count, "warning"), Ago(*count, *ago));
                write!(f, "{warnings} from the server{ago}: {message} ({})", one_line(sqlstate.code()))
            }
            Self::PrimaryChanged { from, to, .. } => {
                let name = |address: &Option<String>| address.clone().unwrap_or_else(|| "unknown".to_owned());
                write!(f, "the primary is now {}, and was {}: drop caches of its data", name(to), name(from))
            }
            Self::PrimaryMissing { lasting } => {
                write!(f, "no primary{}: no host of the cluster answers that it accepts writes", For(*lasting))
            }
            Self::PrimaryFound { host, lasted } => {
                write!(f, "{host} accepts writes, after {} without a primary", HumanDuration(*lasted))
            }
            Self::TwoPrimaries { hosts: [one, other], lasting } => {
                write!(f, "two primaries{}: {one} and {other} both accept writes; stop one of them", For(*lasting))
            }
            Self::TwoSystems { systems: [(one, its), (other, others)], lasting } => {
                write!(f, "two systems{}: {one} has system {its} and {other} has system {others}; ", For(*lasting))?;
                f.write_str("remove the host that does not belong to the cluster")
            }
            Self::ReplicaLags { host, lag: Some(lag), lasting } => {
                write!(f, "the replica {host} is up to {} behind{}", HumanDuration(*lag), SoFar(*lasting))
            }
            Self::ReplicaLags { host, lag: None, lasting } => {
                write!(f, "how far the replica {host} is behind is not known{}", SoFar(*lasting))
            }
            Self::ReplicaCaughtUp { host, lasted } => {
                write!(f, "the replica {host} has caught up, after {}", HumanDuration(*lasted))
            }
            Self::HostSilent { host, reason, lasting } => {
                write!(f, "{host} does not answer{}: {reason}", SoFar(*lasting))
            }
            Self::HostAnswers { host, lasted } => write!(f, "{host} answers again, after {}", HumanDuration(*lasted)),
            Self::HostBalances { host } => {
                write!(f, "{host} leads to several servers, so it serves no reads with a bound")
            }
            Self::LimitAdvised { advice, lasting } => {
                write!(f, "advice{}: {}{}", SoFar(*lasting), Size(advice), Because(advice))
            }
            Self::LimitChanged { advice } => write!(f, "{}{}", Size(advice), Because(advice)),
            Self::LockBound { advice, lasting } => {
                match advice.operation {
                    Some(operation) => write!(f, "{operation} waits")?,
                    None => f.write_str("callers wait")?,
                }
                write!(f, " for locks of the database{}: leases take {}", For(*lasting), Times(advice.inflation))?;
                f.write_str("; more connections would wait, too")
            }
            Self::LockBoundEnded { lasted } => {
                write!(f, "no operation waits long for locks any more, after {}", HumanDuration(*lasted))
            }
            Self::HeldByCaller { advice, lasting } => {
                write!(f, "leases take {}{}, and the server waits ", Times(advice.inflation), SoFar(*lasting))?;
                f.write_str("for our code or the network: more connections would be held, too")
            }
            Self::HeldByCallerEnded { lasted } => {
                write!(f, "callers do not hold connections for long any more, after {}", HumanDuration(*lasted))
            }
            Self::FleetShort { granted, wanted, capacity, members, minimums, lasting } => {
                let capacity_text = Count(*capacity, "connection");
                write!(f, "the fleet is short{}: {members} processes divide {capacity_text}, ", For(*lasting))?;
                write!(f, "and this one gets {granted} of the {wanted} that it wants")?;
                if minimums > capacity { write!(f, "; the minimums alone are {minimums}") } else { Ok(()) }
            }
            Self::FleetSuffices { lasted } => {
                write!(f, "the fleet is no longer short, after {}", HumanDuration(*lasted))
            }
            Self::FleetStrangers { count, capacity, lasting } => {
                let count = Count(*count, "connection");
                write!(f, "{count} of strangers{}: the fleet has only {capacity} left", SoFar(*lasting))
            }
            Self::FleetStrangersGone { lasted } => {
                write!(f, "strangers take no more than the headroom again, after {}", HumanDuration(*lasted))
            }
            Self::FleetBlind { granted, reason, lasting } => {
                write!(f, "cannot read the beacons of the fleet{}, and uses at most {granted}", For(*lasting))?;
                write!(f, " connections: {}", one_line(reason))
            }
            Self::FleetSees { lasted } => {
                write!(f, "reads the beacons of the fleet again, after {}", HumanDuration(*lasted))
            }
            Self::FleetOff { lasting } => {
                write!(f, "no fleet{}: a pooler answers, which shows no beacons; ", For(*lasting))?;
                f.write_str("limit its connections with max_db_connections")
            }
            Self::FleetOn { lasted } => {
                write!(f, "the server itself answers again, after {}: the fleet is on", HumanDuration(*lasted))
            }
            Self::AddressAvoided { address, reason } => {
                write!(f, "{address} failed, and is tried last for 30 s: {reason}")
            }
            Self::AddressRestored { address, lasted } => {
                write!(f, "{address} takes connections again, after {}", HumanDuration(*lasted))
            }
            Self::SettleFailed { count, ago } => {
                let (closed, ago) = (Count(*count, "connection"), Ago(*count, *ago));
                write!(f, "closed {closed}{ago}: the clean-up failed")
            }
            Self::BreakerChanged { transition, lasting } => write!(f, "circuit {transition}{}", For(*lasting)),
            Self::BreakerForced { to, by, reason } => write!(f, "circuit ordered {to}{}", By(by, Some(reason))),
            Self::Resized { from, to, by, reason } => {
                write!(f, "resized from {from} to {to}{}", By(by, reason.as_ref()))
            }
            Self::LaneChanged { operation, from, to, by, reason } => {
                let lane = |lane: &Option<Lane>| lane.map_or("the lane of each call", Lane::as_str);
                let (operation, from, to) = (one_line(operation), lane(from), lane(to));
                write!(f, "{operation} moves from {from} to {to}{}", By(by, reason.as_ref()))
            }
            Self::SchemaChangePostponed { operation, attempts, reason, retry_in } => {
                let (name, retry_in) = (operation.unwrap_or("a change of the schema"), HumanDuration(*retry_in));
                let times = Count(u64::from(*attempts), "attempt");
                write!(f, "{name} is not done after {times}, trying again in {retry_in}: {}", one_line(reason))
            }
            Self::TimelineForgotten { timeline, by, reason } => {
                write!(f, "timeline {timeline} is forgotten{}", By(by, reason.as_ref()))
            }
            Self::Flushed { by, reason } => write!(f, "flushed{}", By(by, reason.as_ref())),
            Self::Draining { by, reason } => write!(f, "draining{}", By(by, reason.as_ref())),
            Self::Drained { left: 0, took } => write!(f, "drained in {}", HumanDuration(*took)),
            Self::Drained { left, took } => {
                write!(f, "closed after {} with {} still held", HumanDuration(*took), Count(*left, "connection"))
            }
        }
    }
}

/// `utilization 95% (19/20), 127 waiting`
struct Utilization<'a>(&'a Status);

impl fmt::Display for Utilization<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status { in_use, max_size, waiting, .. } = self.0;
        let percent = self.0.utilization() * 100.0;
        write!(f, "utilization {percent:.0}% ({in_use}/{max_size}), {waiting} waiting")
    }
}

/// `20 -> 18 connections`, or `report: at most 3 calls at a time`
struct Size<'a>(&'a Advice);

impl fmt::Display for Size<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Advice { reason, operation, from, to, .. } = self.0;
        match operation {
            Some(operation) if *reason == AdviceReason::Recovered => {
                write!(f, "{operation}: no longer at most {}", Count(*from as u64, "call"))
            }
            Some(operation) => write!(f, "{operation}: at most {} at a time", Count(*to as u64, "call")),
            None => write!(f, "{from} -> {}", Count(*to as u64, "connection")),
        }
    }
}

/// Why, with the figures.
struct Because<'a>(&'a Advice);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Advice { reason, inflation, utilization, throughput, .. } = self.0;
        let times = Times(*inflation);
        let figures = format_args!("{:.0}% in use, {throughput:.0} leases a second", utilization * 100.0);
        match reason {
            AdviceReason::CallersQueue => write!(f, ", because callers wait while leases take {times} ({figures})"),
            AdviceReason::NoGain => write!(f, " again, because more of them brought no more throughput ({figures})"),
            AdviceReason::Saturated => {
                write!(f, ", because the server is saturated: leases take {times} ({figures})")
            }
            AdviceReason::Costly => write!(f, " again, because fewer of them cost throughput ({figures})"),
            AdviceReason::Recovered => write!(f, ", because leases take {times} again ({figures})"),
            AdviceReason::SlowOperation => {
                write!(f, ", because it is slow and the others are not: leases take {times} ({figures})")
            }
            AdviceReason::LockBound => {
                write!(f, ", because it waits for locks: leases take {times} ({figures})")
            }
            AdviceReason::HeldByCaller => write!(f, ", because the caller holds them: leases take {times} ({figures})"),
        }
    }
}

/// `2.4 times as long as usual`
struct Times(Option<f64>);

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(times) if times >= 1.3 => write!(f, "{times:.1} times as long as usual"),
            Some(_) => f.write_str("their usual time"),
            None => f.write_str("an unknown time"),
        }
    }
}

/// Who gave an order and why: ` by src/admin.rs:7: deploy`
struct By<'a>(&'a Location<'a>, Option<&'a Arc<str>>);

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " by {}:{}", self.0.file(), self.0.line())?;
        self.1.map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

/// ` for 40 s` when an event is repeated, nothing the first time.
struct For(Duration);

impl fmt::Display for For {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < WORTH_SAYING { Ok(()) } else { write!(f, " for {}", HumanDuration(self.0)) }
    }
}

/// ` (for 40 s so far)` when an event is repeated, where ` for 40 s` could be misread.
struct SoFar(Duration);

impl fmt::Display for SoFar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < WORTH_SAYING { Ok(()) } else { write!(f, " (for {} so far)", HumanDuration(self.0)) }
    }
}

/// How long ago the last of several occurrences was: ` 22 s ago` if there was one, `, the last 22 s ago` if there were
/// more, nothing if it was less than a second ago.
struct Ago(u64, Duration);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(_, ago) if *ago < JUST_NOW => Ok(()),
            Self(1, ago) => write!(f, " {} ago", HumanDuration(*ago)),
            Self(_, ago) => write!(f, ", the last {} ago", HumanDuration(*ago)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_event_says_how_long_it_has_lasted() {
        assert_eq!(For(Duration::from_secs(10)).to_string(), "");
        assert_eq!(For(Duration::from_secs(40)).to_string(), " for 40 s");
        assert_eq!(SoFar(Duration::from_secs(29)).to_string(), "");
        assert_eq!(SoFar(Duration::from_secs(90)).to_string(), " (for 90 s so far)");
    }

    #[test]
    fn an_earlier_occurrence_has_its_age() {
        assert_eq!(Ago(1, Duration::from_millis(250)).to_string(), "");
        assert_eq!(Ago(1, Duration::from_secs(22)).to_string(), " 22 s ago");
        assert_eq!(Ago(7, Duration::from_secs(22)).to_string(), ", the last 22 s ago");
    }
}

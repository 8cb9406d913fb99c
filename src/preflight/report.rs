//! What the checks found.

use std::fmt;

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Check {
    /// All instances, with surge and full pools, find connections on the server.
    FreeSlots,
    /// The same under the connection limit of the role (`ALTER ROLE ... CONNECTION LIMIT`).
    RoleLimit,
    /// The same under the connection limit of the database.
    DatabaseLimit,
    /// A share of the connections is free of demand: as this pool knows its demand, and as the fleet's sessions are
    /// busy at this moment, whichever is more.
    DemandHeadroom,
    /// No transaction holds the touched tables for long. Prepared transactions count.
    OldestTransaction,
    /// Nobody has been waiting for a lock for long. Waits for advisory locks do not count.
    LockQueue,
    /// No autovacuum to prevent wraparound runs: it does not give way to a change of the schema.
    Wraparound,
    /// The replicas keep up.
    ReplicaLag,
    /// `statement_timeout` and `idle_in_transaction_session_timeout` are set for the pool's sessions.
    Timeouts,
    /// The mode of a pooler between this pool and the server.
    Pooler,
}

impl Check {
    pub(super) const ALL: [Self; 10] = [
        Self::FreeSlots,
        Self::RoleLimit,
        Self::DatabaseLimit,
        Self::DemandHeadroom,
        Self::OldestTransaction,
        Self::LockQueue,
        Self::Wraparound,
        Self::ReplicaLag,
        Self::Timeouts,
        Self::Pooler,
    ];

    /// The name in snake case. It never changes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FreeSlots => "free_slots",
            Self::RoleLimit => "role_limit",
            Self::DatabaseLimit => "database_limit",
            Self::DemandHeadroom => "demand_headroom",
            Self::OldestTransaction => "oldest_transaction",
            Self::LockQueue => "lock_queue",
            Self::Wraparound => "wraparound",
            Self::ReplicaLag => "replica_lag",
            Self::Timeouts => "timeouts",
            Self::Pooler => "pooler",
        }
    }
}

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Grade {
    /// Within the limit.
    Ok,
    /// The check was left out by the plan.
    Skipped,
    /// Within the limit, but near it, or due soon.
    Warning,
    /// The question has no answer. That is no "ok".
    NotKnown,
    /// Beyond the limit.
    Critical,
}

impl Grade {
    /// The name in snake case. It never changes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::NotKnown => "not_known",
            Self::Critical => "critical",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The check.
    pub check: Check,
    /// What was found, with its unit. If it is not known, why.
    pub value: String,
    /// What the plan or the server allows, with its unit.
    pub limit: String,
    /// How serious it is.
    pub severity: Grade,
    /// What to do, if there is something to do.
    pub advice: Option<&'static str>,
}

impl Finding {
    pub(super) fn new(check: Check, severity: Grade, value: impl Into<String>, limit: impl Into<String>) -> Self {
        Self { check, value: value.into(), limit: limit.into(), severity, advice: None }
    }

    pub(super) fn not_known(check: Check, why: impl Into<String>) -> Self {
        Self::new(check, Grade::NotKnown, why, "-")
    }

    /// Says what to do, unless all is well.
    pub(super) fn advise(mut self, advice: &'static str) -> Self {
        self.advice = (self.severity != Grade::Ok).then_some(advice);
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, value, limit, severity, advice } = self;
        write!(f, "{:<10}{:<20}{value}", severity.as_str(), check.as_str())?;
        if limit != "-" {
            write!(f, " (limit: {limit})")?;
        }
        advice.map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

/// What all checks found. `Display` has a line for each of them, for the log of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// One finding for each check, in the order of [`Check`].
    pub findings: Vec<Finding>,
}

impl Report {
    /// Returns whether every question has an answer that is within its limit. Warnings are, and checks that the plan
    /// leaves out do not count.
    pub fn is_ok(&self) -> bool {
        self.exit_code() == 0
    }

    /// Returns what was found of a check.
    pub fn finding(&self, check: Check) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.check == check)
    }

    /// The exit status for a pipeline: 0 if [all is well](Self::is_ok), 1 if something is critical, 2 if nothing is but
    /// something is not known.
    pub fn exit_code(&self) -> u8 {
        match (self.count(Grade::Critical), self.count(Grade::NotKnown)) {
            (0, 0) => 0,
            (0, _) => 2,
            _ => 1,
        }
    }

    fn count(&self, grade: Grade) -> usize {
        self.findings.iter().filter(|finding| finding.severity == grade).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (critical, not_known, warnings) =
            (self.count(Grade::Critical), self.count(Grade::NotKnown), self.count(Grade::Warning));
        write!(f, "preflight: {critical} critical, {not_known} not known, {warnings} warnings")?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n{finding}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(grades: &[Grade]) -> Report {
        let findings = grades.iter().map(|grade| Finding::new(Check::Timeouts, *grade, "1", "2"));
        Report { findings: findings.collect() }
    }

    #[test]
    fn what_is_not_known_is_not_well() {
        assert_eq!(report(&[Grade::Ok, Grade::Warning, Grade::Skipped]).exit_code(), 0);
        assert_eq!(report(&[Grade::Ok, Grade::NotKnown]).exit_code(), 2);
        assert_eq!(report(&[Grade::NotKnown, Grade::Critical]).exit_code(), 1);
        assert!(report(&[]).is_ok() && !report(&[Grade::NotKnown]).is_ok());
    }

    #[test]
    fn a_report_has_a_line_for_each_finding() {
        let critical = Finding::new(Check::FreeSlots, Grade::Critical, "90 connections", "80 free");
        let findings =
            vec![critical.advise("lower max_size"), Finding::not_known(Check::ReplicaLag, "permission denied")];
        let lines = "preflight: 1 critical, 1 not known, 0 warnings\n\
             critical  free_slots          90 connections (limit: 80 free); lower max_size\n\
             not_known replica_lag         permission denied";
        assert_eq!(Report { findings }.to_string(), lines);
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = Check::ALL.iter().map(|check| check.as_str()).collect();
        assert_eq!(names.len(), Check::ALL.len());
    }
}

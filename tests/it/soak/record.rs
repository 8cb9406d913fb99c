//! Compares the results that callers got for their writes with the contents of the server.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use failfast::{Effect, Error};

use crate::support::server::Server;

/// The result of each write, by its unique token.
#[derive(Debug, Default)]
pub(crate) struct Record {
    told: HashMap<String, Option<Effect>>,
    errors: BTreeMap<&'static str, u64>,
}

impl Record {
    /// Records a result. `None` means that the caller left before the answer came.
    pub(crate) fn note<T>(&mut self, token: String, told: Option<&Result<T, Error>>) {
        if let Some(Err(error)) = told {
            *self.errors.entry(error.kind().as_str()).or_default() += 1;
        }
        let told = match told {
            None => Some(Effect::Unknown),
            Some(Err(error)) => Some(error.effect()),
            Some(Ok(_)) => None,
        };
        assert!(self.told.insert(token, told).is_none(), "a token was used twice");
    }

    pub(crate) fn add(&mut self, other: Record) {
        self.told.extend(other.told);
        other.errors.into_iter().for_each(|(kind, count)| *self.errors.entry(kind).or_default() += count);
    }

    /// Panics if the server has a denied write, lacks an acknowledged write, or has a write twice.
    pub(crate) fn check(&self, truth: &Truth) -> Verdict {
        let mut verdict = Verdict { errors: self.errors.clone(), ..Verdict::default() };
        for (token, told) in &self.told {
            let times = truth.times(token);
            match told {
                None => {
                    assert_eq!(times, 1, "{token} was acknowledged");
                    verdict.applied += 1;
                }
                Some(Effect::NotApplied) => {
                    assert_eq!(times, 0, "{token} was reported as not applied");
                    verdict.not_applied += 1;
                }
                Some(_) => {
                    assert!(times <= 1, "{token} was applied {times} times");
                    verdict.unknown += 1;
                    verdict.unknown_but_applied += times;
                }
            }
        }
        for token in truth.tokens.keys() {
            assert!(self.told.contains_key(token), "{token}: no caller wrote this");
        }
        verdict
    }
}

/// How often each token is on the server.
#[derive(Debug)]
pub(crate) struct Truth {
    tokens: HashMap<String, u64>,
}

impl Truth {
    /// Reads the tokens that `sql` selects.
    pub(crate) async fn of(server: &Server, sql: &str) -> Truth {
        let mut tokens = HashMap::new();
        for row in server.admin().await.query(sql, &[]).await.unwrap() {
            *tokens.entry(row.get(0)).or_default() += 1;
        }
        Truth { tokens }
    }

    fn times(&self, token: &str) -> u64 {
        self.tokens.get(token).copied().unwrap_or(0)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) applied: u64,
    pub(crate) not_applied: u64,
    pub(crate) unknown: u64,
    unknown_but_applied: u64,
    errors: BTreeMap<&'static str, u64>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "writes: {} acknowledged and found once, {} denied and not found, ", self.applied, self.not_applied)?;
        write!(f, "{} unknown ({} of them found), {:?}", self.unknown, self.unknown_but_applied, self.errors)
    }
}

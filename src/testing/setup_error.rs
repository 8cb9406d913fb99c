//! Why a test has no database.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::error::{ConfigError, ConnectError, Error};
use crate::human::HumanDuration;

/// Why a test has no database. `Display` and `Debug` are the same line, because a test prints one of them.
pub struct SetupError(Reason);

type BoxError = Box<dyn StdError + Send + Sync>;

enum Reason {
    NoServer,
    Url(tokio_postgres::Error),
    Config(ConfigError),
    Connect(ConnectError),
    NoPlace(Duration, String),
    NoTemplate(Duration, String),
    Server(&'static str, Error),
    TooSlow(&'static str, Duration),
    Migration(BoxError),
}

impl SetupError {
    pub(super) fn no_server() -> Self {
        Self(Reason::NoServer)
    }

    pub(super) fn url(error: tokio_postgres::Error) -> Self {
        Self(Reason::Url(error))
    }

    pub(super) fn config(error: ConfigError) -> Self {
        Self(Reason::Config(error))
    }

    pub(super) fn connect(error: ConnectError) -> Self {
        Self(Reason::Connect(error))
    }

    pub(super) fn no_place(waited: Duration, why: String) -> Self {
        Self(Reason::NoPlace(waited, why))
    }

    pub(super) fn no_template(waited: Duration, template: &str) -> Self {
        Self(Reason::NoTemplate(waited, template.to_owned()))
    }

    pub(super) fn server(step: &'static str, error: tokio_postgres::Error) -> Self {
        Self(Reason::Server(step, error.into()))
    }

    pub(super) fn too_slow(step: &'static str, within: Duration) -> Self {
        Self(Reason::TooSlow(step, within))
    }

    pub(super) fn migration(error: BoxError) -> Self {
        Self(Reason::Migration(error))
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no test database: ")?;
        match &self.0 {
            Reason::NoServer => f.write_str("set DATABASE_URL, or give the server to TestDatabaseBuilder::server"),
            Reason::Url(error) => write!(f, "DATABASE_URL: {error}"),
            Reason::Config(error) => write!(f, "{error}"),
            Reason::Connect(error) => write!(f, "{error}"),
            Reason::NoPlace(waited, why) => write!(
                f,
                "no place on the server within {}: {why}; run fewer tests at a time, raise max_connections of the \
                 server, or wait longer (TestDatabaseBuilder::wait)",
                HumanDuration(*waited)
            ),
            Reason::NoTemplate(waited, template) => write!(
                f,
                "another test has been making the template {template} for {}; if its migrations take that long, wait \
                 longer (TestDatabaseBuilder::wait)",
                HumanDuration(*waited)
            ),
            Reason::Server(step, error) => write!(f, "cannot {step}: {error}"),
            Reason::TooSlow(step, within) => write!(
                f,
                "cannot {step}: the server has not answered within {}; pg_stat_activity shows what it waits for, and \
                 TestDatabaseBuilder::wait is the limit",
                HumanDuration(*within)
            ),
            Reason::Migration(error) => write!(f, "the migrations failed: {error}"),
        }
    }
}

impl fmt::Debug for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl StdError for SetupError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0 {
            Reason::NoServer | Reason::NoPlace(..) | Reason::NoTemplate(..) | Reason::TooSlow(..) => None,
            Reason::Url(error) => Some(error),
            Reason::Config(error) => Some(error),
            Reason::Connect(error) => Some(error),
            Reason::Server(_, error) => Some(error),
            Reason::Migration(error) => Some(&**error),
        }
    }
}

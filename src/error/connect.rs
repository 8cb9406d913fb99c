//! Why a connection could not be made.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::hook::HookLeft;
use super::io::{IoCause, ProtocolViolation, io_error, is_of_the_network, is_of_tls};
use super::outside::one_line;
use crate::human::HumanDuration;
use crate::policy::{CountsAs, Failure, Occurrence, Retry, StatementPhase};
use crate::status::Status;

/// Why a connection could not be made, and to which server. Cheap to clone: every caller that waited for the dial gets
/// one.
///
/// If the dial tried several hosts, it returns the error that says most: an answer of a server says more than silence.
#[derive(Clone)]
pub struct ConnectError(Arc<Inner>);

type BoxError = Box<dyn StdError + Send + Sync>;

struct Inner {
    kind: ConnectErrorKind,
    /// Host and port, or the path of the socket. Empty if the dial ended before it chose one.
    target: String,
    source: Option<BoxError>,
    /// The pool's setting that the server or the pooler objects to.
    setting: Option<&'static str>,
    /// What the dial was waiting for when its time was over.
    stage: Option<Stage>,
    /// The cause that the network or this machine gave.
    cause: Option<IoCause>,
    /// What the owner's hook has left.
    left: Option<HookLeft>,
}

impl Inner {
    fn new(kind: ConnectErrorKind, target: impl Into<String>) -> Self {
        Self { kind, target: target.into(), source: None, setting: None, stage: None, cause: None, left: None }
    }
}

/// What a dial may be waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    LookUp,
    Server,
    Handshake,
    AfterConnect,
    /// The answers that the hook did not wait for.
    HookLeftovers,
}

impl Stage {
    fn as_str(self) -> &'static str {
        match self {
            Self::LookUp => "the name service did not answer",
            Self::Server => "the server did not answer",
            Self::Handshake => "the TLS handshake did not end",
            Self::AfterConnect => "the after_connect hook did not end",
            Self::HookLeftovers => {
                "the after_connect hook left a request without its answer: read each stream to its end"
            }
        }
    }
}

/// The stage at which a dial failed. It shows where to look for the cause.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectErrorKind {
    /// The host name has no address, or the name service did not answer.
    Resolve,
    /// The network or the server's machine refused or broke the connection.
    Io,
    /// This process could not begin to connect: the path of the socket is too long, the process has no permission, or
    /// no local address or port is free. The server is not at fault, and the circuit breaker does not count it.
    Local,
    /// This process has run out of file descriptors: raise its limit (`ulimit -n`) or find the leak. The server is not
    /// at fault.
    TooManyOpenFiles,
    /// The connection was not ready within this time: the host's share of
    /// [`connect_timeout`](crate::PoolBuilder::connect_timeout). It includes the look-up of the name, TLS, the login
    /// and the `after_connect` hook.
    Timeout(Duration),
    /// TLS failed: the server offers none, its certificate is not for this host or not of a known authority, the server
    /// rejects the pool's certificate, or a file of certificates cannot be read.
    Tls,
    /// The server, or a pooler in front of it, answered with this SQLSTATE, such as wrong password (28P01), unknown
    /// database (3D000), too many clients (53300), starting up or shutting down (57P03).
    Server(SqlState),
    /// The server accepted the connection, but start-up failed: a password is missing, or the other side is not a
    /// PostgreSQL server.
    Handshake,
    /// The server works, but it is read-only and `target_session_attrs` is `read-write`, or the other way round.
    #[non_exhaustive]
    WrongRole {
        /// Whether the server is read-only.
        read_only: bool,
    },
    /// The [`credentials`](crate::PoolBuilder::credentials) provider failed, or took the whole
    /// [`connect_timeout`](crate::PoolBuilder::connect_timeout). The dial tried no host.
    Credentials,
    /// The [`after_connect`](crate::PoolBuilder::after_connect) hook failed on the new connection, or left a
    /// transaction or an unfinished COPY.
    AfterConnect,
    /// The dial ended without a result: its runtime was shut down, or it panicked.
    Abandoned,
}

impl ConnectErrorKind {
    pub(super) fn of(cause: IoCause) -> Self {
        match cause {
            IoCause::OutOfFiles => Self::TooManyOpenFiles,
            IoCause::PathTooLong | IoCause::PermissionDenied | IoCause::NoLocalAddress => Self::Local,
            _ => Self::Io,
        }
    }
}

impl ConnectError {
    pub(crate) fn new(kind: ConnectErrorKind, target: impl Into<String>) -> Self {
        Self(Arc::new(Inner::new(kind, target)))
    }

    /// `stage`: what the dial was waiting for.
    pub(crate) fn timeout(share: Duration, target: String, stage: Stage) -> Self {
        Self(Arc::new(Inner { stage: Some(stage), ..Inner::new(ConnectErrorKind::Timeout(share), target) }))
    }

    pub(crate) fn abandoned() -> Self {
        Self::new(ConnectErrorKind::Abandoned, "")
    }

    pub(crate) fn failed_before_first_use() -> Self {
        let reason = "the server ended the connection before its first use";
        let error = io::Error::new(io::ErrorKind::ConnectionAborted, reason);
        Self::io("", error)
    }

    fn caused(kind: ConnectErrorKind, target: &str, source: impl Into<BoxError>) -> Self {
        Self(Arc::new(Inner { source: Some(source.into()), ..Inner::new(kind, target) }))
    }

    fn caused_by(cause: IoCause, target: &str, source: impl Into<BoxError>) -> Self {
        let inner = Inner::new(ConnectErrorKind::of(cause), target);
        Self(Arc::new(Inner { source: Some(source.into()), cause: Some(cause), ..inner }))
    }

    pub(crate) fn io(target: &str, error: io::Error) -> Self {
        Self::caused_by(IoCause::of(&error), target, error)
    }

    pub(crate) fn resolve(target: &str, error: io::Error) -> Self {
        match IoCause::of(&error) {
            IoCause::OutOfFiles => Self::caused_by(IoCause::OutOfFiles, target, error),
            _ => Self::caused(ConnectErrorKind::Resolve, target, error),
        }
    }

    pub(crate) fn tls(target: &str, error: BoxError) -> Self {
        match io_error(&*error).filter(|error| is_of_the_network(error)).map(IoCause::of) {
            Some(cause) => Self::caused_by(cause, target, error),
            None => Self::caused(ConnectErrorKind::Tls, target, error),
        }
    }

    /// The driver's error of start-up. `over_tls`: a TLS alert may arrive after the TLS handshake. With TLS 1.3, a
    /// server rejects a client's certificate that way.
    pub(crate) fn handshake(target: &str, error: tokio_postgres::Error, over_tls: bool) -> Self {
        if let Some(state) = error.code() {
            return Self::caused(ConnectErrorKind::Server(state.clone()), target, error);
        }
        match io_error(&error) {
            Some(io) if ProtocolViolation::is_in(io) => Self::caused(ConnectErrorKind::Handshake, target, error),
            Some(io) if over_tls && is_of_tls(io) => Self::caused(ConnectErrorKind::Tls, target, error),
            Some(io) => Self::caused_by(IoCause::of_a_talk(io), target, error),
            None if error.is_closed() => Self::caused_by(IoCause::Broken, target, error),
            None => Self::caused(ConnectErrorKind::Handshake, target, error),
        }
    }

    pub(crate) fn credentials(error: BoxError) -> Self {
        Self::caused(ConnectErrorKind::Credentials, "", error)
    }

    pub(crate) fn after_connect(target: &str, error: tokio_postgres::Error) -> Self {
        Self::caused(ConnectErrorKind::AfterConnect, target, error)
    }

    /// The owner's hook succeeded, but no caller may get what it has left.
    pub(crate) fn hook_left(target: &str, left: HookLeft) -> Self {
        Self(Arc::new(Inner { left: Some(left), ..Inner::new(ConnectErrorKind::AfterConnect, target) }))
    }

    /// Returns this error for a dial that sent startup options. If the server's answer is about them, the error names
    /// the setting that sends them.
    pub(crate) fn with_options(self) -> Self {
        let is_about_options = db_message(&self).is_some_and(|message| {
            ["startup parameter", "options", "configuration parameter"].iter().any(|word| message.contains(word))
        });
        match Arc::try_unwrap(self.0) {
            Ok(inner) if is_about_options => Self(Arc::new(Inner { setting: Some("server_timeouts"), ..inner })),
            Ok(inner) => Self(Arc::new(inner)),
            Err(shared) => Self(shared),
        }
    }

    /// Returns this error or that of a later attempt, whichever says more.
    pub(crate) fn or_more_telling(self, other: Self) -> Self {
        if other.weight() > self.weight() { other } else { self }
    }

    fn weight(&self) -> u8 {
        match self.0.kind {
            ConnectErrorKind::Abandoned => 0,
            ConnectErrorKind::Resolve | ConnectErrorKind::Io | ConnectErrorKind::Timeout(_) => 1,
            ConnectErrorKind::Tls
            | ConnectErrorKind::Handshake
            | ConnectErrorKind::Local
            | ConnectErrorKind::WrongRole { .. }
            | ConnectErrorKind::AfterConnect => 2,
            ConnectErrorKind::Server(_) => 3,
            ConnectErrorKind::TooManyOpenFiles | ConnectErrorKind::Credentials => 4,
        }
    }

    /// Returns whether every address of the same name would answer the same: wrong credentials, or an unknown database.
    pub(crate) fn is_refusal(&self) -> bool {
        self.sqlstate().is_some_and(|state| Failure::at_connect(state.code()).counts_as() == CountsAs::Config)
    }

    /// Returns whether the server's answer may be about startup options.
    #[cfg(feature = "fleet")]
    pub(crate) fn may_be_about_options(&self) -> bool {
        self.sqlstate().is_some() && !self.is_refusal() && !self.is_full()
    }

    /// Returns whether another try cannot help, and may do harm, until the cause is removed.
    pub(crate) fn is_lasting(&self) -> bool {
        match self.0.kind {
            ConnectErrorKind::Credentials | ConnectErrorKind::Tls | ConnectErrorKind::Handshake => true,
            ConnectErrorKind::Local => self.0.cause.is_some_and(IoCause::is_lasting),
            _ => self.is_refusal(),
        }
    }

    /// The failure as `policy/classify` knows it. `None` if this process is at fault.
    fn failure(&self) -> Option<Failure<'_>> {
        match &self.0.kind {
            ConnectErrorKind::Server(state) => Some(Failure::at_connect(state.code())),
            ConnectErrorKind::Resolve | ConnectErrorKind::Io | ConnectErrorKind::Timeout(_) => {
                Some(Failure { phase: StatementPhase::Connect, event: Occurrence::Unreachable })
            }
            ConnectErrorKind::TooManyOpenFiles
            | ConnectErrorKind::Local
            | ConnectErrorKind::Tls
            | ConnectErrorKind::Handshake
            | ConnectErrorKind::WrongRole { .. }
            | ConnectErrorKind::Credentials
            | ConnectErrorKind::AfterConnect
            | ConnectErrorKind::Abandoned => None,
        }
    }

    /// Returns whether, and where, the whole call may run again.
    pub(crate) fn retry(&self) -> Retry {
        self.failure().map_or(Retry::Never, |failure| failure.retry())
    }

    /// What the failure means to the circuit breaker.
    pub(crate) fn counts_as(&self) -> CountsAs {
        if matches!(self.0.stage, Some(Stage::AfterConnect | Stage::HookLeftovers)) {
            return CountsAs::Nothing; // the owner's hook was slow, not the server
        }
        self.failure().map_or(CountsAs::Nothing, |failure| failure.counts_as())
    }

    /// Returns whether the server accepts no more connections.
    pub(crate) fn is_full(&self) -> bool {
        self.failure().is_some_and(|failure| failure.is_full())
    }

    /// The stage at which the dial failed.
    pub fn kind(&self) -> &ConnectErrorKind {
        &self.0.kind
    }

    /// The SQLSTATE, if the server answered with one.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match &self.0.kind {
            ConnectErrorKind::Server(state) => Some(state),
            _ => None,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.target.is_empty() {
            write!(f, "{}: ", self.0.target)?;
        }
        match &self.0.kind {
            ConnectErrorKind::Resolve => f.write_str("the host name could not be resolved"),
            ConnectErrorKind::Io | ConnectErrorKind::Local | ConnectErrorKind::TooManyOpenFiles => {
                match self.0.cause.unwrap_or(IoCause::Broken).words() {
                    Some(words) => f.write_str(words),
                    None => f.write_str(&one_line(&root_cause(self).to_string())),
                }
            }
            ConnectErrorKind::Timeout(timeout) => {
                write!(f, "not ready within {}", HumanDuration(*timeout))?;
                self.0.stage.map_or(Ok(()), |stage| write!(f, ": {}", stage.as_str()))
            }
            ConnectErrorKind::Server(state) => match db_message(self) {
                Some(message) => {
                    let (message, state) = (one_line(message), one_line(state.code()));
                    write!(f, "{message} ({state}){}", objected_setting(self.0.setting))
                }
                None => write!(f, "refused with SQLSTATE {}", one_line(state.code())),
            },
            ConnectErrorKind::Tls => match self.source() {
                Some(source) => {
                    let said = io_error(source).map_or_else(|| source.to_string(), ToString::to_string);
                    write!(f, "no TLS: {}", one_line(&said))
                }
                None => f.write_str("no TLS"),
            },
            ConnectErrorKind::Handshake => {
                write!(f, "the handshake failed: {}", one_line(&root_cause(self).to_string()))
            }
            ConnectErrorKind::WrongRole { read_only: true } => {
                f.write_str("the server is read-only, and target_session_attrs=read-write")
            }
            ConnectErrorKind::WrongRole { read_only: false } => {
                f.write_str("the server is not read-only, and target_session_attrs=read-only")
            }
            ConnectErrorKind::Credentials => f.write_str("the credentials provider failed"),
            ConnectErrorKind::AfterConnect => {
                f.write_str("the after_connect hook ")?;
                match (self.0.left, hook_state(self)) {
                    (Some(left), _) => f.write_str(left.as_str()),
                    (None, Some(state)) => write!(f, "failed with SQLSTATE {}", one_line(state.code())),
                    (None, None) => f.write_str("failed"),
                }
            }
            ConnectErrorKind::Abandoned => {
                f.write_str("the dial ended without a result: its runtime was shut down, or it panicked")
            }
        }
    }
}

fn objected_setting(setting: Option<&str>) -> String {
    setting.map(|setting| format!("; the pool's {setting} are sent as startup options")).unwrap_or_default()
}

/// Prints the line of `Display` and the server. It does not print the causes: the error of a provider or a hook may
/// hold a secret, and the length of a server's message is not bounded.
impl fmt::Debug for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ConnectError");
        debug.field("line", &self.to_string()).field("target", &self.0.target).finish_non_exhaustive()
    }
}

impl StdError for ConnectError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// The end of an error's line while dials fail.
pub(super) fn trailer(last: &Option<ConnectError>) -> String {
    last.as_ref().map(|error| format!("; last dial failed: {error}")).unwrap_or_default()
}

/// Returns the [`trailer`], unless the status shows the error already.
pub(super) fn trailer_after(status: &Status, last: &Option<ConnectError>) -> String {
    if status.last_connect_error.is_some() { String::new() } else { trailer(last) }
}

/// The last of the causes, which says what really happened.
fn root_cause(error: &ConnectError) -> &dyn StdError {
    let causes = std::iter::successors(Some(error as &(dyn StdError + 'static)), |error| (**error).source());
    causes.last().unwrap_or(error)
}

fn hook_state(error: &ConnectError) -> Option<&SqlState> {
    error.source()?.downcast_ref::<tokio_postgres::Error>()?.code()
}

fn db_message(error: &ConnectError) -> Option<&str> {
    let source: &tokio_postgres::Error = error.source()?.downcast_ref()?;
    Some(source.as_db_error()?.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_the_server_and_the_cause() {
        let refused = ConnectError::io("db:5432", io::ErrorKind::ConnectionRefused.into());
        assert_eq!(refused.to_string(), "db:5432: connection refused");
        let out_of_files = ConnectError::io("db:5432", io::Error::from_raw_os_error(24));
        assert_eq!(out_of_files.to_string(), "db:5432: too many open files in this process");
        let slow = ConnectError::new(ConnectErrorKind::Timeout(Duration::from_secs(5)), "db:5432");
        assert_eq!(slow.to_string(), "db:5432: not ready within 5 s");
        let unknown = ConnectError::resolve("nowhere:5432", io::Error::other("no such name"));
        assert_eq!(unknown.to_string(), "nowhere:5432: the host name could not be resolved");
        assert_eq!(unknown.source().map(|s| s.to_string()).as_deref(), Some("no such name"));
    }

    #[test]
    fn a_servers_answer_says_more_than_silence() {
        let silent = ConnectError::new(ConnectErrorKind::Timeout(Duration::from_secs(1)), "a:1");
        let refused = ConnectError::io("b:1", io::ErrorKind::ConnectionRefused.into());
        let answer = ConnectError::new(ConnectErrorKind::Server(SqlState::CANNOT_CONNECT_NOW), "c:1");
        let first = silent.clone().or_more_telling(refused);
        assert_eq!(first.to_string(), "a:1: not ready within 1 s");
        let best = first.or_more_telling(answer.clone());
        assert_eq!(best.or_more_telling(silent).sqlstate(), answer.sqlstate());
    }

    #[test]
    fn credentials_and_databases_are_refused_for_every_address() {
        let answer = |state| ConnectError::new(ConnectErrorKind::Server(state), "a:1").is_refusal();
        assert!(answer(SqlState::INVALID_PASSWORD) && answer(SqlState::INVALID_AUTHORIZATION_SPECIFICATION));
        assert!(answer(SqlState::INVALID_CATALOG_NAME));
        assert!(!answer(SqlState::TOO_MANY_CONNECTIONS) && !answer(SqlState::CANNOT_CONNECT_NOW));
        assert!(!ConnectError::io("a:1", io::ErrorKind::ConnectionRefused.into()).is_refusal());
    }
}

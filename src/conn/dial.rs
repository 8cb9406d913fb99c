//! Makes one connection, under one deadline: asks for credentials, looks names up, and tries hosts in order.
//!
//! Read it from the top: `dial` (what a dial reports), `connect` (startup options), `try_hosts`, `dial_host` (the
//! addresses of one host) and `dial_place` (one address).

mod avoided;
pub(super) mod credentials;
pub(super) mod factory;
pub(super) mod hooks;
mod hosts;
pub(super) mod identity;
pub(super) mod listen_control;
mod names;
mod progress;
mod race;
pub(super) mod route;
pub(super) mod secure;
pub(super) mod server_timeouts;
mod session;
pub(super) mod socket;

use std::fmt;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpSocket;
use tokio::time::{self, Instant};
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use self::avoided::AvoidedAddresses;
use self::credentials::RefusedCredentials;
use self::hosts::{Target, in_order_of, targets};
use self::listen_control::ListenControl;
use self::names::Names;
use self::progress::DialProgress;
use self::race::race;
use self::route::Route;
use self::secure::Connector;
use self::socket::{Place, Socket};
use super::handling::Handling;
use super::lease_registry::Leased;
use super::{Conn, ConnectionEvent};
use crate::error::{ConnectError, ConnectErrorKind, Stage, is_out_of_files};
use crate::human::HumanDuration;
use crate::policy::{DialTimes, Trouble};
use crate::slots::{Connection as _, Dial};

/// Dials connections of one pool, and remembers what the dials have learned.
pub(crate) struct Dialer {
    config: Config,
    connect_timeout: Duration,
    connector: Connector,
    handling: Handling,
    avoided: AvoidedAddresses,
    refused: RefusedCredentials,
    names: Names,
    times: Mutex<DialTimes>,
    listen_control: ListenControl,
}

impl Dial for Dialer {
    type Conn = Box<Conn>;
    type Error = ConnectError;

    async fn dial(&self, on_quiet: impl FnOnce() + Send) -> Result<Box<Conn>, ConnectError> {
        let register = |conn: &Conn| self.handling.registry.add(Arc::downgrade(&conn.link) as Weak<dyn Leased>);
        let conn = self.dial_and(on_quiet, register).await?;
        #[cfg(feature = "cluster")]
        self.handling.hooks.before_use().await;
        Ok(conn)
    }

    fn answer_limit(&self) -> Duration {
        self.late_after().map_or(self.connect_timeout, |late| late.min(self.connect_timeout))
    }

    /// A refusal of credentials that a provider gave is not lasting: the next dial asks the provider again, and sends
    /// the answer to the server only if it has changed.
    fn trouble(&self, error: &ConnectError) -> Trouble {
        let may_change = self.handling.hooks.has_provider() && error.is_refusal();
        if error.is_lasting() && !may_change { Trouble::Lasting } else { Trouble::Passing }
    }

    fn forget_refusals(&self) {
        self.refused.forget();
    }

    fn on_flush(&self) {
        self.handling.begin_epoch();
        self.listen_control.on_flush();
    }

    fn on_close(&self) {
        self.listen_control.on_close();
    }

    fn abandoned() -> ConnectError {
        ConnectError::abandoned()
    }

    fn failed_before_first_use() -> ConnectError {
        ConnectError::failed_before_first_use()
    }
}

impl Dialer {
    pub(crate) fn new(config: Config, connect_timeout: Duration, connector: Connector, handling: Handling) -> Self {
        Self {
            config,
            connect_timeout,
            connector,
            handling,
            avoided: AvoidedAddresses::default(),
            refused: RefusedCredentials::default(),
            names: Names::default(),
            times: Mutex::default(),
            listen_control: ListenControl::default(),
        }
    }

    /// Dials for a listener, whose connection serves no caller.
    pub(super) async fn dial_to_listen(&self) -> Result<Box<Conn>, ConnectError> {
        self.dial_and(|| {}, |_| {}).await
    }

    /// Dials, does `then` with the connection, and reports the result.
    async fn dial_and(
        &self,
        on_quiet: impl FnOnce() + Send,
        then: impl FnOnce(&Conn) + Send,
    ) -> Result<Box<Conn>, ConnectError> {
        let (recorder, begun) = (&self.handling.recorder, Instant::now());
        let ticket = recorder.dials();
        let mut on_quiet = Some(on_quiet);
        let mut on_late = || {
            recorder.on_server_late();
            if let Some(on_quiet) = on_quiet.take() {
                on_quiet();
            }
        };
        let mut progress = DialProgress::new(self.late_after(), &mut on_late);
        let result = self.connect(begun + self.connect_timeout, &mut progress).await;
        if result.is_ok() {
            self.times.lock().succeeded(progress.server_took());
        }
        if let Ok(conn) = &result {
            then(conn);
        }
        let now = Instant::now();
        let took = now - begun;
        let dialed = result.as_ref().map(|_| ());
        recorder.dialed(now.into_std(), ticket, dialed, took, &self.handling.registry);
        recorder.pass_on(match &result {
            Ok(conn) => ConnectionEvent::Dialed {
                took,
                address: Arc::clone(&conn.address),
                is_read_only: conn.link.monitor.is_read_only(),
            },
            Err(_) => ConnectionEvent::DialFailed,
        });
        result
    }

    /// How many dials the server has refused because it was full.
    #[cfg(feature = "fleet")]
    pub(crate) fn times_full(&self) -> u64 {
        self.handling.recorder.times_full()
    }

    pub(crate) fn listen_control(&self) -> &ListenControl {
        &self.listen_control
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    fn late_after(&self) -> Option<Duration> {
        self.times.lock().late_after()
    }

    /// Connects, and connects again if the first connection shows that the server knows more startup options.
    async fn connect(&self, deadline: Instant, progress: &mut DialProgress<'_>) -> Result<Box<Conn>, ConnectError> {
        let options = self.handling.options();
        match self.try_hosts(deadline, progress).await {
            Ok(conn) if self.handling.has_server_timeouts() => {
                self.handling.learn_version(conn.task.server_version());
                if self.handling.options() == options {
                    return Ok(conn);
                }
                conn.close().await;
                self.try_hosts(deadline, progress).await
            }
            // A pooler may refuse the keepalives of a fleet. It needs none: it has its own.
            #[cfg(feature = "fleet")]
            Err(error) if error.may_be_about_options() && self.handling.set_keepalives(false) => {
                let again = self.try_hosts(deadline, progress).await;
                again.inspect_err(|_| _ = self.handling.set_keepalives(true))
            }
            Err(error) if error.sqlstate().is_some() => {
                self.handling.learn_version(None);
                Err(if options.is_empty() { error } else { error.with_options() })
            }
            result => result,
        }
    }

    /// Tries the hosts in order, until one connects. Each has a fair share of the time that is left.
    async fn try_hosts(&self, deadline: Instant, progress: &mut DialProgress<'_>) -> Result<Box<Conn>, ConnectError> {
        let config = Arc::new(self.log_in(deadline).await?);
        if let Some(refusal) = self.refused.refusal_of(&config) {
            return Err(refusal);
        }
        let mut targets = targets(&config);
        self.avoided.put_last(&mut targets, Target::to_string);
        let (mut failure, has_others) = (None, targets.len() > 1);
        for (tried, target) in targets.iter().enumerate() {
            let share = fair_share(deadline, targets.len() - tried);
            progress.begin(None);
            let dialed = time::timeout(share, self.dial_host(target, &config, progress)).await;
            let error = match dialed {
                Ok(Ok(conn)) => {
                    self.on_used(&target.to_string());
                    self.refused.forget();
                    return Ok(conn);
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    // The only host had the whole time: the error must not subtract what the provider took.
                    let limit = if has_others { in_millis(share) } else { self.connect_timeout };
                    let error = ConnectError::timeout(limit, target.to_string(), progress.stage());
                    if let Some(address) = progress.take_address() {
                        self.avoid(address, &error);
                    }
                    error
                }
            };
            match error.kind() {
                // The server works. Its role is no reason for an event.
                ConnectErrorKind::WrongRole { .. } => _ = self.avoided.on_failed(target.to_string()),
                _ if has_others => self.avoid(target.to_string(), &error),
                _ => {}
            }
            failure = more_telling(failure, error);
        }
        let failure = failure.unwrap_or_else(ConnectError::abandoned);
        if failure.is_refusal() && self.handling.hooks.has_provider() {
            self.refused.on_refused(&config, &failure);
        }
        Err(failure)
    }

    /// Returns the settings of this dial, with the present credentials.
    async fn log_in(&self, deadline: Instant) -> Result<Config, ConnectError> {
        match time::timeout_at(deadline, self.handling.hooks.log_in(&self.config)).await {
            Ok(config) => config.map(|config| self.with_options(config)).map_err(ConnectError::credentials),
            Err(_) => {
                let late = format!("no answer within {}", HumanDuration(self.connect_timeout));
                Err(ConnectError::credentials(late.into()))
            }
        }
    }

    fn with_options(&self, mut config: Config) -> Config {
        let mut options = self.handling.options();
        if !options.is_empty() {
            options += config.get_options().unwrap_or_default();
            config.options(options);
        }
        config
    }

    /// Tries the addresses of one host, until one connects.
    async fn dial_host(
        &self,
        target: &Target<'_>,
        config: &Arc<Config>,
        progress: &mut DialProgress<'_>,
    ) -> Result<Box<Conn>, ConnectError> {
        let name: Arc<str> = target.to_string().into();
        let mut places = self.places(target, config, &name, progress).await?;
        let (mut failure, mut tried, has_others) = (None, Vec::new(), places.len() > 1);
        loop {
            progress.begin(None);
            let connect = |place: Place| async move {
                let begun = Instant::now();
                Socket::open(&place, config).await.map(|socket| (socket, begun))
            };
            let raced = progress.server(race(places, mem::take(&mut tried), connect)).await;
            tried = raced.tried;
            for (place, error) in raced.failed {
                let error = ConnectError::io(&name, error);
                if has_others {
                    self.avoid(place.to_string(), &error);
                }
                failure = more_telling(failure, error);
            }
            let Some((place, opened)) = raced.first else { break };
            for silent in &raced.silent {
                self.avoid(silent.to_string(), &format_args!("no answer, while {place} took the connection"));
            }
            let address = place.to_string();
            progress.begin(has_others.then(|| address.clone()));
            tried.push(place.clone());
            let route = Route {
                place,
                name: Arc::clone(&name),
                certified_name: target.certified_name().as_ref().into(),
                config: Arc::clone(config),
                connector: self.connector.clone(),
            };
            match self.dial_place(route, opened, progress).await {
                Ok(conn) => {
                    self.on_used(&address);
                    return Ok(conn);
                }
                Err(error) if error.is_refusal() => return Err(error),
                Err(error) => {
                    if has_others {
                        self.avoid(address, &error);
                    }
                    failure = more_telling(failure, error);
                }
            }
            places = raced.untried.into_iter().chain(raced.silent).collect();
        }
        let no_address = || ConnectError::resolve(&name, io::Error::other("the name has no address"));
        Err(failure.unwrap_or_else(no_address))
    }

    /// Returns the addresses of a host, in the order in which the dial tries them.
    async fn places(
        &self,
        target: &Target<'_>,
        config: &Config,
        name: &str,
        progress: &mut DialProgress<'_>,
    ) -> Result<Vec<Place>, ConnectError> {
        let mut places = match (target.address, target.host) {
            (Some(address), _) => vec![Place::Tcp(SocketAddr::new(address, target.port))],
            #[cfg(unix)]
            (None, Some(Host::Unix(directory))) => {
                vec![Place::Unix(directory.join(format!(".s.PGSQL.{}", target.port)))]
            }
            (None, Some(Host::Tcp(host))) => {
                let found =
                    progress.other(Stage::LookUp, self.names.look_up(host, target.port, self.connect_timeout)).await;
                let mut found = found.map_err(|error| {
                    // A resolver that cannot open a file only says that the name is unknown.
                    let out_of_files = TcpSocket::new_v4().err().filter(is_out_of_files);
                    ConnectError::resolve(name, out_of_files.unwrap_or(error))
                })?;
                in_order_of(config, &mut found);
                found.into_iter().map(Place::Tcp).collect()
            }
            (None, None) => unreachable!("build() wants a host or an address"),
        };
        self.avoided.put_last(&mut places, Place::to_string);
        Ok(places)
    }

    async fn dial_place(
        &self,
        route: Route,
        (socket, begun): (Socket, Instant),
        progress: &mut DialProgress<'_>,
    ) -> Result<Box<Conn>, ConnectError> {
        let stream = route.secure(socket, progress).await?;
        session::begin(stream, route, begun.elapsed(), &self.handling, progress).await
    }

    /// Makes later dials try this host or address last. Reports an event the first time.
    fn avoid(&self, address: String, reason: &dyn fmt::Display) {
        if self.avoided.on_failed(address.clone()) {
            self.handling.recorder.pass_on(ConnectionEvent::AddressAvoided { address, reason: reason.to_string() });
        }
    }

    /// A host or an address has taken a connection.
    fn on_used(&self, address: &str) {
        if let Some(lasted) = self.avoided.on_used(address) {
            self.handling.recorder.pass_on(ConnectionEvent::AddressRestored { address: address.to_owned(), lasted });
        }
    }
}

/// The share of the next of `places` that are left, so that none uses up the time of the others.
fn fair_share(deadline: Instant, places: usize) -> Duration {
    deadline.saturating_duration_since(Instant::now()) / u32::try_from(places).unwrap_or(u32::MAX)
}

/// Rounds up to milliseconds, for people.
fn in_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX))
}

fn more_telling(failure: Option<ConnectError>, error: ConnectError) -> Option<ConnectError> {
    Some(match failure {
        Some(failure) => failure.or_more_telling(error),
        None => error,
    })
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer")
            .field("config", &self.config)
            .field("connect_timeout", &self.connect_timeout)
            .field("connector", &self.connector)
            .field("handling", &self.handling)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

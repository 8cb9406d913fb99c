//! One connection to the server: made by [`dial`], held as a [`Conn`], handed out as a [`Client`].

mod calls;
mod cancel;
mod client;
mod connection_event;
mod dial;
mod handling;
mod lease_registry;
mod link;
mod outcome_recorder;
mod round_trips;
mod settle;
mod stream;
mod task;
#[cfg(test)]
mod tests;
mod transaction;
mod wire;

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Object, StatementCache};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::config::TargetSessionAttrs;

pub use self::calls::copy::{CopyIn, CopyOut};
pub(crate) use self::calls::queries::CallOptions;
pub use self::calls::rows::RowStream;
pub use self::calls::statements::AsStatement;
use self::calls::statements::Statements;
use self::calls::watcher::Presence;
pub(crate) use self::calls::watcher::ReadingLimits;
use self::cancel::Canceller;
pub use self::client::Client;
pub(crate) use self::client::Trail;
pub(crate) use self::connection_event::{ConnectionEvent, Role};
pub(crate) use self::dial::Dialer;
pub use self::dial::hooks::Credentials;
pub(crate) use self::dial::hooks::Hooks;
use self::dial::identity::Identity;
use self::dial::route::Route;
pub(crate) use self::dial::secure::Connector;
pub use self::dial::server_timeouts::ServerTimeouts;
pub use self::dial::socket::Socket;
pub use self::handling::Reset;
pub(crate) use self::handling::{Handling, Listeners};
pub(crate) use self::lease_registry::{Holder, LeaseRegistry};
use self::link::Link;
pub(crate) use self::outcome_recorder::{IsFailure, OutcomeRecorder};
use self::round_trips::RoundTrips;
use self::task::Task;
pub use self::transaction::{Transaction, TransactionOptions};
#[cfg(fuzzing)]
pub use self::wire::fuzz as fuzz_wire;
use self::wire::{TransactionStatus, Wire};
use crate::slots::Connection;
use crate::telemetry::{Server, Stamp};

/// A connection, and the task that drives it.
///
/// Its deadpool object never goes back to deadpool: the pool that made it is gone, so the connection ends where the object is dropped.
pub(crate) struct Conn {
    object: Object,
    /// Tells whether `object` is still the one that was dialed: a guard gives `&mut` access, so a caller could swap it,
    cache: Arc<StatementCache>,
    /// or only the driver's client inside it.
    client: Identity,
    /// Whether `&mut` access was given.
    touched: bool,
    task: Task,
    link: Arc<Link>,
    statements: Arc<Statements>,
    handling: Handling,
    /// Where the server is.
    address: Arc<str>,
    /// The same for spans.
    server: Server,
    /// Since when a caller has it.
    since: Stamp,
    /// Whether a server that only reads was asked for; `None` if it does not matter.
    wanted_role: Option<bool>,
    /// Dropped with it, or when it is detached.
    _presence: Presence,
}

impl Conn {
    async fn new(
        client: tokio_postgres::Client,
        task: Task,
        wire: Arc<Wire>,
        route: Route,
        opening: Duration,
        handling: Handling,
    ) -> Self {
        let identity = Identity::of(&client);
        let object = dial::factory::wrap(client).await;
        let wanted_role = match route.config.get_target_session_attrs() {
            TargetSessionAttrs::ReadOnly => Some(true),
            TargetSessionAttrs::ReadWrite => Some(false),
            _ => None,
        };
        let address: Arc<str> = route.place.to_string().into();
        let statement_timeout = handling.statement_timeout(route.config.get_options().unwrap_or_default());
        let canceller = Canceller::new(route, identity.clone(), Arc::clone(&handling.cancels));
        let trips = RoundTrips::new(wire.round_trip(), opening);
        let link = Arc::new(Link::new(wire, task.pulse(), canceller, trips, statement_timeout, &handling));
        handling.registry.enter(&link);
        let presence = Presence::of(&link.watcher);
        let cache = Arc::clone(&object.statement_cache);
        let statements = Statements::new(handling.statements, Arc::clone(&handling.epoch), Arc::clone(&cache));
        Self {
            cache,
            object,
            client: identity,
            touched: false,
            link,
            task,
            statements: Arc::new(statements),
            handling,
            server: Server::at(&address),
            address,
            since: Stamp::default(),
            _presence: presence,
            wanted_role,
        }
    }

    /// How many more connections the server takes from people like us; less than none if others have what is reserved.
    pub(crate) async fn connections_left(&self) -> Option<i64> {
        let sql =
            "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true)::int, 0) - count(datid) FROM pg_stat_activity";
        let answer = self.object.simple_query(sql).await.ok()?;
        let left = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        left?.parse().ok()
    }

    fn object_mut(&mut self) -> &mut Object {
        self.touched = true;
        &mut self.object
    }

    fn detach(self) -> ClientWrapper {
        self.task.release();
        Object::take(self.object)
    }

    /// The server has changed its role, and it matters.
    fn has_wrong_role(&self) -> bool {
        self.wanted_role.is_some_and(|read_only| self.link.pulse.is_read_only() == Some(!read_only))
    }

    fn needs_reset(&self) -> bool {
        match self.handling.reset {
            Reset::Never => false,
            Reset::WhenSeen => self.link.wire.has_touched_session(),
            Reset::Always => true,
        }
    }
}

impl Connection for Box<Conn> {
    fn is_usable(&self) -> bool {
        !self.object.is_closed()
            && !self.link.wire.is_sealed()
            && !self.has_wrong_role()
            && Arc::ptr_eq(&self.object.statement_cache, &self.cache)
            && (!self.touched || Identity::of(&self.object) == self.client)
    }

    fn needs_settling(&self) -> bool {
        let link = &self.link;
        if !link.is_used() {
            return false;
        }
        link.tell_untracked(false);
        self.statements.look_for_changes(link);
        // Unanswered first: what is asked after it is at least as new.
        let is_clean = link.wire.unanswered() == 0
            && link.wire.status() == TransactionStatus::Idle
            && !link.is_untracked()
            && link.calls.are_over()
            && !link.is_unhurried()
            && !self.needs_reset();
        link.set_used(!is_clean);
        !is_clean
    }

    /// One Sync, and nothing else.
    async fn ping(&self) -> bool {
        self.object.check_connection().await.is_ok()
    }

    fn was_used(&mut self) {
        self.handling.meter.used(mem::take(&mut self.since));
    }

    fn was_held(&self, hold: Duration) {
        self.link.lease_info.held(hold);
    }

    fn rests(&self) {
        self.link.lease_info.rests();
    }

    fn was_left(&self) {
        self.link.lease_info.left();
    }

    fn was_given_up(&self) -> bool {
        self.link.calls.were_given_up()
    }

    async fn settle(&mut self) -> bool {
        settle::settle(self).await
    }

    /// Says goodbye to the server and waits for the task to end.
    async fn close(self) {
        self.link.tell_untracked(self.object.is_closed());
        let Conn { object, task, _presence: presence, .. } = *self;
        drop((presence, object));
        task.ended().await;
    }
}

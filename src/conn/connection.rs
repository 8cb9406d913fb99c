//! A connection: the driver's client, the task that drives it, and what the pool knows of both.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Object, StatementCache};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::config::TargetSessionAttrs;

use super::asked_for::AskedFor;
use super::calls::statements::Statements;
use super::calls::watcher::Presence;
use super::cancel::Canceller;
use super::dial::factory;
use super::dial::identity::Identity;
use super::dial::route::Route;
use super::handling::{Handling, Reset};
use super::lease_registry::WrittenPurpose;
use super::link::Link;
use super::round_trips::RoundTrips;
use super::statement_timeout::StatementTimeout;
use super::task::Task;
use super::wire::Wire;
use crate::telemetry::{Server, Stamp};

/// A connection, and the task that drives it.
///
/// Its deadpool object never returns to deadpool, whose pool is gone. So dropping the object ends the connection.
pub(crate) struct Conn {
    pub(super) object: Object,
    /// Identifies the `object` that was dialed. A guard gives `&mut` access, so a caller could swap the object.
    pub(super) cache: Arc<StatementCache>,
    /// Identifies the driver's client that was dialed. A caller could swap only the client inside the object.
    client: Identity,
    /// Whether a guard gave `&mut` access.
    touched: bool,
    pub(super) task: Task,
    pub(super) link: Arc<Link>,
    pub(super) statements: Arc<Statements>,
    pub(super) handling: Handling,
    pub(super) asked_for: AskedFor,
    /// The server's address, for errors and events.
    pub(super) address: Arc<str>,
    /// The server's address, for spans.
    pub(super) server: Server,
    /// When the lease began.
    pub(super) since: Stamp,
    pub(super) purpose: WrittenPurpose,
    /// Whether `target_session_attrs` asks for a server that is read-only, or for one that is not. `None` if either
    /// will do.
    wanted_role: Option<bool>,
    /// Notifies the watcher of streams when the connection is closed or detached.
    pub(super) _presence: Presence,
}

impl Conn {
    pub(super) async fn new(
        client: tokio_postgres::Client,
        task: Task,
        wire: Arc<Wire>,
        route: Route,
        opening: Duration,
        handling: Handling,
    ) -> Self {
        let identity = Identity::of(&client);
        let object = factory::wrap(client).await;
        let wanted_role = match route.config.get_target_session_attrs() {
            TargetSessionAttrs::ReadOnly => Some(true),
            TargetSessionAttrs::ReadWrite => Some(false),
            _ => None,
        };
        let address: Arc<str> = route.place.to_string().into();
        let options = route.config.get_options().unwrap_or_default();
        let asked_for = AskedFor::of(options);
        let statement_timeout = StatementTimeout::new(handling.statement_timeout(options));
        let canceller = Canceller::new(route, identity.clone(), Arc::clone(&handling.cancels));
        let trips = RoundTrips::new(wire.round_trip(), opening);
        let link = Arc::new(Link::new(wire, task.monitor(), canceller, trips, statement_timeout, &handling));
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
            asked_for,
            server: Server::at(&address),
            address,
            since: Stamp::default(),
            purpose: WrittenPurpose::default(),
            _presence: presence,
            wanted_role,
        }
    }

    /// Asks the server how many more connections it accepts from roles without special rights. The number is negative
    /// while reserved connections are in use. Not bounded in time.
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

    pub(super) fn object_mut(&mut self) -> &mut Object {
        self.touched = true;
        &mut self.object
    }

    pub(super) fn detach(mut self) -> ClientWrapper {
        self.purpose.erase(&self.link.lease_info);
        self.task.release();
        Object::take(self.object)
    }

    /// Returns whether the server is known to have another role than the one asked for.
    #[inline]
    fn has_wrong_role(&self) -> bool {
        self.wanted_role.is_some_and(|read_only| self.link.monitor.is_read_only() == Some(!read_only))
    }

    pub(super) fn needs_reset(&self) -> bool {
        match self.handling.reset {
            Reset::Never => false,
            Reset::WhenSeen => self.link.wire.has_touched_session(),
            Reset::Always => true,
        }
    }

    /// Returns whether the object, and the driver's client in it, are those that were dialed.
    #[inline]
    fn is_same_client(&self) -> bool {
        let is_untouched = !self.touched;
        is_untouched
            || (Arc::ptr_eq(&self.object.statement_cache, &self.cache) && Identity::of(&self.object) == self.client)
    }

    /// Returns whether the connection can serve another caller.
    #[inline]
    pub(super) fn is_fit(&self) -> bool {
        self.link.wire.is_alive() && !self.has_wrong_role() && self.is_same_client()
    }
}

//! The unread notifications of one listener, in the order in which the server sent them.
//!
//! The task of a connection puts them in and never waits: a connection that is not read fills the server's queue of
//! notifications, which all sessions share. So what does not fit is dropped, and the reader finds a [`Gap`] in its
//! place.
//!
//! When the listener changes its connection, both listen for a while. The new one then notifies a channel that only the
//! two know. The server sends notifications to all sessions in one order. So the reader gets those before this marker
//! from the old connection, and those after it from the new one: each once, and in order.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The most bytes of unread notifications.
const MOST: usize = 16 << 20;
/// The inbox keeps the memory for so many notifications when all of them are read.
const FEW: usize = 64;
/// What a notification takes beside its texts, in bytes.
const EACH: usize = 96;

/// What a listener has received. From [`Notifications`](crate::Notifications).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Received {
    /// A notification.
    Notification(Notification),
    /// Notifications may be missing here: those that were sent before this moment, and that the listener did not get.
    /// Read again from the database whatever the notifications are about. After that, nothing is missed.
    Gap(Gap),
}

/// A message that a session sent with `NOTIFY` or `pg_notify`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notification {
    /// The name of the channel.
    pub channel: String,
    /// The message, which may be empty. PostgreSQL limits it to 7,999 bytes.
    pub payload: String,
    /// The id of the server's process that sent it, as in `pg_stat_activity.pid`.
    pub process_id: i32,
}

/// Why notifications may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Gap {
    /// The connection was lost or replaced, and the listener listens again on another one.
    Reconnected,
    /// The reader was too slow: more than 16 MiB of notifications were unread. The listener drops all further ones
    /// until the reader has come to this gap.
    Overrun,
}

/// The number of a connection of the listener.
pub(super) type Source = u64;

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    reader: AtomicWaker,
    /// Notified when a change of connections has ended.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    unread: VecDeque<Received>,
    bytes: usize,
    /// Nothing more is kept until the reader has come to the gap, which is the last unread item.
    is_overrun: bool,
    /// The connection whose notifications are passed on.
    source: Source,
    sources: Source,
    change: Option<Change>,
    /// Everything that `source` sends before this marker has been received already.
    skip_until: Option<String>,
    /// All notifications that came, also those that were dropped.
    received: u64,
    has_ended: bool,
}

/// A change of connections that is under way.
#[derive(Debug)]
struct Change {
    to: Source,
    marker: String,
    /// Whether the new connection has come to the marker. What it sends before, the old one sends, too.
    is_after_marker: bool,
    /// What the new connection sent after the marker.
    held: Vec<Notification>,
}

impl Change {
    fn size(&self) -> usize {
        self.held.iter().map(size).sum()
    }
}

impl Inbox {
    /// Returns the number of a new connection.
    pub(super) fn next_source(&self) -> Source {
        let mut state = self.state.lock();
        state.sources += 1;
        state.sources
    }

    /// Passes on only what this connection sends, from now on.
    pub(super) fn take_from(&self, source: Source) {
        let mut state = self.state.lock();
        if let Some(change) = state.change.take() {
            state.bytes -= change.size();
        }
        (state.source, state.skip_until) = (source, None);
    }

    /// Begins to change to another connection, which takes place when the old one has come to the marker.
    pub(super) fn begin_change(&self, to: Source, marker: String) {
        self.state.lock().change = Some(Change { to, marker, is_after_marker: false, held: Vec::new() });
    }

    /// Waits until the change has taken place.
    pub(super) async fn change_ended(&self) {
        loop {
            let changed = self.changed.notified();
            if self.state.lock().change.is_none() {
                return;
            }
            changed.await;
        }
    }

    /// A connection has received a notification.
    pub(super) fn put(&self, source: Source, notification: Notification) {
        let has_changed = self.state.lock().put(source, notification);
        if has_changed {
            self.changed.notify_waiters();
        }
        self.reader.wake();
    }

    /// Notes that notifications may be missing.
    pub(crate) fn put_gap(&self) {
        self.state.lock().put_gap(Gap::Reconnected);
        self.reader.wake();
    }

    /// How many notifications have come since the beginning.
    pub(super) fn received(&self) -> u64 {
        self.state.lock().received
    }

    /// Nothing more comes.
    pub(crate) fn end(&self) {
        self.state.lock().has_ended = true;
        self.reader.wake();
    }

    /// Returns the next item; `None` after the last. Only one reader at a time is woken.
    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Received>> {
        self.reader.register(cx.waker());
        let mut state = self.state.lock();
        match state.next() {
            None if !state.has_ended => Poll::Pending,
            next => Poll::Ready(next),
        }
    }
}

impl State {
    /// Returns whether a change of connections has ended with this notification.
    fn put(&mut self, source: Source, notification: Notification) -> bool {
        self.received += 1;
        let channel = &notification.channel;
        if source == self.source {
            if self.change.as_ref().is_some_and(|change| change.marker == *channel) {
                self.change();
                return true;
            }
            match &self.skip_until {
                Some(marker) if marker == channel => self.skip_until = None,
                Some(_) => {}
                None => self.keep(notification),
            }
        } else if let Some(change) = self.change.as_mut().filter(|change| change.to == source) {
            if change.marker == *channel {
                change.is_after_marker = true;
            } else if change.is_after_marker && self.bytes <= MOST {
                self.bytes += size(&notification);
                change.held.push(notification);
            } else if change.is_after_marker {
                self.overrun();
            }
        }
        false
    }

    /// The old connection has come to the marker.
    fn change(&mut self) {
        let Some(change) = self.change.take() else { return };
        self.source = change.to;
        self.bytes -= change.size();
        self.skip_until = (!change.is_after_marker).then_some(change.marker);
        change.held.into_iter().for_each(|notification| self.keep(notification));
    }

    fn keep(&mut self, notification: Notification) {
        if self.is_overrun {
            return;
        }
        let size = size(&notification);
        if self.bytes + size > MOST {
            return self.overrun();
        }
        self.bytes += size;
        self.unread.push_back(Received::Notification(notification));
    }

    fn overrun(&mut self) {
        self.put_gap(Gap::Overrun);
        self.is_overrun = true;
    }

    fn put_gap(&mut self, gap: Gap) {
        if !matches!(self.unread.back(), Some(Received::Gap(_))) {
            self.unread.push_back(Received::Gap(gap));
        }
    }

    fn next(&mut self) -> Option<Received> {
        let next = self.unread.pop_front()?;
        match &next {
            Received::Notification(notification) => self.bytes -= size(notification),
            Received::Gap(_) => self.is_overrun &= !self.unread.is_empty(),
        }
        if self.unread.is_empty() {
            self.unread.shrink_to(FEW);
        }
        Some(next)
    }
}

impl From<tokio_postgres::Notification> for Notification {
    fn from(driver: tokio_postgres::Notification) -> Self {
        let (channel, payload) = (driver.channel().to_owned(), driver.payload().to_owned());
        Self { channel, payload, process_id: driver.process_id() }
    }
}

fn size(notification: &Notification) -> usize {
    notification.channel.len() + notification.payload.len() + EACH
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    const OLD: Source = 1;
    const NEW: Source = 2;

    fn of(channel: &str, payload: &str) -> Notification {
        Notification { channel: channel.to_owned(), payload: payload.to_owned(), process_id: 1 }
    }

    /// The payloads of all unread notifications. A gap is `-`.
    fn unread(inbox: &Inbox) -> String {
        let mut all = String::new();
        while let Poll::Ready(Some(received)) = inbox.poll_next(&Context::from_waker(Waker::noop())) {
            match received {
                Received::Notification(notification) => all += &notification.payload,
                Received::Gap(_) => all += "-",
            }
        }
        all
    }

    fn inbox() -> Inbox {
        let inbox = Inbox::default();
        inbox.take_from(OLD);
        inbox
    }

    fn put(inbox: &Inbox, source: Source, payloads: &str) {
        for payload in payloads.split("").filter(|payload| !payload.is_empty()) {
            let channel = if payload == "|" { "marker" } else { "channel" };
            inbox.put(source, of(channel, payload));
        }
    }

    /// Both connections get `abcd|efgh`, where `|` is the marker, and the new one only the end of it. Whatever the
    /// order in which their tasks read, each letter comes once and in order.
    #[test]
    fn a_change_of_connections_loses_and_repeats_nothing() {
        let all = "abcd|efgh";
        for begun_at in 0..=4 {
            for steps in 0..1_u32 << 9 {
                let inbox = inbox();
                put(&inbox, OLD, &all[..begun_at]);
                inbox.begin_change(NEW, "marker".to_owned());
                let (mut old, mut new) = (&all[begun_at..], &all[begun_at..]);
                for step in 0..18 {
                    let (source, left) = if steps >> (step / 2) & 1 == 0 { (OLD, &mut old) } else { (NEW, &mut new) };
                    let (one, rest) = left.split_at(left.len().min(1));
                    put(&inbox, source, one);
                    *left = rest;
                }
                put(&inbox, OLD, old);
                put(&inbox, NEW, new);
                assert_eq!(unread(&inbox), "abcdefgh", "{begun_at} {steps:b}");
                assert_eq!(inbox.state.lock().bytes, 0);
            }
        }
    }

    #[test]
    fn a_change_that_is_given_up_forgets_what_it_held() {
        let inbox = inbox();
        inbox.begin_change(NEW, "marker".to_owned());
        put(&inbox, NEW, "a|b");
        put(&inbox, OLD, "a");
        inbox.take_from(NEW);
        inbox.put_gap();
        put(&inbox, OLD, "c");
        put(&inbox, NEW, "c");
        assert_eq!(unread(&inbox), "a-c");
        assert_eq!(inbox.state.lock().bytes, 0);
    }

    #[test]
    fn what_does_not_fit_is_dropped_until_the_reader_has_come_to_the_gap() {
        let inbox = inbox();
        let large = "x".repeat(1 << 20);
        for _ in 0..20 {
            inbox.put(OLD, of("channel", &large));
        }
        put(&inbox, OLD, "a");
        inbox.put_gap();
        let mut whole = 0;
        let context = Context::from_waker(Waker::noop());
        loop {
            match inbox.poll_next(&context) {
                Poll::Ready(Some(Received::Notification(_))) => whole += 1,
                other => break assert_eq!(other, Poll::Ready(Some(Received::Gap(Gap::Overrun)))),
            }
            put(&inbox, OLD, "b");
        }
        assert_eq!(whole, 15, "notifications of 1 MiB, and their names");
        put(&inbox, OLD, "c");
        assert_eq!(unread(&inbox), "c", "the reader has come to the gap");
    }

    #[test]
    fn two_gaps_without_a_notification_between_them_are_one() {
        let inbox = inbox();
        inbox.put_gap();
        inbox.put_gap();
        put(&inbox, OLD, "a");
        inbox.put_gap();
        inbox.end();
        assert_eq!(unread(&inbox), "-a-");
        assert_eq!(inbox.poll_next(&Context::from_waker(Waker::noop())), Poll::Ready(None));
    }
}

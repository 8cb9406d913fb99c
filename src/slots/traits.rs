//! What the slots require of the layer above: a connection, and a way to make one.

use std::future::Future;
use std::time::Duration;

use crate::policy::Trouble;

/// What the slots need to know of a connection.
pub(crate) trait Connection: Send + Sync + Sized + 'static {
    /// Returns whether the connection is alive and still what was dialed.
    fn is_usable(&self) -> bool;

    /// Returns whether the pool has to settle the connection before the next caller may have it.
    fn needs_settling(&self) -> bool;

    /// A lease of this connection ends.
    fn on_lease_end(&mut self);

    /// A lease of this connection lasted so many seconds. The slots report only a fair sample of the leases. `is_cut`:
    /// a call on it was abandoned, so it would have lasted longer.
    fn on_lease_duration(&self, seconds: f64, is_cut: bool);

    /// Maintenance saw the connection idle.
    fn on_seen_idle(&self);

    /// The pool begins to settle the connection. Until that has ended, the last caller counts as its holder.
    fn on_settle(&self);

    /// The pool itself takes the connection, to check or close it, or has settled it. The last caller no longer holds
    /// it.
    fn on_maintenance(&mut self);

    /// Returns whether a call on the connection was abandoned before its end.
    fn has_abandoned_call(&self) -> bool;

    /// Cleans up after a lease. Returns whether the next caller may have the connection. The method bounds its own
    /// time.
    fn settle(&mut self) -> impl Future<Output = bool> + Send;

    /// Returns whether the server answers on the connection. The method does not bound its own time.
    fn ping(&self) -> impl Future<Output = bool> + Send;

    /// Makes [`close`](Self::close) wait until the server has ended the session.
    fn follow_to_end(&self);

    /// Ends the connection. Resolves when the server can be assumed to know. Dropping the future cuts the connection
    /// off.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// How the slots get connections.
pub(crate) trait Dial: Send + Sync + 'static {
    type Conn: Connection;
    type Error: Clone + Send + Sync + 'static;

    /// Makes one connection. The method bounds its own time. It calls `on_quiet` when the server has taken much longer
    /// than for other dials.
    fn dial(&self, on_quiet: impl FnOnce() + Send) -> impl Future<Output = Result<Self::Conn, Self::Error>> + Send;

    /// How long the pool waits for the server's answer to a health check.
    fn answer_limit(&self) -> Duration;

    /// Returns whether another dial may succeed soon.
    fn trouble(&self, error: &Self::Error) -> Trouble;

    /// Forgets what the server refused before, so that the next dial tries it again at once.
    fn forget_refusals(&self);

    /// The pool retires all connections made until now. A connection in use is retired when its lease ends.
    fn on_flush(&self);

    /// The pool serves no caller any more.
    fn on_close(&self) {}

    /// The error of a dial that did not end by itself: it panicked, or its runtime was shut down.
    fn abandoned() -> Self::Error;

    /// The error of a connection that was dead before its first use.
    fn failed_before_first_use() -> Self::Error;
}

//! Where a pool reports: to observers, to streams of events, to the `metrics` crate and to the `tracing` crate.
//!
//! The pool calls its observers at once, one after the other, where the event happens, and never under a lock. If one
//! panics, the pool and the other observers go on. A stream lets a service handle events in a task of its own. It is
//! bounded: if the service does not read it, it drops the oldest events.

#[cfg(feature = "cluster")]
mod cluster;
mod events;
mod fault;
#[cfg(feature = "metrics")]
mod metered;
#[cfg(feature = "tracing")]
mod traced;
#[cfg(not(feature = "metrics"))]
mod unmetered;
#[cfg(not(feature = "tracing"))]
mod untraced;

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use tokio::sync::broadcast::Sender;

#[cfg(feature = "cluster")]
pub(crate) use self::cluster::{REFUSED, ReadRoute};
pub use self::events::Events;
pub(crate) use self::fault::Fault;
#[cfg(feature = "metrics")]
#[cfg(all(feature = "cluster", feature = "metrics"))]
pub(crate) use self::metered::ClusterMeter;
#[cfg(feature = "metrics")]
pub(crate) use self::metered::{Given, Meter, Stamp};
#[cfg(feature = "tracing")]
pub(crate) use self::traced::{Server, Span, Tracer};
#[cfg(all(feature = "cluster", not(feature = "metrics")))]
pub(crate) use self::unmetered::ClusterMeter;
#[cfg(not(feature = "metrics"))]
pub(crate) use self::unmetered::{Given, Meter, Stamp};
#[cfg(not(feature = "tracing"))]
pub(crate) use self::untraced::{Server, Span, Tracer};
use crate::event::{Event, EventKind};

/// The number of events that a stream keeps for its reader.
const KEPT: usize = 1_024;
/// The panic of a future that is polled after its end.
const POLLED: &str = "a wait is not polled after its end";
/// An observer may cause further events, whose observers may do the same. Deeper than this, no observer is called.
const DEEPEST: u32 = 4;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Gets each event of a pool.
///
/// Any `Fn(&Event)` is an observer. It runs where the event happens, which may delay a caller. So it must not block,
/// and hands longer work to another task. It may use the pool. Events that it causes are reported as well, but only
/// four levels deep, so an observer cannot answer its own events for ever.
pub trait Observer: Send + Sync + 'static {
    /// An event happened. The pool catches a panic of this method, after the panic hook has run.
    fn on_event(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync + 'static> Observer for F {
    fn on_event(&self, event: &Event) {
        self(event);
    }
}

/// The observers of a pool.
#[derive(Clone, Default)]
pub(crate) struct Observers(Vec<Arc<dyn Observer>>);

impl Observers {
    pub(crate) fn add(&mut self, observer: impl Observer) {
        self.0.push(Arc::new(observer));
    }

    pub(crate) fn extend(&mut self, observer: Option<Arc<dyn Observer>>) {
        self.0.extend(observer);
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} observers", self.0.len())
    }
}

/// Passes events to the observers and the streams of a pool. The streams end when it is dropped.
pub(crate) struct Telemetry {
    pool: Arc<str>,
    observers: Observers,
    /// Created for the first reader, because it allocates all its memory at once and most pools have no reader.
    stream: OnceLock<Sender<Arc<Event>>>,
}

impl Telemetry {
    pub(crate) fn new(pool: Arc<str>, observers: Observers) -> Self {
        Self { pool, observers, stream: OnceLock::new() }
    }

    pub(crate) fn pool(&self) -> Arc<str> {
        Arc::clone(&self.pool)
    }

    /// Returns whether there is an observer or a reader. If not, events need not be made.
    pub(crate) fn is_heard(&self) -> bool {
        !self.observers.0.is_empty() || self.stream.get().is_some_and(|stream| stream.receiver_count() > 0)
    }

    /// Passes an event on, on this thread. Must not be called under a lock.
    pub(crate) fn emit(&self, kind: EventKind) {
        if !self.is_heard() {
            return;
        }
        let event = Arc::new(Event::new(Arc::clone(&self.pool), SystemTime::now(), kind));
        if let Some(stream) = self.stream.get() {
            // An error means that there is no reader any more.
            let _ = stream.send(Arc::clone(&event));
        }
        let Some(_deeper) = Deeper::enter() else { return };
        for observer in &self.observers.0 {
            let _ = catch_unwind(AssertUnwindSafe(|| observer.on_event(&event)));
        }
    }

    /// Passes on an event of another pool, as it is.
    #[cfg(feature = "cluster")]
    pub(crate) fn pass_on(&self, event: &Event) {
        if let Some(stream) = self.stream.get() {
            let _ = stream.send(Arc::new(event.clone()));
        }
        let Some(_deeper) = Deeper::enter() else { return };
        for observer in &self.observers.0 {
            let _ = catch_unwind(AssertUnwindSafe(|| observer.on_event(event)));
        }
    }

    /// A stream of the events from now on.
    pub(crate) fn events(&self) -> Events {
        Events::new(self.stream.get_or_init(|| Sender::new(KEPT)).subscribe())
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("pool", &self.pool)
            .field("observers", &self.observers)
            .finish_non_exhaustive()
    }
}

/// An observer is running on this thread.
struct Deeper;

impl Deeper {
    fn enter() -> Option<Self> {
        let depth = DEPTH.get();
        (depth < DEEPEST).then(|| {
            DEPTH.set(depth + 1);
            Self
        })
    }
}

impl Drop for Deeper {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

#[cfg(test)]
mod tests;

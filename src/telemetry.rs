//! Who is told what a pool has to say: its observers, and whoever reads its stream of events.
//!
//! Observers are called at once, one after the other, where the event arose, and never under a lock. One that panics harms neither the pool nor the
//! others. The stream is for those who would rather be told in a task of their own: it is bounded, and one that is not read loses the oldest.

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

pub use self::events::Events;
pub(crate) use self::fault::Fault;
#[cfg(feature = "metrics")]
pub(crate) use self::metered::{Given, Meter, Stamp};
#[cfg(feature = "tracing")]
pub(crate) use self::traced::{Server, Span, Tracer};
#[cfg(not(feature = "metrics"))]
pub(crate) use self::unmetered::{Given, Meter, Stamp};
#[cfg(not(feature = "tracing"))]
pub(crate) use self::untraced::{Server, Span, Tracer};
use crate::event::{Event, EventKind};

/// Events that a stream keeps for its reader.
const KEPT: usize = 1_024;
/// Whoever polls a future once more than it is for is wrong.
const POLLED: &str = "a wait is not polled after its end";
/// An observer may do what is an event again, and so on; it is not told deeper than this.
const DEEPEST: u32 = 4;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Is told of each event of a pool.
///
/// Any `Fn(&Event)` is one. It runs where the event arose, which may be in a caller's way: it should hand over what takes long, and must not block. It may use the
/// pool; what comes of that is told like everything else, though an observer that answers its own events for ever is not told for ever.
pub trait Observer: Send + Sync + 'static {
    /// Something happened. A panic here is caught, after it has had its say on stderr.
    fn on_event(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync + 'static> Observer for F {
    fn on_event(&self, event: &Event) {
        self(event);
    }
}

/// Those who are told.
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

/// Tells everybody who wants to know. When it is gone, the streams end.
pub(crate) struct Telemetry {
    pool: Arc<str>,
    observers: Observers,
    /// Made for the first who reads it: most pools have no reader, and its memory is there from the start.
    stream: OnceLock<Sender<Arc<Event>>>,
}

impl Telemetry {
    pub(crate) fn new(pool: Arc<str>, observers: Observers) -> Self {
        Self { pool, observers, stream: OnceLock::new() }
    }

    pub(crate) fn pool(&self) -> Arc<str> {
        Arc::clone(&self.pool)
    }

    /// Whether anybody listens. If not, the caller may spare itself what an event costs.
    pub(crate) fn is_heard(&self) -> bool {
        !self.observers.0.is_empty() || self.stream.get().is_some_and(|stream| stream.receiver_count() > 0)
    }

    /// Tells everybody, on this thread. Never to be called under a lock.
    pub(crate) fn emit(&self, kind: EventKind) {
        if !self.is_heard() {
            return;
        }
        let event = Arc::new(Event::new(Arc::clone(&self.pool), SystemTime::now(), kind));
        if let Some(stream) = self.stream.get() {
            // Nobody reads any more: then nobody misses it.
            let _ = stream.send(Arc::clone(&event));
        }
        let Some(_deeper) = Deeper::enter() else { return };
        for observer in &self.observers.0 {
            let _ = catch_unwind(AssertUnwindSafe(|| observer.on_event(&event)));
        }
    }

    /// What happens from now on.
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

/// An observer is being told on this thread.
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

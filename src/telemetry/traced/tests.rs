use std::fmt::Debug;
use std::future::{pending, ready};
use std::pin::pin;
use std::sync::LazyLock;
use std::task::Waker;
use std::time::SystemTime;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Subscriber, with_default};
use tracing::{Dispatch, Metadata, subscriber};

use super::*;
use crate::error::ErrorKind;
use crate::event::EventKind;

/// A subscriber that keeps a line for each span and each event.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0 += &format!(" {field}={value:?}");
    }
}

/// A second subscriber, which lives until the process ends. While there is only one, `tracing` asks the thread that
/// reaches a span first, which may have none, and remembers its "no" for all threads.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Notes::default()));

impl Notes {
    /// Keeps what `work` writes.
    fn during(&self, work: impl FnOnce()) {
        LazyLock::force(&SECOND);
        with_default(self.clone(), work);
    }

    fn write(&self, line: Line) {
        self.0.lock().push(line.0);
    }

    fn take(&self) -> Vec<String> {
        mem::take(&mut self.0.lock())
    }
}

impl Subscriber for Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("failfast")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line(format!("begin {}", span.metadata().name()));
        span.record(&mut line);
        self.write(line);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line("record".into());
        values.record(&mut line);
        self.write(line);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(format!("{} {}", event.metadata().level(), event.metadata().target()));
        event.record(&mut line);
        self.write(line);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}

    fn try_close(&self, _: Id) -> bool {
        self.write(Line("end".into()));
        true
    }
}

fn tracer() -> Tracer {
    Tracer::new("orders", &"postgres://app:secret@localhost/shop".parse().unwrap())
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[test]
fn each_event_is_a_line_at_its_level() {
    let notes = Notes::default();
    let observer = tracer().log().unwrap();
    notes.during(|| {
        for kind in [
            EventKind::Drained { left: 0, took: std::time::Duration::from_secs(1) },
            EventKind::SettleFailed { count: 2, ago: std::time::Duration::ZERO },
        ] {
            observer.on_event(&Event::new("orders".into(), SystemTime::now(), kind));
        }
    });
    let [info, warning] = notes.take().try_into().unwrap();
    assert!(info.starts_with("INFO failfast message=pool orders: "), "{info}");
    assert_eq!(warning, "WARN failfast message=pool orders: closed 2 connections: the clean-up failed pool=\"orders\"");
}

#[test]
fn a_wait_that_ends_at_once_has_no_span() {
    let (notes, tracer) = (Notes::default(), tracer());
    notes.during(|| {
        let mut served = pin!(tracer.wait(ready(())));
        assert!(served.as_mut().poll(&mut context()).is_ready());
        assert_eq!(notes.take(), [""; 0]);
        let mut waits = Box::pin(tracer.wait(pending::<()>()));
        assert!(waits.as_mut().poll(&mut context()).is_pending());
        assert!(waits.as_mut().poll(&mut context()).is_pending());
        let [begin] = notes.take().try_into().unwrap();
        assert!(begin.starts_with("begin acquire"), "{begin}");
        drop(waits);
        assert_eq!(notes.take(), ["end"]);
    });
}

#[test]
fn a_span_that_no_subscriber_wants_is_null() {
    let tracer = tracer();
    with_default(subscriber::NoSubscriber::default(), || {
        let span = tracer.call(None, "query");
        assert!(span.0.is_none());
        let mut scope = pin!(span.scope(ready(1)));
        assert_eq!(scope.as_mut().poll(&mut context()), Poll::Ready(1));
    });
    assert_eq!(size_of::<Span>(), size_of::<usize>());
}

#[test]
fn a_server_has_an_address_and_a_port_or_is_a_socket() {
    for (place, address, port) in [
        ("10.0.0.7:5432", "10.0.0.7", Some(5432)),
        ("[::1]:6432", "::1", Some(6432)),
        ("/run/postgresql/.s.PGSQL.5432", "/run/postgresql/.s.PGSQL.5432", None),
    ] {
        let server = Server::at(place);
        assert_eq!((server.address.as_str(), server.port), (address, port));
    }
}

#[test]
fn an_error_of_the_server_is_recorded_by_its_sqlstate_alone() {
    let (notes, tracer) = (Notes::default(), tracer());
    notes.during(|| {
        let span = tracer.call(None, "query");
        notes.take();
        span.with(Error::Closed);
        span.failed(Fault::of(ErrorKind::Postgres, *b"23505"));
        span.failed(Fault::default());
    });
    let lines = notes.take();
    let types: Vec<_> = lines.iter().filter(|line| line.contains("error.type")).collect();
    assert_eq!(types, ["record error.type=\"closed\"", "record error.type=\"23505\"", "record error.type=\"_OTHER\""]);
    let states = lines.iter().filter(|line| line.contains("status_code=\"23505\"")).count();
    assert_eq!(states, 1, "{lines:?}");
}

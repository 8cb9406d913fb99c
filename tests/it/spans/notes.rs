//! A `tracing` subscriber that keeps all spans and events of this thread.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, LazyLock, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

/// A second subscriber, which lives until the process ends. While there is only one, `tracing` asks the thread that
/// reaches a span first, which may have none, and remembers its "no" for all threads.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Registry::default()));

/// The spans and events of the futures polled on this thread since `begin`.
pub(crate) struct Notes {
    book: Book,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Book(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    spans: Vec<Span>,
    events: Vec<Fields>,
}

#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) number: usize,
    pub(crate) parent: Option<usize>,
    pub(crate) name: &'static str,
    pub(crate) target: &'static str,
    pub(crate) is_over: bool,
    fields: Fields,
}

#[derive(Debug, Clone, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Span {
    pub(crate) fn get(&self, field: &str) -> Option<&str> {
        self.fields.0.get(field).map(String::as_str)
    }
}

impl Notes {
    pub(crate) fn begin() -> Self {
        LazyLock::force(&SECOND);
        let book = Book::default();
        let guard = set_default(Registry::default().with(book.clone()));
        Self { book, _guard: guard }
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.book.0.lock().unwrap().spans.clone()
    }

    pub(crate) fn last(&self) -> Span {
        self.spans().pop().unwrap()
    }

    /// Returns the first span of this operation.
    pub(crate) fn find(&self, operation: &str) -> Span {
        let found = self.spans().into_iter().find(|span| span.get("db.operation.name") == Some(operation));
        found.unwrap_or_else(|| panic!("no {operation}:\n{}", self.tree()))
    }

    /// Returns a line for each span in the order of their beginnings, indented by depth.
    fn lines(&self, line: impl Fn(&Span) -> String) -> Vec<String> {
        let spans = self.spans();
        let depth = |span: &Span| std::iter::successors(span.parent, |parent| spans[*parent].parent).count();
        spans.iter().map(|span| "  ".repeat(depth(span)) + &line(span)).collect()
    }

    pub(crate) fn tree(&self) -> String {
        let name =
            |span: &Span| [Some(span.name), span.get("otel.name")].into_iter().flatten().collect::<Vec<_>>().join(" ");
        self.lines(name).into_iter().map(|line| line + "\n").collect()
    }

    /// Returns the lines of the tree without the database.
    pub(crate) fn names(&self) -> Vec<String> {
        let database = |span: &Span| format!(" {}", span.get("db.namespace").unwrap_or_default());
        self.lines(|span| {
            let title = span.get("otel.name").unwrap_or_default();
            format!("{} {}", span.name, title.trim_end_matches(&database(span))).trim_end().to_owned()
        })
    }

    pub(crate) fn operations(&self) -> Vec<String> {
        self.lines(|span| span.get("db.operation.name").unwrap_or(span.name).to_owned())
    }

    pub(crate) fn everything(&self) -> String {
        let pages = self.book.0.lock().unwrap();
        format!("{:#?}\n{:#?}", pages.spans, pages.events)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Book {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let parent = span.parent().map(|parent| *parent.extensions().get::<usize>().unwrap());
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let mut pages = self.0.lock().unwrap();
        let number = pages.spans.len();
        span.extensions_mut().insert(number);
        let metadata = span.metadata();
        let (name, target) = (metadata.name(), metadata.target());
        pages.spans.push(Span { number, parent, name, target, is_over: false, fields });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let number = *context.span(id).unwrap().extensions().get::<usize>().unwrap();
        values.record(&mut self.0.lock().unwrap().spans[number].fields);
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.lock().unwrap().events.push(fields);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let number = *context.span(&id).unwrap().extensions().get::<usize>().unwrap();
        self.0.lock().unwrap().spans[number].is_over = true;
    }
}

//! The task that asks what the server's processes wait for while callers hold their connections. It runs only while
//! leases take longer than usual, and has one connection, which takes no slot of the pool and serves no caller.
//!
//! A look is one statement. It calls the function behind `pg_stat_activity`, without the view's joins. A role may see
//! what its own sessions wait for. Behind a pooler, the processes that the pool knows are not the server's: then
//! nothing is known, and the pool never shrinks for it.

use std::collections::HashMap;
use std::fmt::Write;
use std::pin::pin;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::select;
use tokio::runtime::Handle;
use tokio::time;

use super::control::AdaptiveLimit;
use crate::clock::now;
use crate::conn::{Dialer, Scouting};
use crate::holder::HolderState;
use crate::operation::Operation;
use crate::policy::Wait;
use crate::slots::Slots;

/// The pause between two samples.
const APART: Duration = Duration::from_secs(1);
/// An answer that takes longer is none. The connection is closed then.
const LIMIT: Duration = Duration::from_secs(2);
/// The pause after a sample that failed.
const AGAIN: Duration = Duration::from_secs(5);
/// The same behind a pooler.
const POOLER: Duration = Duration::from_secs(60);
/// At most so many processes are asked about.
const MOST: usize = 256;

const WHO: &str = "SELECT pg_catalog.pg_backend_pid()";

/// Why there is no sample.
enum Trouble {
    Pooler,
    Other(String),
}

/// The right to run the task, of which a pool has one.
struct Running(Arc<AdaptiveLimit>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.is_asking.store(false, SeqCst);
    }
}

impl AdaptiveLimit {
    /// Starts the task if samples are wanted, unless it runs, or there is no runtime.
    pub(crate) fn ask_if_wanted(self: &Arc<Self>, slots: &Arc<Slots<Dialer>>) {
        let Ok(runtime) = Handle::try_current() else { return };
        if self.controller.lock().wants_waits() && !self.is_asking.swap(true, SeqCst) {
            runtime.spawn(run(Running(Arc::clone(self)), Arc::downgrade(slots)));
        }
    }
}

/// Runs while the samples are wanted, and until the pool is closed.
async fn run(running: Running, slots: Weak<Slots<Dialer>>) {
    let Some(mut orders) = slots.upgrade().map(|slots| slots.dialer().listen_control().orders()) else { return };
    let closed = orders.wait_for(|orders| orders.is_closed);
    select(pin!(ask_while_wanted(&running.0, &slots)), pin!(closed)).await;
}

async fn ask_while_wanted(adaptive: &AdaptiveLimit, slots: &Weak<Slots<Dialer>>) {
    let mut connection = None;
    while adaptive.controller.lock().wants_waits() {
        let Some(slots) = slots.upgrade() else { return };
        let done = sample(adaptive, &slots, &mut connection).await;
        drop(slots);
        let (trouble, pause) = match done {
            Ok(()) => (None, APART),
            Err(Trouble::Pooler) => (Some("a pooler answers in place of the server".to_owned()), POOLER),
            Err(Trouble::Other(reason)) => (Some(reason), AGAIN),
        };
        if trouble.is_some() {
            connection = None;
        }
        *adaptive.trouble.lock() = trouble;
        time::sleep(pause).await;
    }
}

async fn sample(
    adaptive: &AdaptiveLimit,
    slots: &Slots<Dialer>,
    connection: &mut Option<Scouting>,
) -> Result<(), Trouble> {
    if connection.is_none() {
        *connection = Some(connect(slots).await?);
    }
    let Some(connection) = connection else { return Ok(()) };
    let asked = now();
    let holders = adaptive.registry.holders(asked, || slots.look_at_idle(asked));
    let holders = holders.iter().filter(|holder| holder.state != HolderState::Settling);
    let operations: HashMap<i32, Operation> =
        holders.filter_map(|holder| Some((holder.process_id?, holder.operation))).take(MOST).collect();
    if operations.is_empty() {
        return Ok(());
    }
    let row = connection.ask(&question(operations.keys()), LIMIT).await.map_err(Trouble::Other)?;
    adaptive.controller.lock().on_waits(now(), answer(&row, &operations));
    Ok(())
}

async fn connect(slots: &Slots<Dialer>) -> Result<Scouting, Trouble> {
    let connection = slots.dialer().scout().await.map_err(Trouble::Other)?;
    let row = connection.ask(WHO, LIMIT).await.map_err(Trouble::Other)?;
    let process: Option<i32> = row.first().and_then(|column| column.as_deref()?.parse().ok());
    // A pooler begins the session by itself, with a process of its own invention.
    if process.is_none() || connection.process_id() != process {
        return Err(Trouble::Pooler);
    }
    Ok(connection)
}

/// Asks about these processes: one row, each process in a line of its own.
fn question<'a>(processes: impl Iterator<Item = &'a i32>) -> String {
    let mut list = String::new();
    for process in processes {
        let _ = write!(list, "{}{process}", if list.is_empty() { "" } else { "," });
    }
    format!(
        "SELECT pg_catalog.string_agg(pg_catalog.concat(pid, '|', state, '|', wait_event_type), pg_catalog.chr(10)) \
         FROM pg_catalog.pg_stat_get_activity(NULL) WHERE pid IN ({list})"
    )
}

/// Reads the answer. A line that makes no sense, or that the role may not see, says nothing.
fn answer(row: &[Option<String>], operations: &HashMap<i32, Operation>) -> Vec<(Operation, Wait)> {
    let lines = row.first().and_then(Option::as_deref).unwrap_or_default().lines();
    let line = |line: &str| {
        let mut parts = line.splitn(3, '|');
        let operation = operations.get(&parts.next()?.parse().ok()?)?;
        Some((*operation, Wait::of(parts.next()?, parts.next()?)?))
    };
    lines.filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_is_a_line_of_the_answer() {
        let (read, update) = (Operation::Named("read"), Operation::Named("update"));
        let operations = HashMap::from([(7, read), (8, update), (9, read)]);
        let text = "7|active|\n8|active|Lock\n9||\n10|active|Lock\nx|active|Lock\n8";
        assert_eq!(answer(&[Some(text.to_owned())], &operations), [(read, Wait::Server), (update, Wait::Lock)]);
        assert!(answer(&[None], &operations).is_empty() && answer(&[], &operations).is_empty());
    }

    #[test]
    fn the_question_names_each_process() {
        assert!(question([4, 11].iter()).ends_with("WHERE pid IN (4,11)"));
    }
}

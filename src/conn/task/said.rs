//! What the server says unasked: notices and warnings.
//!
//! Each goes to the `log` crate, where tokio-postgres puts it for whoever drives a connection without a pool. A warning is also reported to the pool,
//! which makes an event of it.

use log::info;
use tokio_postgres::AsyncMessage;
use tokio_postgres::error::Severity;

use crate::conn::{ConnectionEvent, OutcomeRecorder};
use crate::error::one_line;

/// Of tokio-postgres: filters that a service has for it stay true.
const TARGET: &str = "tokio_postgres::connection";
/// A server that ends sessions says so in these classes. The end of the connection is reported with them.
const ENDS: &str = "57P";

pub(super) fn pass_on(message: &AsyncMessage, recorder: &OutcomeRecorder) {
    let AsyncMessage::Notice(notice) = message else { return };
    let said = one_line(notice.message());
    info!(target: TARGET, "{}: {said}", one_line(notice.severity()));
    let is_warning = match notice.parsed_severity() {
        Some(severity) => severity == Severity::Warning,
        None => notice.severity() == "WARNING",
    };
    if is_warning && !notice.code().code().starts_with(ENDS) {
        recorder.tell(ConnectionEvent::Warned { message: said.into_owned(), sqlstate: notice.code().clone() });
    }
}

//! One connection to the server. [`dial`] makes it, a [`Conn`] holds it, and a caller gets it as a [`Client`].

mod asked_for;
mod call_options;
mod calls;
mod cancel;
mod client;
#[cfg(feature = "cluster")]
mod committed_at;
mod connection;
mod connection_event;
mod dial;
mod handling;
mod inbox;
mod lease_registry;
mod link;
mod listening;
mod orphans;
mod outcome_recorder;
mod pooled;
#[cfg(feature = "testing")]
mod pretended;
mod reset;
mod round_trips;
mod scouting;
mod set_up;
mod settle;
mod statement_timeout;
mod stream;
mod task;
#[cfg(test)]
mod tests;
mod trail;
mod transaction;
mod wire;

pub(crate) use self::call_options::CallOptions;
pub use self::calls::copy::CopyIn;
pub use self::calls::copy::binary::{BinaryCopyIn, BinaryCopyOut};
pub use self::calls::copy::out::CopyOut;
pub use self::calls::rows::RowStream;
pub use self::calls::statements::AsStatement;
pub(crate) use self::calls::watcher::ReadingLimits;
pub use self::client::Client;
#[cfg(feature = "cluster")]
pub(crate) use self::committed_at::CommittedAt;
pub(crate) use self::connection::Conn;
pub(crate) use self::connection_event::{ConnectionEvent, Role};
pub(crate) use self::dial::Dialer;
pub use self::dial::credentials::Credentials;
pub(crate) use self::dial::hooks::Hooks;
pub(crate) use self::dial::listen_control::Orders;
pub(crate) use self::dial::secure::Connector;
pub use self::dial::server_timeouts::ServerTimeouts;
pub use self::dial::socket::Socket;
pub use self::handling::Reset;
pub(crate) use self::handling::{Handling, Listeners};
pub(crate) use self::inbox::Inbox;
pub use self::inbox::{Gap, Notification, Received};
pub(crate) use self::lease_registry::LeaseRegistry;
pub(crate) use self::listening::{Channels, Listening};
pub(crate) use self::outcome_recorder::{IsFailure, OutcomeRecorder};
pub(crate) use self::scouting::Scouting;
pub(crate) use self::trail::Trail;
pub use self::transaction::{Transaction, TransactionOptions};
#[cfg(fuzzing)]
pub use self::wire::fuzz as fuzz_wire;

//! Tests with a real server. They are one binary, so that all of them share one container.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[cfg(feature = "fleet")]
mod adaptive;
#[cfg(all(feature = "admin", feature = "axum"))]
mod admin;
#[cfg(feature = "axum")]
mod answers;
mod blame;
mod breaker;
mod bulk;
mod cases;
#[cfg(feature = "cluster")]
mod cluster;
mod ddl;
mod dial;
mod dropin;
mod errors;
#[cfg(all(feature = "axum", feature = "prometheus", feature = "testing"))]
mod example_axum;
#[cfg(feature = "axum")]
mod extractors;
mod failure_semantics;
mod fallbacks;
#[cfg(feature = "fleet")]
mod fleet;
#[cfg(all(feature = "backoff", feature = "failsafe"))]
mod foreign;
mod guard;
mod holders;
mod lanes;
mod layers;
mod ledger;
mod limits;
mod listen;
#[cfg(feature = "prometheus")]
mod metrics;
mod monitoring;
mod outcomes;
mod panics;
mod patroni;
mod pool;
#[cfg(feature = "preflight")]
mod preflight;
#[cfg(feature = "testing")]
mod pretend;
#[cfg(all(feature = "axum", feature = "prometheus"))]
mod production;
mod proxy;
mod rates;
mod replicated;
mod retries;
mod said;
mod server;
mod service;
mod session;
#[cfg(feature = "serde")]
mod settings;
mod soak;
#[cfg(feature = "tracing")]
mod spans;
mod statements;
mod support;
#[cfg(feature = "testing")]
mod test_database;
mod throwaway;
#[cfg(feature = "serde")]
mod tiers;
mod transactions;
mod upkeep;
mod weight;

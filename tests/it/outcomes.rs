//! Compares what a caller learns of a call with what happened: cut calls, broken streams, and servers that misbehave.

#[cfg(all(feature = "native-tls", feature = "rustls"))]
mod cuts;
mod misbehaving;
#[cfg(feature = "prometheus")]
mod streams;

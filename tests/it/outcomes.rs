//! What a caller is told of a call, and what is true: of calls that are cut, of streams that break, and of servers that misbehave.

#[cfg(all(feature = "native-tls", feature = "rustls"))]
mod cuts;
mod misbehaving;
#[cfg(feature = "prometheus")]
mod streams;

//! Ready TLS connectors for [`PoolBuilder::build_tls`](crate::PoolBuilder::build_tls).
//!
//! Each wants the server's certificate to come from a known authority and to be for the host of the connection string. The
//! authorities are those that this machine trusts, or only those that are given.
//!
//! ```no_run
//! # #[cfg(feature = "rustls")]
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = "postgres://app@db.example.com/orders?sslmode=require".parse()?;
//! let pool = failfast::Pool::builder(config).build_tls(failfast::tls::rustls()?)?;
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "native-tls")]
mod native;
#[cfg(feature = "rustls")]
mod pure;

#[cfg(feature = "native-tls")]
pub use self::native::{native_tls, native_tls_with_ca};
#[cfg(feature = "rustls")]
pub use self::pure::{rustls, rustls_with_ca};

//! Ready TLS connectors for [`PoolBuilder::build_tls`](crate::PoolBuilder::build_tls).
//!
//! Both follow the connection string that [`Pool::builder_by_url`](crate::Pool::builder_by_url) or `Settings::url` was
//! given, with the same meaning:
//!
//! | connection string | verified |
//! |---|---|
//! | `sslmode=disable` | nothing: TLS is not used |
//! | `sslmode=prefer` (the default), `require` | an authority of this machine and the host's name. With `sslmode=prefer`, a server that offers no TLS is accepted |
//! | the same, with `sslrootcert=FILE` | an authority of the file, not the host's name |
//! | `sslmode=verify-ca` with `sslrootcert=FILE` | the same; TLS is required |
//! | `sslmode=verify-full`, with or without `sslrootcert=FILE` | an authority of the file, or else of this machine, and the host's name |
//! | `sslrootcert=system` | as `sslmode=verify-full` without a file |
//!
//! `sslcert=FILE` and `sslkey=FILE` are the certificate and the key that the pool shows to the server. All files are
//! PEM. They are read when the pool is built, which fails if one cannot be used, and again at each dial, on the thread
//! that dials: a certificate may be renewed while the pool runs, and should be on a local disk. A key must not be
//! readable for others, as libpq demands: mode 0600, or 0640 if root owns it. It must not be encrypted; native-tls
//! takes PKCS#8 only (`BEGIN PRIVATE KEY`).
//!
//! A self-signed server certificate may be its own authority, as in PostgreSQL's manual. The host is looked for among
//! the certificate's alternative names. Only if it has none and the authorities are given, its common name counts.
//!
//! ```no_run
//! # #[cfg(feature = "rustls")]
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let url = "postgres://app@db.example.com/orders?sslmode=verify-full&sslrootcert=/etc/orders/ca.crt";
//! let pool = failfast::Pool::builder_by_url(url)?.build_tls(failfast::tls::rustls()?)?;
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "native-tls")]
mod native_tls;
mod reload;
#[cfg(feature = "rustls")]
mod rustls;
mod source;
#[cfg(feature = "rustls")]
mod verifier;

#[cfg(feature = "native-tls")]
pub use self::native_tls::{NativeTls, native_tls, native_tls_with_ca};
#[cfg(feature = "rustls")]
pub use self::rustls::{Rustls, rustls, rustls_with_ca};

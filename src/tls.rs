//! Ready TLS connectors for [`PoolBuilder::build_tls`](crate::PoolBuilder::build_tls).
//!
//! Both follow the connection string of [`Pool::builder_by_url`](crate::Pool::builder_by_url) or `Settings::url`, with
//! the same meaning:
//!
//! | connection string | the connector verifies |
//! |---|---|
//! | `sslmode=disable` | nothing: TLS is not used |
//! | `sslmode=prefer` (the default), `require` | an authority of this machine and the host's name. With `prefer`, the pool also accepts a server without TLS |
//! | the same, with `sslrootcert=FILE` | an authority of the file, not the host's name |
//! | `sslmode=verify-ca` with `sslrootcert=FILE` | the same; TLS is required |
//! | `sslmode=verify-full`, with or without `sslrootcert=FILE` | an authority of the file, or else of this machine, and the host's name |
//! | `sslrootcert=system` | as `sslmode=verify-full` without a file |
//!
//! `sslcert=FILE` and `sslkey=FILE` are the certificate that the pool shows to the server, and its key. All files are
//! PEM. The pool reads them when it is built, which fails if one cannot be used. It reads them again at each dial, so a
//! certificate may be renewed while the pool runs. The thread that dials reads them, so they should be on a local disk.
//!
//! As in libpq, others must not be able to read a key: its mode is 0600, or 0640 if root owns it. It must not be
//! encrypted. native-tls takes only PKCS#8 (`BEGIN PRIVATE KEY`).
//!
//! A self-signed server certificate may be its own authority, as in PostgreSQL's manual. The connector looks for the
//! host among the certificate's alternative names. The common name counts only if the certificate has no alternative
//! names and the authorities are given.
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

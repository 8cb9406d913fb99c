//! The platform's own TLS: OpenSSL, Secure Transport or SChannel.

use native_tls::{Certificate, Identity, TlsConnector};
use postgres_native_tls::{MakeTlsConnector, set_postgresql_alpn};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::tls::MakeTlsConnect;

use super::reload::Reloaded;
use super::source::{Material, Source};
use crate::connection_string::TlsOptions;
use crate::error::ConfigError;

/// A connector that uses the platform's TLS. Made by [`native_tls()`] and [`native_tls_with_ca`].
#[cfg_attr(docsrs, doc(cfg(feature = "native-tls")))]
#[derive(Debug, Clone)]
pub struct NativeTls(Reloaded<MakeTlsConnector>);

/// The platform's TLS, with the authorities that the connection string names, or otherwise those that this machine
/// trusts.
///
/// # Errors
///
/// None today. If the platform's TLS cannot be used, the dial fails with
/// [`ConnectErrorKind::Tls`](crate::ConnectErrorKind::Tls).
#[cfg_attr(docsrs, doc(cfg(feature = "native-tls")))]
pub fn native_tls() -> Result<NativeTls, ConfigError> {
    Reloaded::new(Source::machine(), build).map(NativeTls)
}

/// The platform's TLS, with only the authorities in `pem`: one certificate after another.
///
/// # Errors
///
/// [`ConfigError`] if `pem` has no certificate, or if the platform's TLS cannot be used.
#[cfg_attr(docsrs, doc(cfg(feature = "native-tls")))]
pub fn native_tls_with_ca(pem: &[u8]) -> Result<NativeTls, ConfigError> {
    Reloaded::new(Source::given(pem), build).map(NativeTls)
}

impl NativeTls {
    pub(crate) fn following(&self, options: &TlsOptions) -> Result<Self, ConfigError> {
        self.0.following(options).map(Self)
    }
}

impl<S> MakeTlsConnect<S> for NativeTls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = <MakeTlsConnector as MakeTlsConnect<S>>::Stream;
    type TlsConnect = <MakeTlsConnector as MakeTlsConnect<S>>::TlsConnect;
    type Error = ConfigError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, ConfigError> {
        let connect = <MakeTlsConnector as MakeTlsConnect<S>>::make_tls_connect(&mut self.0.current()?, host);
        connect.map_err(unusable)
    }
}

fn build(material: &Material) -> Result<MakeTlsConnector, ConfigError> {
    let mut builder = TlsConnector::builder();
    if let Some(pem) = &material.roots {
        let authorities = Certificate::stack_from_pem(&pem.bytes).unwrap_or_default();
        if authorities.is_empty() {
            return Err(pem.without_certificate());
        }
        builder.disable_built_in_roots(true);
        for authority in authorities {
            builder.add_root_certificate(authority);
        }
    }
    if let Some((certificate, key)) = &material.identity {
        let identity =
            Identity::from_pkcs8(&certificate.bytes, &key.bytes).map_err(|error| match error.to_string() {
                problem if problem.contains("PKCS#8") => {
                    key.refused("must be a PKCS#8 key: openssl pkcs8 -topk8 -nocrypt -in KEY -out NEW")
                }
                problem => certificate.refused(format!("cannot be used with the key of sslkey: {problem}")),
            })?;
        builder.identity(identity);
    }
    builder.danger_accept_invalid_hostnames(!material.verifies_name); // native-tls still verifies the authority
    set_postgresql_alpn(&mut builder); // sslnegotiation=direct needs it
    let connector = builder.build().map_err(|error| match &material.identity {
        Some((_, key)) => key.does_not_fit(error),
        None => unusable(error),
    })?;
    Ok(MakeTlsConnector::new(connector))
}

fn unusable(error: native_tls::Error) -> ConfigError {
    ConfigError::new("native_tls", error, "the platform's TLS cannot be used")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_authorities_there_is_no_connector() {
        let error = native_tls_with_ca(b"no certificate").expect_err("a bad setting");
        assert_eq!(error.to_string(), "authorities = given: no certificate can be read");
    }
}

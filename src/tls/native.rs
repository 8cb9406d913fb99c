//! The platform's own TLS: OpenSSL, Secure Transport or SChannel.

use native_tls::{Certificate, TlsConnector, TlsConnectorBuilder};
use postgres_native_tls::{MakeTlsConnector, set_postgresql_alpn};

use crate::error::ConfigError;

/// The platform's TLS, with the authorities that this machine trusts. Make it once.
///
/// # Errors
///
/// [`ConfigError`] if the platform's TLS cannot be used.
#[cfg_attr(docsrs, doc(cfg(feature = "native-tls")))]
pub fn native_tls() -> Result<MakeTlsConnector, ConfigError> {
    connector(TlsConnector::builder())
}

/// The platform's TLS, with the authorities in `pem` and no others: one certificate after another.
///
/// # Errors
///
/// [`ConfigError`] if there is none in it, or if the platform's TLS cannot be used.
#[cfg_attr(docsrs, doc(cfg(feature = "native-tls")))]
pub fn native_tls_with_ca(pem: &[u8]) -> Result<MakeTlsConnector, ConfigError> {
    let unreadable = || ConfigError::new("authorities", "given", "no certificate can be read");
    let authorities = Certificate::stack_from_pem(pem).map_err(|_| unreadable())?;
    if authorities.is_empty() {
        return Err(unreadable());
    }
    let mut builder = TlsConnector::builder();
    builder.disable_built_in_roots(true);
    for authority in authorities {
        builder.add_root_certificate(authority);
    }
    connector(builder)
}

fn connector(mut builder: TlsConnectorBuilder) -> Result<MakeTlsConnector, ConfigError> {
    set_postgresql_alpn(&mut builder); // sslnegotiation=direct wants it
    let built = builder.build();
    let connector =
        built.map_err(|error| ConfigError::new("native_tls", error, "the platform's TLS cannot be used"))?;
    Ok(MakeTlsConnector::new(connector))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_authorities_there_is_no_connector() {
        let error = native_tls_with_ca(b"no certificate").err().expect("a bad setting");
        assert_eq!(error.to_string(), "authorities = given: no certificate can be read");
    }
}

//! rustls, with ring for its cryptography whatever the process's default is.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::ConfigError;

/// rustls, with the authorities that this machine trusts. Reads them now: make it once.
///
/// # Errors
///
/// [`ConfigError`] if none can be read.
#[cfg_attr(docsrs, doc(cfg(feature = "rustls")))]
pub fn rustls() -> Result<MakeRustlsConnect, ConfigError> {
    connector(rustls_native_certs::load_native_certs().certs, "this machine's")
}

/// rustls, with the authorities in `pem` and no others: one certificate after another.
///
/// # Errors
///
/// [`ConfigError`] if there is none in it.
#[cfg_attr(docsrs, doc(cfg(feature = "rustls")))]
pub fn rustls_with_ca(pem: &[u8]) -> Result<MakeRustlsConnect, ConfigError> {
    connector(CertificateDer::pem_slice_iter(pem).flatten(), "given")
}

fn connector<'a>(
    authorities: impl IntoIterator<Item = CertificateDer<'a>>,
    whose: &str,
) -> Result<MakeRustlsConnect, ConfigError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities);
    if roots.is_empty() {
        return Err(ConfigError::new("authorities", whose, "no certificate can be read"));
    }
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"postgresql".to_vec()]; // sslnegotiation=direct wants it
    Ok(MakeRustlsConnect::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_authorities_there_is_no_connector() {
        let error = rustls_with_ca(b"no certificate").err().expect("a bad setting");
        assert_eq!(error.to_string(), "authorities = given: no certificate can be read");
    }
}

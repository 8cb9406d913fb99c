//! rustls, always with ring for its cryptography, whatever the process's default is.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::reload::Reloaded;
use super::source::{Material, Pem, Source};
use super::verifier::Verifier;
use crate::connection_string::TlsOptions;
use crate::error::ConfigError;

/// A connector that uses rustls. Made by [`rustls()`] and [`rustls_with_ca`].
#[cfg_attr(docsrs, doc(cfg(feature = "rustls")))]
#[derive(Debug, Clone)]
pub struct Rustls(Reloaded<MakeRustlsConnect>);

/// rustls, with the authorities that the connection string names, or otherwise those that this machine trusts.
///
/// The first dial with TLS reads the machine's authorities. If there are none, that dial fails with
/// [`ConnectErrorKind::Tls`](crate::ConnectErrorKind::Tls).
///
/// # Errors
///
/// None today.
#[cfg_attr(docsrs, doc(cfg(feature = "rustls")))]
pub fn rustls() -> Result<Rustls, ConfigError> {
    Reloaded::new(Source::machine(), build).map(Rustls)
}

/// rustls, with only the authorities in `pem`: one certificate after another.
///
/// # Errors
///
/// [`ConfigError`] if `pem` has no certificate.
#[cfg_attr(docsrs, doc(cfg(feature = "rustls")))]
pub fn rustls_with_ca(pem: &[u8]) -> Result<Rustls, ConfigError> {
    Reloaded::new(Source::given(pem), build).map(Rustls)
}

impl Rustls {
    pub(crate) fn following(&self, options: &TlsOptions) -> Result<Self, ConfigError> {
        self.0.following(options).map(Self)
    }
}

impl<S> MakeTlsConnect<S> for Rustls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = <MakeRustlsConnect as MakeTlsConnect<S>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect;
    type Error = ConfigError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, ConfigError> {
        let mut connector = self.0.current()?;
        let Ok(connect) = <MakeRustlsConnect as MakeTlsConnect<S>>::make_tls_connect(&mut connector, host);
        Ok(connect)
    }
}

fn build(material: &Material) -> Result<MakeRustlsConnect, ConfigError> {
    let provider = Arc::new(ring::default_provider());
    let authorities = match &material.roots {
        Some(pem) => CertificateDer::pem_slice_iter(&pem.bytes).flatten().collect(),
        None => rustls_native_certs::load_native_certs().certs,
    };
    let verifier = Verifier::new(authorities, material.roots.is_some(), material.verifies_name, &provider);
    let verifier = verifier.ok_or_else(|| match &material.roots {
        Some(pem) => pem.without_certificate(),
        None => ConfigError::without_value(
            "sslrootcert",
            "this machine trusts no authorities: install the package ca-certificates, or name a file",
        ),
    })?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .dangerous() // our own verifier, which calls that of rustls
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &material.identity {
        Some((certificate, key)) => {
            let (chain, private) = identity(certificate, key)?;
            let config = builder.with_client_auth_cert(chain, private);
            config.map_err(|error| key.does_not_fit(error))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"postgresql".to_vec()]; // sslnegotiation=direct needs it
    Ok(MakeRustlsConnect::new(config))
}

type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(certificate: &Pem, key: &Pem) -> Result<Shown, ConfigError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&certificate.bytes).flatten().collect();
    if chain.is_empty() {
        return Err(certificate.without_certificate());
    }
    let unreadable = |_| key.refused("no private key can be read; it must be PEM and not encrypted");
    Ok((chain, PrivateKeyDer::from_pem_slice(&key.bytes).map_err(unreadable)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_authorities_there_is_no_connector() {
        let error = rustls_with_ca(b"no certificate").expect_err("a bad setting");
        assert_eq!(error.to_string(), "authorities = given: no certificate can be read");
    }
}

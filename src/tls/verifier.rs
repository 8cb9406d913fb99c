//! How rustls verifies a server: its own checks, arranged as OpenSSL arranges them for libpq.
//!
//! Two things differ from the verifier of rustls. It trusts a self-signed certificate that is itself among the
//! authorities, although the certificate says that it is an authority and no server. And it verifies the host's name
//! apart from the chain, or not at all with `sslmode=verify-ca`.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::ObjectIdentifier;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ALTERNATIVE_NAMES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

#[derive(Debug)]
pub(super) struct Verifier {
    roots: RootCertStore,
    /// The authorities that the owner gave. Empty if those of the machine are used.
    given: Vec<CertificateDer<'static>>,
    verifies_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// Returns `None` if no authority can be read.
    pub(super) fn new(
        authorities: Vec<CertificateDer<'static>>,
        are_given: bool,
        verifies_name: bool,
        provider: &CryptoProvider,
    ) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.iter().cloned());
        let given = if are_given { authorities } else { Vec::new() };
        let algorithms = provider.signature_verification_algorithms;
        (!roots.is_empty()).then_some(Self { roots, given, verifies_name, algorithms })
    }

    fn verify_chain(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.given.contains(certificate) && is_self_issued(certificate) {
            return verify_dates(certificate, now);
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all)
    }

    fn verify_name(&self, certificate: &CertificateDer<'_>, host: &ServerName<'_>) -> Result<(), Error> {
        if !self.given.is_empty() && common_name_is(certificate, host) {
            return Ok(());
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, host)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify_chain(end_entity, intermediates, now)?;
        if self.verifies_name {
            self.verify_name(end_entity, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn parse(certificate: &CertificateDer<'_>) -> Option<Certificate> {
    Certificate::from_der(certificate).ok()
}

fn is_self_issued(certificate: &CertificateDer<'_>) -> bool {
    parse(certificate).is_some_and(|parsed| parsed.tbs_certificate.issuer == parsed.tbs_certificate.subject)
}

fn verify_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let validity = parse(certificate).ok_or(CertificateError::BadEncoding)?.tbs_certificate.validity;
    if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// Returns whether the certificate has no alternative names, and its common name is for this host. `*` stands for one
/// label.
fn common_name_is(certificate: &CertificateDer<'_>, host: &ServerName<'_>) -> bool {
    let (Some(parsed), ServerName::DnsName(host)) = (parse(certificate), host) else { return false };
    let certificate = parsed.tbs_certificate;
    let mut extensions = certificate.extensions.iter().flatten();
    if extensions.any(|extension| extension.extn_id == ALTERNATIVE_NAMES) {
        return false;
    }
    let attributes = certificate.subject.0.iter().flat_map(|part| part.0.iter());
    let names = attributes.filter(|attribute| attribute.oid == COMMON_NAME).map(|attribute| attribute.value.value());
    let host = host.as_ref();
    let is_for_host = |name: &[u8]| {
        let Ok(name) = std::str::from_utf8(name) else { return false };
        match name.strip_prefix("*.") {
            Some(domain) => host.split_once('.').is_some_and(|(_, parent)| parent.eq_ignore_ascii_case(domain)),
            None => host.eq_ignore_ascii_case(name),
        }
    };
    names.into_iter().any(is_for_host)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::crypto::ring;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    /// `openssl req -new -x509 -days 365 -nodes -subj /CN=db.example.com`, as in PostgreSQL's manual.
    const SELF_SIGNED: &str = "\
-----BEGIN CERTIFICATE-----
MIIBiDCCAS2gAwIBAgIUS5LU0eNThHy29fhSQtaskH3wcmUwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOZGIuZXhhbXBsZS5jb20wHhcNMjYxMTI3MTMwNDA5WhcNMjcx
MTI3MTMwNDA5WjAZMRcwFQYDVQQDDA5kYi5leGFtcGxlLmNvbTBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABFpsw+uRx8MEHsmLybOpFXUNNQOreaJ3tS0iDHLadHG9
CaVEo3k9EeDunAaN9PVn3Vf3/IVNmlqspWmNIUXZ25WjUzBRMB0GA1UdDgQWBBQN
X6peEkTeZ+5m3kCuw1kRf9wvxjAfBgNVHSMEGDAWgBQNX6peEkTeZ+5m3kCuw1kR
f9wvxjAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQCUT9nWcqrH
89Ur6vclzPK3DfShq4ZxPvs6Hve1rs7QPgIhANuWOYIqwiyFJL4u52OHMMRFbbct
lQ/LDBQBK2wLJZnO
-----END CERTIFICATE-----
";
    /// 2026-11-27 13:04:09 and 2027-11-27 13:04:09, UTC.
    const VALID: [u64; 2] = [1_795_784_649, 1_827_320_649];

    fn verify(host: &str, at: u64, are_given: bool, verifies_name: bool) -> Result<(), Error> {
        let certificate = CertificateDer::from_pem_slice(SELF_SIGNED.as_bytes()).unwrap();
        let provider = ring::default_provider();
        let verifier = Verifier::new(vec![certificate.clone()], are_given, verifies_name, &provider).unwrap();
        let (host, at) = (ServerName::try_from(host).unwrap(), UnixTime::since_unix_epoch(Duration::from_secs(at)));
        verifier.verify_server_cert(&certificate, &[], &host, &[], at).map(|_| ())
    }

    #[test]
    fn a_certificate_that_is_its_own_authority_is_trusted_while_it_is_valid() {
        let [begin, end] = VALID;
        for (host, verifies_name) in [("db.example.com", true), ("DB.example.com", true), ("other", false)] {
            for at in [begin, end] {
                verify(host, at, true, verifies_name).unwrap();
            }
            assert_eq!(verify(host, begin - 1, true, verifies_name), Err(CertificateError::NotValidYet.into()));
            assert_eq!(verify(host, end + 1, true, verifies_name), Err(CertificateError::Expired.into()));
        }
        for host in ["other.example.com", "example.com", "10.0.0.1"] {
            assert!(verify(host, begin, true, true).is_err(), "{host}");
        }
    }

    /// No authority of the machine is a server.
    #[test]
    fn an_authority_of_the_machine_is_no_server() {
        assert!(verify("db.example.com", VALID[0], false, true).is_err());
        assert!(verify("db.example.com", VALID[0], false, false).is_err());
    }
}

//! The options for TLS beyond the driver's, with libpq's meaning: how the ready connectors verify the server, and which
//! certificate they show it.

#[cfg(any(feature = "native-tls", feature = "rustls"))]
use std::path::Path;
use std::path::PathBuf;

use tokio_postgres::config::SslMode;

use crate::error::ConfigError;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TlsOptions {
    pub(super) mode: Option<Mode>,
    pub(super) root: Option<Root>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// The authorities of `sslrootcert`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Root {
    /// The authorities that this machine trusts.
    System,
    File(PathBuf),
}

const MODES: [(&str, Mode); 5] = [
    ("disable", Mode::Disable),
    ("prefer", Mode::Prefer),
    ("require", Mode::Require),
    ("verify-ca", Mode::VerifyCa),
    ("verify-full", Mode::VerifyFull),
];

impl TlsOptions {
    /// Sets an option. An empty value removes it, as in libpq.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let path = Some(value).filter(|value| !value.is_empty()).map(PathBuf::from);
        match name {
            "sslmode" => {
                let mode = MODES.iter().find(|(word, _)| *word == value).map(|(_, mode)| *mode);
                let wanted = "must be disable, prefer, require, verify-ca or verify-full";
                self.mode = Some(mode.ok_or_else(|| ConfigError::new("sslmode", value, wanted))?);
            }
            "sslrootcert" => self.root = if value == "system" { Some(Root::System) } else { path.map(Root::File) },
            "sslcert" => self.certificate = path,
            "sslkey" => self.key = path,
            _ => unreachable!("no option for TLS: {name}"),
        }
        Ok(())
    }

    /// Checks the options against each other. Returns the driver's mode, if a mode is set.
    pub(super) fn finish(&mut self) -> Result<Option<SslMode>, ConfigError> {
        if self.root == Some(Root::System) {
            // Anybody can get a certificate of these authorities for a name of their own, so the name must be verified.
            let mode = *self.mode.get_or_insert(Mode::VerifyFull);
            if mode != Mode::VerifyFull {
                let problem = "goes with sslmode=verify-full only";
                return Err(ConfigError::new("sslrootcert", "system", problem));
            }
        }
        for (missing, other, is_missing) in [
            ("sslcert", "sslkey", self.certificate.is_none() && self.key.is_some()),
            ("sslkey", "sslcert", self.key.is_none() && self.certificate.is_some()),
        ] {
            if is_missing {
                return Err(ConfigError::new(missing, "(none)", format!("must be given with {other}")));
            }
        }
        Ok(self.mode.map(|mode| match mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        }))
    }

    /// The value of `sslmode`, for the error that TLS is required.
    pub(crate) fn mode(&self) -> &'static str {
        let word = MODES.iter().find(|(_, mode)| Some(*mode) == self.mode).map(|(word, _)| *word);
        word.unwrap_or("require") // a driver's `Config` has no text
    }

    /// Returns an option that only the ready connectors follow, with its value, if one is set.
    pub(crate) fn first_beyond_driver(&self) -> Option<(&'static str, String)> {
        let shown = |path: &PathBuf| path.display().to_string();
        match self.mode {
            Some(Mode::Disable) => return None,
            Some(Mode::VerifyCa) => return Some(("sslmode", "verify-ca".to_owned())),
            Some(Mode::VerifyFull) if self.root.is_none() => return Some(("sslmode", "verify-full".to_owned())),
            _ => {}
        }
        let root = self.root.as_ref().map(|root| match root {
            Root::System => ("sslrootcert", "system".to_owned()),
            Root::File(path) => ("sslrootcert", shown(path)),
        });
        root.or_else(|| Some(("sslcert", shown(self.certificate.as_ref()?))))
    }
}

/// The files of the certificate that a connector shows to the server, and of its key.
#[cfg(any(feature = "native-tls", feature = "rustls"))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientCertificate<'a> {
    pub(crate) certificate: &'a Path,
    pub(crate) key: &'a Path,
}

#[cfg(any(feature = "native-tls", feature = "rustls"))]
impl TlsOptions {
    pub(crate) fn root(&self) -> Option<&Root> {
        self.root.as_ref()
    }

    pub(crate) fn identity(&self) -> Option<ClientCertificate<'_>> {
        Some(ClientCertificate { certificate: self.certificate.as_deref()?, key: self.key.as_deref()? })
    }

    /// Returns whether TLS is never used.
    pub(crate) fn is_disabled(&self) -> bool {
        self.mode == Some(Mode::Disable)
    }

    /// Returns whether a connector verifies the host's name, and not only the authority.
    ///
    /// If a file of authorities is given, libpq verifies only the authority, except with `sslmode=verify-full`.
    pub(crate) fn verifies_name(&self) -> bool {
        match self.mode {
            Some(Mode::VerifyFull) => true,
            Some(Mode::VerifyCa) => false,
            _ => !matches!(self.root, Some(Root::File(_))),
        }
    }

    /// Returns whether only the authority shall be verified, but no authority is given.
    pub(crate) fn lacks_root(&self) -> bool {
        self.mode == Some(Mode::VerifyCa) && self.root.is_none()
    }
}

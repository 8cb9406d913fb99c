//! Where a connector's authorities, its certificate and its key come from, and their present content.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::connection_string::{ClientCertificate, Root, TlsOptions};
use crate::error::ConfigError;

/// The origin of everything that a connector needs.
#[derive(Debug, Clone)]
pub(super) struct Source {
    roots: Roots,
    verifies_name: bool,
    /// The files of the certificate and of its key.
    identity: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, Clone)]
enum Roots {
    Machine,
    Given(Arc<[u8]>),
    File(PathBuf),
}

/// Everything that a connector is built from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Material {
    /// The authorities. `None`: those of this machine.
    pub(super) roots: Option<Pem>,
    pub(super) verifies_name: bool,
    /// The certificate and its key.
    pub(super) identity: Option<(Pem, Pem)>,
}

/// The content of a PEM file, and the setting that named it.
#[derive(Clone, PartialEq)]
pub(super) struct Pem {
    pub(super) bytes: Vec<u8>,
    setting: &'static str,
    value: String,
}

impl Source {
    pub(super) fn machine() -> Self {
        Self { roots: Roots::Machine, verifies_name: true, identity: None }
    }

    pub(super) fn given(authorities: &[u8]) -> Self {
        Self { roots: Roots::Given(authorities.into()), ..Self::machine() }
    }

    /// Returns this source with the options of the connection string.
    pub(super) fn following(&self, options: &TlsOptions) -> Result<Self, ConfigError> {
        let roots = match (&self.roots, options.root()) {
            (Roots::Given(_), Some(root)) => {
                let value = match root {
                    Root::System => "system".to_owned(),
                    Root::File(path) => path.display().to_string(),
                };
                let problem =
                    "the connector was made with authorities of its own: use tls::rustls() or tls::native_tls()";
                return Err(ConfigError::new("sslrootcert", value, problem));
            }
            (Roots::Machine, None) if options.lacks_root() => {
                let problem = "needs sslrootcert=FILE, because anybody can get a certificate of a public authority";
                return Err(ConfigError::new("sslmode", "verify-ca", problem));
            }
            (_, Some(Root::File(path))) => Roots::File(path.clone()),
            (_, Some(Root::System)) => Roots::Machine,
            (roots, None) => roots.clone(),
        };
        let files = |identity: ClientCertificate<'_>| (identity.certificate.to_owned(), identity.key.to_owned());
        Ok(Self { roots, verifies_name: options.verifies_name(), identity: options.identity().map(files) })
    }

    /// Returns whether the pool can read everything when it is built. It reads the authorities of the machine only when
    /// TLS is used, because with the default `sslmode=prefer` many pools connect without TLS.
    pub(super) fn is_at_hand(&self) -> bool {
        !matches!(self.roots, Roots::Machine) || self.identity.is_some()
    }

    pub(super) fn read(&self) -> Result<Material, ConfigError> {
        let roots = match &self.roots {
            Roots::Machine => None,
            Roots::Given(bytes) => {
                Some(Pem { bytes: bytes.to_vec(), setting: "authorities", value: "given".to_owned() })
            }
            Roots::File(path) => Some(read("sslrootcert", path)?),
        };
        let identity = match &self.identity {
            Some((certificate, key)) => {
                check_permissions(key)?;
                Some((read("sslcert", certificate)?, read("sslkey", key)?))
            }
            None => None,
        };
        Ok(Material { roots, verifies_name: self.verifies_name, identity })
    }
}

impl Pem {
    /// The error that this content cannot be used.
    pub(super) fn refused(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError::new(self.setting, &self.value, problem.into())
    }

    pub(super) fn without_certificate(&self) -> ConfigError {
        self.refused("no certificate can be read")
    }

    /// The error that this key belongs to another certificate.
    pub(super) fn does_not_fit(&self, error: impl fmt::Display) -> ConfigError {
        self.refused(format!("cannot be used with the certificate of sslcert: {error}"))
    }
}

/// Shows no content, because it may be a key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pem").field(&self.setting).field(&self.value).finish()
    }
}

fn read(setting: &'static str, path: &Path) -> Result<Pem, ConfigError> {
    let value = path.display().to_string();
    match fs::read(path) {
        Ok(bytes) => Ok(Pem { bytes, setting, value }),
        Err(error) => Err(ConfigError::new(setting, value, format!("the file cannot be read: {error}"))),
    }
}

/// Checks libpq's rule: only the owner may read the key, and its group if root owns it.
#[cfg(unix)]
fn check_permissions(key: &Path) -> Result<(), ConfigError> {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = fs::metadata(key) else {
        return Ok(()); // the read that follows reports why
    };
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    let problem = if !metadata.is_file() {
        "must be a regular file"
    } else if metadata.mode() & forbidden != 0 {
        "others must not be able to read it: chmod 0600, or 0640 if root owns the file"
    } else {
        return Ok(());
    };
    Err(ConfigError::new("sslkey", key.display(), problem))
}

#[cfg(not(unix))]
fn check_permissions(_key: &Path) -> Result<(), ConfigError> {
    Ok(())
}

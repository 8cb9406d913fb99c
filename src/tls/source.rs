//! Where a connector's authorities, its certificate and its key come from, and what is in them now.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::connection_string::{ClientCertificate, Root, TlsOptions};
use crate::error::ConfigError;

/// Where everything comes from.
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

/// What a connector is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Material {
    /// `None`: the authorities of this machine.
    pub(super) roots: Option<Pem>,
    pub(super) verifies_name: bool,
    pub(super) identity: Option<(Pem, Pem)>,
}

/// PEM, and the setting that it comes from.
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

    /// The same, as the connection string has it.
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
                let problem = "needs sslrootcert=FILE: for a certificate of a public authority, any name would do";
                return Err(ConfigError::new("sslmode", "verify-ca", problem));
            }
            (_, Some(Root::File(path))) => Roots::File(path.clone()),
            (_, Some(Root::System)) => Roots::Machine,
            (roots, None) => roots.clone(),
        };
        let files = |identity: ClientCertificate<'_>| (identity.certificate.to_owned(), identity.key.to_owned());
        Ok(Self { roots, verifies_name: options.verifies_name(), identity: options.identity().map(files) })
    }

    /// Whether all of it can be read before it is needed. The authorities of the machine are read when TLS is used:
    /// many connect without it, where the default is `sslmode=prefer`.
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
    /// This cannot be used.
    pub(super) fn refused(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError::new(self.setting, &self.value, problem.into())
    }
}

/// Without the key.
impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

/// By libpq's rule: nobody else may read the key, but a group may if root owns it.
#[cfg(unix)]
fn check_permissions(key: &Path) -> Result<(), ConfigError> {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = fs::metadata(key) else {
        return Ok(()); // reading it says why
    };
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    let problem = if !metadata.is_file() {
        "must be a regular file"
    } else if metadata.mode() & forbidden != 0 {
        "must not be readable for others: chmod 0600, or 0640 if root owns the file"
    } else {
        return Ok(());
    };
    Err(ConfigError::new("sslkey", key.display(), problem))
}

#[cfg(not(unix))]
fn check_permissions(_key: &Path) -> Result<(), ConfigError> {
    Ok(())
}

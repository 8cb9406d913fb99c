//! What the ready connectors ask of the options for TLS.

use std::path::Path;

use super::tls::{Mode, Root, TlsOptions};

/// What this side shows to the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity<'a> {
    pub(crate) certificate: &'a Path,
    pub(crate) key: &'a Path,
}

impl TlsOptions {
    pub(crate) fn root(&self) -> Option<&Root> {
        self.root.as_ref()
    }

    pub(crate) fn identity(&self) -> Option<Identity<'_>> {
        Some(Identity { certificate: self.certificate.as_deref()?, key: self.key.as_deref()? })
    }

    /// Whether TLS is never used.
    pub(crate) fn is_disabled(&self) -> bool {
        self.mode == Some(Mode::Disable)
    }

    /// Whether the host's name is verified as well, not only the authority. libpq verifies the authority alone as soon as
    /// a file of authorities is given, under each `sslmode` but `verify-full`.
    pub(crate) fn verifies_name(&self) -> bool {
        match self.mode {
            Some(Mode::VerifyFull) => true,
            Some(Mode::VerifyCa) => false,
            _ => !matches!(self.root, Some(Root::File(_))),
        }
    }

    /// Whether the authority alone is to be verified, and no authority is given.
    pub(crate) fn lacks_root(&self) -> bool {
        self.mode == Some(Mode::VerifyCa) && self.root.is_none()
    }
}

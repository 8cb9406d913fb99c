//! A connector that follows its files: each dial reads them, and builds a new connector if they have changed.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::source::{Material, Source};
use crate::connection_string::TlsOptions;
use crate::error::ConfigError;

/// Builds a connector of type `T`.
type Build<T> = fn(&Material) -> Result<T, ConfigError>;

#[derive(Clone)]
pub(super) struct Reloaded<T> {
    source: Source,
    build: Build<T>,
    /// The latest connector, and the material that it was built from.
    latest: Arc<Mutex<Option<(Material, T)>>>,
}

impl<T: Clone> Reloaded<T> {
    /// Fails if the material can be read now, and no connector can be built from it.
    pub(super) fn new(source: Source, build: Build<T>) -> Result<Self, ConfigError> {
        let reloaded = Self { source, build, latest: Arc::default() };
        if reloaded.source.is_at_hand() {
            reloaded.current()?;
        }
        Ok(reloaded)
    }

    /// Returns this connector with the options of the connection string.
    pub(super) fn following(&self, options: &TlsOptions) -> Result<Self, ConfigError> {
        if options.is_disabled() {
            return Ok(self.clone());
        }
        Self::new(self.source.following(options)?, self.build)
    }

    /// Returns a connector for the present content of the files.
    pub(super) fn current(&self) -> Result<T, ConfigError> {
        let material = self.source.read()?;
        let mut latest = self.latest.lock();
        if let Some((_, connector)) = latest.as_ref().filter(|(of, _)| *of == material) {
            return Ok(connector.clone());
        }
        let connector = (self.build)(&material)?;
        *latest = Some((material, connector.clone()));
        Ok(connector)
    }
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reloaded").field(&self.source).finish()
    }
}

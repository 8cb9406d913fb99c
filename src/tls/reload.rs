//! A connector made of what is in the files now: made again when that has changed.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::source::{Material, Source};
use crate::connection_string::TlsOptions;
use crate::error::ConfigError;

/// How a `T` is made.
type Make<T> = fn(&Material) -> Result<T, ConfigError>;

#[derive(Clone)]
pub(super) struct Reloaded<T> {
    source: Source,
    make: Make<T>,
    /// The latest one, and what it was made of.
    latest: Arc<Mutex<Option<(Material, T)>>>,
}

impl<T: Clone> Reloaded<T> {
    pub(super) fn new(source: Source, make: Make<T>) -> Result<Self, ConfigError> {
        let made = Self { source, make, latest: Arc::default() };
        if made.source.is_at_hand() {
            made.current()?;
        }
        Ok(made)
    }

    /// The same, as the connection string has it.
    pub(super) fn following(&self, options: &TlsOptions) -> Result<Self, ConfigError> {
        if options.is_disabled() {
            return Ok(self.clone());
        }
        Self::new(self.source.following(options)?, self.make)
    }

    /// One made of what is in the files now.
    pub(super) fn current(&self) -> Result<T, ConfigError> {
        let material = self.source.read()?;
        let mut latest = self.latest.lock();
        if let Some((_, made)) = latest.as_ref().filter(|(of, _)| *of == material) {
            return Ok(made.clone());
        }
        let made = (self.make)(&material)?;
        *latest = Some((material, made.clone()));
        Ok(made)
    }
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reloaded").field(&self.source).finish()
    }
}

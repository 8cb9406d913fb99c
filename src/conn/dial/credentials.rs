//! The credentials of a dial, and those that the server has refused.
//!
//! The pool asks a provider at every dial, because its answer may change. It does not send refused credentials to the
//! server again before a pause is over, because too many attempts lock an account.

use std::fmt;

use parking_lot::Mutex;
use tokio_postgres::Config;

use crate::clock::now;
use crate::error::ConnectError;
use crate::policy::{Pauses, Trouble};

/// Who to log in as: what a [`credentials`](crate::PoolBuilder::credentials) provider returns.
///
/// Its `Debug` shows no password.
#[derive(Clone)]
pub struct Credentials {
    user: Option<String>,
    password: String,
}

impl Credentials {
    /// This password, for the user of the connection string.
    pub fn password(password: impl Into<String>) -> Self {
        Self { user: None, password: password.into() }
    }

    /// Another user than that of the connection string.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    pub(super) fn apply(self, config: &mut Config) {
        config.password(self.password);
        if let Some(user) = self.user {
            config.user(user);
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The credentials that the server refused last, if no dial has succeeded since.
#[derive(Default)]
pub(super) struct RefusedCredentials(Mutex<Option<RefusedLogin>>);

struct RefusedLogin {
    user: Option<String>,
    password: Option<Vec<u8>>,
    error: ConnectError,
    pauses: Pauses,
}

impl RefusedLogin {
    fn matches(&self, config: &Config) -> bool {
        self.user.as_deref() == config.get_user() && self.password.as_deref() == config.get_password()
    }
}

impl RefusedCredentials {
    /// The server's earlier refusal of these credentials, while the pause after it lasts.
    pub(super) fn refusal_of(&self, config: &Config) -> Option<ConnectError> {
        let refused = self.0.lock();
        let refused = refused.as_ref().filter(|refused| refused.matches(config))?;
        refused.pauses.left(now()).map(|_| refused.error.clone())
    }

    /// The server refused these credentials. The pause grows each time that it refuses the same ones.
    pub(super) fn on_refused(&self, config: &Config, error: &ConnectError) {
        let mut known = self.0.lock();
        let before = known.take().filter(|refused| refused.matches(config));
        let mut pauses = before.map(|refused| refused.pauses).unwrap_or_default();
        pauses.failed(now(), Trouble::Lasting, fastrand::f64());
        let (user, password) = (config.get_user().map(str::to_owned), config.get_password().map(<[u8]>::to_vec));
        *known = Some(RefusedLogin { user, password, error: error.clone(), pauses });
    }

    pub(super) fn forget(&self) {
        *self.0.lock() = None;
    }
}

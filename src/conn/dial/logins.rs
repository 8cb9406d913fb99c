//! Credentials that a server has refused. A provider is asked again and again, for its answer may change; the server is not, until it does or a pause is
//! over: what is tried too often locks an account.

use parking_lot::Mutex;
use tokio_postgres::Config;

use crate::clock::now;
use crate::error::ConnectError;
use crate::policy::{Pauses, Trouble};

#[derive(Default)]
pub(super) struct Logins(Mutex<Option<RefusedLogin>>);

struct RefusedLogin {
    user: Option<String>,
    password: Option<Vec<u8>>,
    error: ConnectError,
    pauses: Pauses,
}

impl RefusedLogin {
    fn is_of(&self, config: &Config) -> bool {
        self.user.as_deref() == config.get_user() && self.password.as_deref() == config.get_password()
    }
}

impl Logins {
    /// What the server has said of these credentials, while it is not to be asked again.
    pub(super) fn refusal(&self, config: &Config) -> Option<ConnectError> {
        let refused = self.0.lock();
        let refused = refused.as_ref().filter(|refused| refused.is_of(config))?;
        refused.pauses.left(now()).map(|_| refused.error.clone())
    }

    pub(super) fn was_refused(&self, config: &Config, error: &ConnectError) {
        let mut known = self.0.lock();
        let before = known.take().filter(|refused| refused.is_of(config));
        let mut pauses = before.map(|refused| refused.pauses).unwrap_or_default();
        pauses.failed(now(), Trouble::Lasting, fastrand::f64());
        let (user, password) = (config.get_user().map(str::to_owned), config.get_password().map(<[u8]>::to_vec));
        *known = Some(RefusedLogin { user, password, error: error.clone(), pauses });
    }

    pub(super) fn forget(&self) {
        *self.0.lock() = None;
    }
}

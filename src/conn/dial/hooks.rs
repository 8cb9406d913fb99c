//! What the pool's owner has us call at each dial: for credentials before it, and to set the connection up after it.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use deadpool_postgres::Object;
use tokio_postgres::{Config, Error};

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

    /// With another user than that of the connection string.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    fn apply(self, config: &mut Config) {
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

type BoxError = Box<dyn StdError + Send + Sync>;
type Asked = Pin<Box<dyn Future<Output = Result<Credentials, BoxError>> + Send>>;
type Provider = Arc<dyn Fn() -> Asked + Send + Sync>;
type SetUp<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;
type AfterConnect = Arc<dyn for<'a> Fn(&'a Object) -> SetUp<'a> + Send + Sync>;

#[derive(Clone, Default)]
pub(crate) struct Hooks {
    credentials: Option<Provider>,
    after_connect: Option<AfterConnect>,
}

impl Hooks {
    pub(crate) fn set_credentials<F, A>(&mut self, provider: F)
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<Credentials, BoxError>> + Send + 'static,
    {
        self.credentials = Some(Arc::new(move || Box::pin(provider())));
    }

    pub(crate) fn has_provider(&self) -> bool {
        self.credentials.is_some()
    }

    pub(crate) fn set_after_connect<F>(&mut self, hook: F)
    where
        F: for<'a> Fn(&'a Object) -> SetUp<'a> + Send + Sync + 'static,
    {
        self.after_connect = Some(Arc::new(hook));
    }

    /// `config` with what the provider says, if there is one.
    pub(crate) async fn log_in(&self, config: &Config) -> Result<Config, BoxError> {
        let mut config = config.clone();
        if let Some(provider) = &self.credentials {
            provider().await?.apply(&mut config);
        }
        Ok(config)
    }

    pub(crate) async fn set_up(&self, client: &Object) -> Result<(), Error> {
        match &self.after_connect {
            Some(hook) => hook(client).await,
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("credentials", &self.credentials.is_some())
            .field("after_connect", &self.after_connect.is_some())
            .finish()
    }
}

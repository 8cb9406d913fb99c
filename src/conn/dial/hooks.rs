//! The owner's code that runs at each dial: the credentials provider before it, and the `after_connect` hook after it.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use deadpool_postgres::Object;
use tokio_postgres::{Config, Error};

use super::credentials::Credentials;

type BoxError = Box<dyn StdError + Send + Sync>;
type Answer = Pin<Box<dyn Future<Output = Result<Credentials, BoxError>> + Send>>;
type Provider = Arc<dyn Fn() -> Answer + Send + Sync>;
type SetUp<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;
type AfterConnect = Arc<dyn for<'a> Fn(&'a Object) -> SetUp<'a> + Send + Sync>;

#[cfg(feature = "cluster")]
type BeforeUse = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

#[derive(Clone, Default)]
pub(crate) struct Hooks {
    credentials: Option<Provider>,
    after_connect: Option<AfterConnect>,
    #[cfg(feature = "cluster")]
    before_use: Option<BeforeUse>,
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

    /// Adds a hook that runs before the owner's `after_connect`.
    #[cfg(feature = "cluster")]
    pub(crate) fn set_first<F>(&mut self, first: F)
    where
        F: for<'a> Fn(&'a Object) -> SetUp<'a> + Send + Sync + 'static,
    {
        let owners = self.after_connect.take();
        self.set_after_connect(move |client| {
            let (first, owners) = (first(client), owners.clone());
            Box::pin(async move {
                first.await?;
                match owners {
                    Some(owners) => owners(client).await,
                    None => Ok(()),
                }
            })
        });
    }

    /// Sets what a new connection of the pool waits for before it serves its first caller. Connections that serve no
    /// caller do not wait.
    #[cfg(feature = "cluster")]
    pub(crate) fn set_before_use<F, W>(&mut self, wait: F)
    where
        F: Fn() -> W + Send + Sync + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        self.before_use = Some(Arc::new(move || Box::pin(wait())));
    }

    #[cfg(feature = "cluster")]
    pub(crate) async fn before_use(&self) {
        if let Some(wait) = &self.before_use {
            wait().await;
        }
    }

    /// Returns `config` with the credentials of the provider, if there is one.
    pub(crate) async fn log_in(&self, config: &Config) -> Result<Config, BoxError> {
        let mut config = config.clone();
        if let Some(provider) = &self.credentials {
            provider().await?.apply(&mut config);
        }
        Ok(config)
    }

    pub(crate) fn has_after_connect(&self) -> bool {
        self.after_connect.is_some()
    }

    /// Runs the `after_connect` hook, if there is one.
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

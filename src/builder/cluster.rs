//! What a cluster changes in the settings of the pool of each of its hosts.

use std::future::Future;
use std::pin::Pin;

use deadpool_postgres::Object;
use tokio::runtime::Handle;

use super::PoolBuilder;
use super::check::LONGEST_NAME;
use crate::telemetry::Given;

impl PoolBuilder {
    /// Names the pool of one host after the owner's name and the host, and shows the server the owner's name. If the
    /// name of the host is too long, its beginning and its number do.
    pub(crate) fn of_host(mut self, host: &str, number: usize) -> Self {
        if self.place.driver.get_application_name().is_none() {
            self.place.driver.application_name(&self.name);
        }
        let ascii: String = host.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
        let whole = format!("{}@{ascii}", self.name);
        // A name that is not ASCII is refused as it is: cutting it might split a character.
        self.name = if whole.len() <= LONGEST_NAME || !whole.is_ascii() {
            whole
        } else {
            let number = format!("#{number}");
            format!("{}{number}", &whole[..LONGEST_NAME - number.len()])
        };
        self
    }

    /// Adds a hook that runs on each new connection, before the owner's.
    pub(crate) fn first_after_connect<F>(mut self, hook: F) -> Self
    where
        F: Send + Sync + 'static,
        F: for<'a> Fn(&'a Object) -> Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send + 'a>>,
    {
        self.hooks.set_first(hook);
        self
    }

    /// Sets what a new connection waits for before it serves its first caller.
    pub(crate) fn before_use<F, W>(mut self, wait: F) -> Self
    where
        F: Fn() -> W + Send + Sync + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        self.hooks.set_before_use(wait);
        self
    }

    /// The owner's name for the pool, its recorder and its runtime.
    #[cfg_attr(not(feature = "metrics"), expect(clippy::clone_on_copy, reason = "then there is nothing to give"))]
    pub(crate) fn owners(&self) -> (&str, Given, Option<Handle>) {
        (&self.name, self.recorder.clone(), self.runtime.clone())
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::Config;

    use super::*;

    #[test]
    fn a_long_name_is_cut_if_it_is_ascii_and_otherwise_left_to_be_refused() {
        let mut config = Config::new();
        config.host("a");
        let named = |name: &str| PoolBuilder::new(config.clone().into()).name(name).of_host("db1.example:5432", 3);
        assert_eq!(named("orders").name, "orders@db1.example:5432");
        let cut = named(&"x".repeat(LONGEST_NAME)).name;
        assert_eq!((cut.len(), cut.ends_with("x#3")), (LONGEST_NAME, true));
        assert!(named(&"\u{e4}".repeat(LONGEST_NAME)).build().is_err(), "it is refused without a panic");
    }
}

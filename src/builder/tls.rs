//! Makes a TLS connector follow the connection string's options for TLS.

use std::any::Any;

use crate::connection_string::TlsOptions;
use crate::error::ConfigError;

/// Returns the connector with the options of the connection string. Only the ready connectors can follow them. Any
/// other connector verifies as it was made, so options for it are refused.
pub(super) fn following<T: Clone + 'static>(tls: T, options: &TlsOptions) -> Result<T, ConfigError> {
    if let Some(ready) = following_if_ready(&tls, options) {
        return Ok(*ready?.downcast().expect("a connector follows as the same type"));
    }
    match options.first_beyond_driver() {
        None => Ok(tls),
        Some((setting, value)) => {
            let problem = "needs tls::rustls() or tls::native_tls(): another connector verifies as it was made";
            Err(ConfigError::new(setting, value, problem))
        }
    }
}

#[cfg_attr(not(any(feature = "rustls", feature = "native-tls")), allow(unused_variables))]
fn following_if_ready(tls: &dyn Any, options: &TlsOptions) -> Option<Result<Box<dyn Any>, ConfigError>> {
    #[cfg(feature = "rustls")]
    if let Some(ready) = tls.downcast_ref::<crate::tls::Rustls>() {
        return Some(ready.following(options).map(|ready| Box::new(ready) as _));
    }
    #[cfg(feature = "native-tls")]
    if let Some(ready) = tls.downcast_ref::<crate::tls::NativeTls>() {
        return Some(ready.following(options).map(|ready| Box::new(ready) as _));
    }
    None
}

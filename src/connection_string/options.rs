//! The options by name: which the driver takes, which the pool takes, and which it refuses and why.

use tokio_postgres::Config;

use super::text::{Options, malformed};
use super::tls::TlsOptions;
use crate::error::{ConfigError, nearest};

/// What the pool does with an option.
enum Takes {
    /// The driver takes it. The phrase says which values work.
    Driver(&'static str),
    /// The driver takes it under this other name. The second phrase says which values work.
    Alias(&'static str, &'static str),
    /// The pool takes it: see [`TlsOptions`].
    Tls,
    /// The pool always works as these values ask. It refuses every other value.
    Only(&'static [&'static str]),
    /// The pool refuses the option for this reason.
    Nothing(&'static str),
}

/// The driver's options, and all of libpq's.
const OPTIONS: [(&str, Takes); 50] = [
    ("application_name", Takes::Driver("")),
    ("channel_binding", Takes::Driver("must be disable, prefer or require")),
    ("client_encoding", Takes::Only(&["UTF8", "utf8", "UTF-8", "utf-8"])),
    ("connect_timeout", Takes::Driver("must be a whole number of seconds")),
    ("dbname", Takes::Driver("")),
    ("fallback_application_name", Takes::Nothing("set application_name, or the pool's name")),
    ("gssdelegation", Takes::Nothing(GSSAPI)),
    ("gssencmode", Takes::Only(&["disable", "prefer"])),
    ("gsslib", Takes::Nothing(GSSAPI)),
    ("host", Takes::Driver("")),
    ("hostaddr", Takes::Driver("must be an IP address, or one for each host")),
    ("keepalives", Takes::Driver("must be 1 or 0")),
    ("keepalives_count", Takes::Alias("keepalives_retries", "must be a whole number")),
    ("keepalives_idle", Takes::Driver("must be a whole number of seconds")),
    ("keepalives_interval", Takes::Driver("must be a whole number of seconds")),
    ("keepalives_retries", Takes::Driver("must be a whole number")),
    ("krbsrvname", Takes::Nothing(GSSAPI)),
    ("load_balance_hosts", Takes::Driver("must be disable or random")),
    ("options", Takes::Driver("")),
    ("passfile", Takes::Nothing("password files are not read: give the password by PoolBuilder::credentials")),
    ("password", Takes::Driver("")),
    ("port", Takes::Driver("must be 1 to 65535, or such a number for each host")),
    ("replication", Takes::Nothing("the pool has no replication connections")),
    ("require_auth", Takes::Nothing("the authentication methods cannot be chosen")),
    ("requirepeer", Takes::Nothing("the owner of a Unix socket is not checked")),
    ("requiressl", Takes::Nothing("set sslmode=require")),
    ("service", Takes::Nothing("service files are not read")),
    ("servicefile", Takes::Nothing("service files are not read")),
    ("ssl_max_protocol_version", Takes::Nothing("the connector offers the newest that it has")),
    ("ssl_min_protocol_version", Takes::Only(&["TLSv1.2"])),
    ("sslcert", Takes::Tls),
    ("sslcertmode", Takes::Only(&["allow"])),
    ("sslcompression", Takes::Only(&["0"])),
    ("sslcrl", Takes::Nothing("revocation lists are not read")),
    ("sslcrldir", Takes::Nothing("revocation lists are not read")),
    ("sslkey", Takes::Tls),
    ("sslkeylogfile", Takes::Nothing("keys of sessions are not written down")),
    ("sslmode", Takes::Tls),
    ("sslnegotiation", Takes::Driver("must be postgres or direct")),
    ("sslpassword", Takes::Nothing("encrypted keys are not read: decrypt the file that sslkey names")),
    ("sslrootcert", Takes::Tls),
    ("sslsni", Takes::Only(&["1"])),
    ("target_session_attrs", Takes::Driver("must be any, read-write or read-only")),
    ("tcp_user_timeout", Takes::Driver("must be a whole number of seconds")),
    ("user", Takes::Driver("")),
    ("authtype", Takes::Nothing("it has no meaning any more")),
    ("max_protocol_version", Takes::Nothing("the driver speaks protocol 3.0")),
    ("min_protocol_version", Takes::Only(&["3.0"])),
    ("scram_client_key", Takes::Nothing("give the password by PoolBuilder::credentials")),
    ("scram_server_key", Takes::Nothing("give the password by PoolBuilder::credentials")),
];

const GSSAPI: &str = "GSSAPI is not supported";

pub(super) fn read(options: Options) -> Result<(Config, TlsOptions), ConfigError> {
    let (mut pairs, mut tls) = (String::new(), TlsOptions::default());
    for (name, value) in &options.pairs {
        let Some((_, takes)) = OPTIONS.iter().find(|(option, _)| option == name) else {
            return Err(unknown(name, options.may_hold_a_secret));
        };
        match takes {
            Takes::Driver(wanted) => pairs += &for_driver(name, name, value, wanted)?,
            Takes::Alias(driver_name, wanted) => pairs += &for_driver(driver_name, name, value, wanted)?,
            Takes::Tls => tls.set(name, value)?,
            Takes::Only(values) if values.contains(&value.as_str()) => {}
            Takes::Only(values) => {
                return Err(ConfigError::new(name.clone(), value, format!("must be {}", values.join(" or "))));
            }
            Takes::Nothing(reason) => return Err(ConfigError::without_value(name, *reason)),
        }
    }
    let mut driver: Config = pairs.parse().map_err(|_| malformed("the driver does not take it"))?;
    if let Some(mode) = tls.finish()? {
        driver.ssl_mode(mode);
    }
    Ok((driver, tls))
}

/// Returns the option as the driver reads it.
fn for_driver(driver_name: &str, name: &str, value: &str, wanted: &'static str) -> Result<String, ConfigError> {
    let pair = format!("{driver_name}='{}' ", value.replace('\\', r"\\").replace('\'', r"\'"));
    match pair.parse::<Config>() {
        Ok(_) => Ok(pair),
        // If a password in a URL is not encoded, a part of it may stand where the port is.
        Err(_) if name == "port" => Err(ConfigError::without_value(name, wanted)),
        Err(_) => Err(ConfigError::new(name.to_owned(), value, wanted)),
    }
}

/// The error for an unknown option. It shows a name that may be a part of a password only if an option has nearly that
/// name.
fn unknown(name: &str, may_hold_a_secret: bool) -> ConfigError {
    let near = nearest(name, OPTIONS.iter().map(|(option, _)| *option));
    if may_hold_a_secret && near.is_none() {
        return malformed(
            "an option has an unknown name, which may be a part of a password: quote or encode the password",
        );
    }
    ConfigError::unknown(name, near)
}

#[cfg(test)]
pub(super) fn names() -> Vec<&'static str> {
    OPTIONS.iter().map(|(name, _)| *name).collect()
}

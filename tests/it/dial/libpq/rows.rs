//! The table: connection strings, and what psql and the pool do with each.
//!
//! `Place::fill` in `libpq.rs` has the placeholders in braces.

use self::Certificate::{Common, Manual, Named};
use self::Verdict::{Connects, Says};

/// The server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Certificate {
    /// Signed by the authority, for `localhost` and `failfast.test`.
    Named,
    /// Self-signed, as in PostgreSQL's manual.
    Manual,
    /// Signed by the authority, with a common name and no alternative name.
    Common,
}

impl Certificate {
    pub(super) const ALL: [Self; 3] = [Named, Manual, Common];

    pub(super) fn name(self) -> &'static str {
        match self {
            Named => "named",
            Manual => "manual",
            Common => "common",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    Connects,
    /// It refuses, and its error contains this text.
    Says(&'static str),
}

pub(super) struct Row {
    pub(super) certificate: Certificate,
    pub(super) text: &'static str,
    pub(super) psql: Verdict,
    /// The pool without a connector.
    pub(super) none: Verdict,
    /// With rustls and with native-tls alike.
    pub(super) ready: Verdict,
    pub(super) differs_because: Option<&'static str>,
}

impl Row {
    const fn showing(self, certificate: Certificate) -> Self {
        Self { certificate, ..self }
    }
}

/// psql and every pool connect.
const fn connects(text: &'static str) -> Row {
    Row { certificate: Named, text, psql: Connects, none: Connects, ready: Connects, differs_because: None }
}

/// psql and the pools with TLS connect.
const fn with_tls(text: &'static str) -> Row {
    Row { none: Says("needs a TLS connector"), ..connects(text) }
}

/// psql and every pool refuse.
const fn refused(text: &'static str, psql: &'static str, ours: &'static str) -> Row {
    Row { psql: Says(psql), none: Says(ours), ready: Says(ours), ..connects(text) }
}

/// psql and every pool refuse. The pool without a connector refuses because it has no TLS.
const fn refused_with_tls(text: &'static str, psql: &'static str, ours: &'static str) -> Row {
    Row { none: Says("needs a TLS connector"), ..refused(text, psql, ours) }
}

/// psql connects, and the pool refuses on purpose.
const fn stricter(text: &'static str, ours: &'static str, reason: &'static str) -> Row {
    Row { psql: Connects, differs_because: Some(reason), ..refused(text, "", ours) }
}

/// The same, for a string that needs a connector.
const fn stricter_with_tls(text: &'static str, ours: &'static str, reason: &'static str) -> Row {
    Row { none: Says("needs a TLS connector"), ..stricter(text, ours, reason) }
}

// The reasons for differences, in the words of the guide.
const VERIFIED: &str = "With a ready connector, TLS is always verified.";
const ALLOW: &str = "There is no `sslmode=allow`.";
const FILES: &str = "A file that is named must exist.";
const SOCKETS: &str = "A Unix socket has no TLS, so `sslmode=require` is refused for one.";
const HOST: &str = "There is no default host.";
const AT: &str = "A URL has at most one `@` that is not encoded.";
const ROLES: &str = "`target_session_attrs` is `any`, `read-write` or `read-only`.";
const LISTS: &str = "Revocation lists are not read.";
const ENCODING: &str = "The client's encoding is always UTF-8.";

pub(super) const ROWS: [Row; 77] = [
    // Whether TLS is used, and what is verified.
    Row { ready: Says("no TLS: "), differs_because: Some(VERIFIED), ..connects("{url}") },
    connects("{url}?sslmode=disable"),
    stricter("{url}?sslmode=allow", "sslmode = allow: must be disable, prefer", ALLOW),
    stricter_with_tls("{url}?sslmode=require", "no TLS: ", VERIFIED),
    with_tls("{url}?sslmode=require&sslrootcert={files}/ca.crt"),
    with_tls("{url}?ssl=true&sslrootcert={files}/ca.crt"),
    with_tls("{url}?sslrootcert={files}/ca.crt"),
    with_tls("{url}?sslmode=verify-ca&sslrootcert={files}/ca.crt"),
    refused_with_tls("{url}?sslmode=verify-ca&sslrootcert={files}/other.crt", "certificate verify failed", "no TLS: "),
    refused_with_tls("{url}?sslmode=verify-ca&sslrootcert={files}/named.crt", "certificate verify failed", "no TLS: "),
    with_tls(
        "host=localhost hostaddr={ip} {login} sslmode=verify-full \
         sslrootcert={files}/ca.crt",
    ),
    with_tls(
        "host=failfast.test hostaddr={ip} {login} \
         sslmode=verify-full sslrootcert={files}/ca.crt",
    ),
    refused_with_tls(
        "host=other.test hostaddr={ip} {login} sslmode=verify-full \
         sslrootcert={files}/ca.crt",
        "does not match host name",
        "no TLS: ",
    ),
    refused_with_tls("{url}?sslmode=verify-full&sslrootcert={files}/ca.crt", "does not match host name", "no TLS: "),
    refused_with_tls("{url}?sslmode=verify-full", "does not exist", "no TLS: "),
    refused_with_tls("{url}?sslmode=verify-ca", "does not exist", "sslmode = verify-ca: needs sslrootcert=FILE"),
    refused_with_tls("{url}?sslrootcert=system", "verify failed", "no TLS: "),
    refused(
        "{url}?sslrootcert=system&sslmode=require",
        "weak sslmode",
        "sslrootcert = system: goes with sslmode=verify-full only",
    ),
    refused_with_tls(
        "{url}?sslmode=verify-ca&sslrootcert={files}/nothing.crt",
        "does not exist",
        "/nothing.crt: the file cannot be read",
    ),
    stricter_with_tls(
        "{url}?sslmode=require&sslrootcert={files}/nothing.crt",
        "/nothing.crt: the file cannot be read",
        FILES,
    ),
    refused_with_tls(
        "{url}?sslmode=verify-ca&sslrootcert={files}/client.key",
        "could not read root certificate file",
        "/client.key: no certificate can be read",
    ),
    refused(
        "{url}?sslmode=verify",
        "invalid sslmode value",
        "sslmode = verify: must be disable, prefer, require, verify-ca or verify-full",
    ),
    with_tls("{url}?sslmode=require&sslnegotiation=direct&sslrootcert={files}/ca.crt"),
    refused("{url}?sslnegotiation=direct", "weak sslmode", "sslnegotiation = direct: goes with sslmode=require"),
    with_tls("{url}?sslmode=require&channel_binding=require&sslrootcert={files}/ca.crt"),
    Row {
        none: Says("channel_binding = require: needs a TLS connector"),
        ..refused(
            "{url}?sslmode=disable&channel_binding=require",
            "channel binding required",
            "channel_binding = require: goes with sslmode=require",
        )
    },
    stricter("{url}?sslmode=disable&sslcrl={files}/nothing.crl", "sslcrl: revocation lists are not read", LISTS),
    // Self-signed, and without alternative names.
    with_tls("{url}?sslmode=verify-ca&sslrootcert={files}/manual.crt").showing(Manual),
    with_tls("{url}?sslmode=require&sslrootcert={files}/manual.crt").showing(Manual),
    with_tls(
        "host=localhost hostaddr={ip} {login} sslmode=verify-full \
         sslrootcert={files}/manual.crt",
    )
    .showing(Manual),
    refused_with_tls(
        "host=failfast.test hostaddr={ip} {login} \
         sslmode=verify-full sslrootcert={files}/manual.crt",
        "does not match host name",
        "no TLS: ",
    )
    .showing(Manual),
    refused_with_tls("{url}?sslmode=verify-ca&sslrootcert={files}/ca.crt", "verify failed", "no TLS: ").showing(Manual),
    with_tls(
        "host=localhost hostaddr={ip} {login} sslmode=verify-full \
         sslrootcert={files}/ca.crt",
    )
    .showing(Common),
    refused_with_tls(
        "host=failfast.test hostaddr={ip} {login} \
         sslmode=verify-full sslrootcert={files}/ca.crt",
        "does not match host name",
        "no TLS: ",
    )
    .showing(Common),
    // Certificates of the client.
    with_tls(
        "{certified}&sslcert={files}/client.crt\
         &sslkey={files}/client.key",
    ),
    refused_with_tls("{certified}", "FATAL: ", "(28000)"),
    refused_with_tls(
        "{certified}&sslcert={files}/stranger.crt\
         &sslkey={files}/stranger.key",
        "alert",
        "alert",
    ),
    refused_with_tls(
        "{certified}&sslcert={files}/client.crt\
         &sslkey={files}/loose.key",
        "has group or world access",
        "/loose.key: others must not be able to read it",
    ),
    refused_with_tls(
        "{certified}&sslcert={files}/client.crt\
         &sslkey={files}/stranger.key",
        "mismatch",
        "cannot be used with the",
    ),
    refused_with_tls(
        "{certified}&sslcert={files}/client.crt\
         &sslkey={files}/nothing.key",
        "private key file",
        "/nothing.key: the file cannot be read",
    ),
    refused(
        "{certified}&sslcert={files}/client.crt",
        "private key file",
        "sslkey = (none): must be given with sslcert",
    ),
    stricter_with_tls(
        "{url}?sslmode=verify-ca&sslrootcert={files}/ca.crt&\
         sslcert={files}/nothing.crt&sslkey={files}/client.key",
        "/nothing.crt: the file cannot be read",
        FILES,
    ),
    // Hosts and ports.
    connects("postgres://failfast:secret@{ip}:1,{at}/failfast?sslmode=disable"),
    connects("host={ip},{ip} {login} sslmode=disable"),
    connects("postgres://failfast:secret@[{ip}]:{port}/failfast?sslmode=disable"),
    connects("postgres://failfast:secret@/failfast?host={ip}&port={port}&sslmode=disable"),
    refused(
        "host={ip} port={port},1 user=failfast password=secret",
        "could not match 2 port numbers to 1 hosts",
        "port = 2: must be one, or as many as there are hosts",
    ),
    refused(
        "host={ip} hostaddr={ip},{ip} port={port} user=failfast password=secret",
        "could not match 1 host names to 2 hostaddr values",
        "hostaddr = 2: must be as many as there are hosts",
    ),
    refused("postgres://failfast:secret@nowhere.invalid/failfast", "could not translate", "could not be resolved"),
    refused("hostaddr=localhost port={port} user=failfast", "could not parse", "hostaddr = localhost: must be an IP"),
    refused("postgres://failfast:secret@{ip}:70000/failfast", "invalid port number", "port: must be 1 to 65535"),
    refused("postgres://failfast:secret@[::1/failfast", "IPv6", "an IPv6 address must be written as [address]"),
    refused("postgres://failfast:secret@{ip}:1/failfast", "refused", "connection refused"),
    stricter("postgres://failfast:secret@/failfast", "host = (none): a host or a hostaddr is needed", HOST),
    // Unix sockets.
    connects("host={sockets} {login} sslmode=disable"),
    connects("postgres://failfast:secret@{sockets%}:{port}/failfast?sslmode=disable"),
    refused("host=/nowhere user=failfast", "No such file", "no such socket"),
    refused(
        "host=/tmp/a-path-of-more-than-a-hundred-characters/a-path-of-more-than-a-hundred-characters/and-so-on-and-so-on \
         user=failfast",
        "is too long",
        "the path of the socket is too long",
    ),
    Row {
        none: Says("needs a TLS connector"),
        ..stricter("host={sockets} {login} sslmode=require", "sslmode = require: a Unix socket has no TLS", SOCKETS)
    },
    // Passwords with odd characters, and quoting.
    connects("postgres://odd:p%40ss%2Fw%3Fr%23d%20%5B1%5D%3A%25@{at}/failfast?sslmode=disable"),
    connects("postgres://raw:p?w#[x]:@{at}/failfast?sslmode=disable"),
    connects("host={ip} port={port} user=odd password='p@ss/w?r#d [1]:%' dbname=failfast sslmode=disable"),
    connects(r"host={ip} port={port} user=spaced password='a b\'c\\d' dbname=failfast sslmode=disable"),
    connects(r"host = {ip} port={port} user=spaced password=a\ b\'c\\d dbname=failfast sslmode=disable"),
    connects("host={ip} port={port} user=failfast password=wrong password=secret dbname=failfast sslmode=disable"),
    refused("postgres://odd:p@ss@{at}/failfast?sslmode=disable", "could not translate", "there is more than one @"),
    refused("postgres://odd:p/w@{at}/failfast?sslmode=disable", "invalid", "there is an @ after a /"),
    refused("postgres://failfast:100%@{at}/failfast", "invalid percent-encoded token", "a % must begin two"),
    refused("host={ip} user=failfast password='secret", "unterminated quoted string", "a quoted value has no end"),
    refused("host={ip} user=failfast password=my secret", "missing \"=\"", "an option has no ="),
    stricter("{url}?sslmode=disable&application_name=a@b", "there is more than one @", AT),
    // Other options.
    connects(
        "{url}?sslmode=disable&options=-c%20geqo%3Doff&application_name=a%26b&\
         connect_timeout=9&keepalives_count=3&gssencmode=disable&client_encoding=UTF8&load_balance_hosts=random&\
         target_session_attrs=read-write",
    ),
    stricter(
        "{url}?sslmode=disable&target_session_attrs=primary",
        "target_session_attrs = primary: must be any, read-write or read-only",
        ROLES,
    ),
    stricter("{url}?sslmode=disable&client_encoding=LATIN1", "client_encoding = LATIN1: must be UTF8", ENCODING),
    refused(
        "{url}?connect_timeout=soon",
        "invalid integer value",
        "connect_timeout = soon: must be a whole number of seconds",
    ),
    refused("{url}?ssl_mode=require", "invalid URI query", "did you mean `sslmode`?"),
    refused("service=nowhere", "not found", "service: service files are not read"),
];

//! Parses the text of a connection string into options: URLs and `key=value` pairs, by libpq's rules.
//!
//! It is stricter than libpq in one point: a URL has at most one `@` that is not percent-encoded, because a second one
//! may belong to a password. Errors quote only the names of options.

use crate::error::ConfigError;

/// The advice for a connection string in which a part of a password may stand in the wrong place.
pub(super) const ENCODE: &str = "in a URL, write the characters @ / ? # [ ] % of a user name or a password as \
                                 %40 %2F %3F %23 %5B %5D %25";

/// The options in the order of the text. If two have the same name, the last one counts.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) pairs: Vec<(String, String)>,
    /// Whether an option's name may be a part of a password that was not quoted.
    pub(super) may_hold_a_secret: bool,
}

impl Options {
    fn set(&mut self, name: &str, value: String) {
        self.pairs.retain(|(other, _)| other != name);
        self.pairs.push((name.to_owned(), value));
    }
}

pub(super) fn parse(text: &str) -> Result<Options, ConfigError> {
    match ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme)) {
        Some(rest) => parse_url(rest),
        None => parse_pairs(text),
    }
}

/// The error for a text that cannot be parsed.
pub(super) fn malformed(problem: &str) -> ConfigError {
    let wanted = "must be a URL such as postgres://user@host/database, or pairs such as host=localhost user=app";
    ConfigError::without_value(ConfigError::WHOLE_URL, format!("{wanted}: {problem}"))
}

/// `user:password@host:port,host:port/database?option=value&option=value`
fn parse_url(rest: &str) -> Result<Options, ConfigError> {
    if rest.matches('@').count() > 1 {
        return Err(malformed(&format!("there is more than one @; {ENCODE}")));
    }
    let mut options = Options::default();
    let mut rest = rest;
    if let Some(end) = rest.find(['@', '/']).filter(|end| rest[*end..].starts_with('@')) {
        let (user, password) = rest[..end].split_once(':').unwrap_or((&rest[..end], ""));
        set_decoded(&mut options, "user", user)?;
        set_decoded(&mut options, "password", password)?;
        rest = &rest[end + 1..];
    }
    let hosts = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
    rest = &rest[hosts.len()..];
    parse_hosts(&mut options, hosts)?;
    if let Some(path) = rest.strip_prefix('/') {
        let database = &path[..path.find('?').unwrap_or(path.len())];
        if database.contains('@') {
            return Err(malformed(&format!("there is an @ after a /; {ENCODE}")));
        }
        set_decoded(&mut options, "dbname", database)?;
        rest = &path[database.len()..];
    }
    if let Some(query) = rest.strip_prefix('?') {
        options.may_hold_a_secret = query.contains('@');
        parse_query(&mut options, query)?;
    }
    Ok(options)
}

/// Parses hosts and ports into two lists of the same length. An empty port stands for the default port.
fn parse_hosts(options: &mut Options, text: &str) -> Result<(), ConfigError> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for place in text.split(',') {
        let (host, port) = match place.strip_prefix('[') {
            Some(address) => {
                let unclosed = || malformed("an IPv6 address must be written as [address] or [address]:port");
                let (host, rest) = address.split_once(']').ok_or_else(unclosed)?;
                match rest.strip_prefix(':') {
                    Some(port) => (host, port),
                    None if rest.is_empty() && !host.is_empty() => (host, ""),
                    None => return Err(unclosed()),
                }
            }
            None => place.split_once(':').unwrap_or((place, "")),
        };
        hosts.push(host);
        ports.push(port);
    }
    let is_given = |values: &[&str]| values.iter().any(|value| !value.is_empty());
    if is_given(&hosts) {
        set_decoded(options, "host", &hosts.join(","))?;
    }
    if is_given(&ports) {
        set_decoded(options, "port", &ports.join(","))?;
    }
    Ok(())
}

fn parse_query(options: &mut Options, query: &str) -> Result<(), ConfigError> {
    for pair in query.split('&').filter(|_| !query.is_empty()) {
        let parts: Vec<&str> = pair.split('=').collect();
        let [name, value] = parts[..] else {
            return Err(malformed("after the ? there must be option=value pairs, separated by &"));
        };
        let (name, value) = (decode(name)?, decode(value)?);
        match (name.as_str(), value.as_str()) {
            ("ssl", "true") => options.set("sslmode", "require".to_owned()), // as JDBC has it
            _ => options.set(&name, value),
        }
    }
    Ok(())
}

fn set_decoded(options: &mut Options, name: &str, text: &str) -> Result<(), ConfigError> {
    if !text.is_empty() {
        options.set(name, decode(text)?);
    }
    Ok(())
}

fn decode(text: &str) -> Result<String, ConfigError> {
    let bad = || malformed(&format!("a % must begin two hexadecimal digits of a byte of UTF-8, not 00; {ENCODE}"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit)).ok_or_else(bad)?;
        let byte = std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.filter(|byte| *byte != 0).ok_or_else(bad)?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

/// `host=localhost password='with a space, a \' and a \\'`
fn parse_pairs(text: &str) -> Result<Options, ConfigError> {
    let mut options = Options::default();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, value) =
            rest.split_once('=').ok_or_else(|| malformed("an option has no =; a value with spaces must be quoted"))?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(malformed("an option has no =; a value with spaces must be quoted"));
        }
        let (value, tail) = parse_value(value.trim_start())?;
        options.set(name, value);
        options.may_hold_a_secret |= name == "password";
        rest = tail.trim_start();
    }
    Ok(options)
}

/// Returns the value at the beginning of the text, and the rest of the text.
fn parse_value(text: &str) -> Result<(String, &str), ConfigError> {
    let (text, is_quoted) = text.strip_prefix('\'').map_or((text, false), |quoted| (quoted, true));
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if is_quoted => return Ok((value, &text[at + 1..])),
            c if !is_quoted && c.is_whitespace() => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if is_quoted { Err(malformed("a quoted value has no end")) } else { Ok((value, "")) }
}

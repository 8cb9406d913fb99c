//! Reads and writes settings with serde, as tables within tables. An error is raised while its value is read, so that a
//! format can add the line.

use std::fmt;

use serde_core::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_core::ser::{SerializeMap, Serializer};
use serde_core::{Deserialize, Serialize};

use super::field::Scalar;
use super::{Settings, keys};
use crate::error::ConfigError;

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (mut settings, mut secret) = (Self::default(), None);
        deserializer.deserialize_map(Node { settings: &mut settings, secret: &mut secret, key: String::new() })?;
        secret.map_or(Ok(settings), |problem| Err(D::Error::custom(problem)))
    }
}

/// The setting that may hold a password.
const SECRET: &str = "url";

/// A value or a table, at its key. The whole has the empty key.
struct Node<'a> {
    settings: &'a mut Settings,
    /// The error of a value that may hold a password. It is raised at the end, because the format would quote the line.
    secret: &'a mut Option<ConfigError>,
    key: String,
}

impl Node<'_> {
    fn read<E: Error>(self, text: &str) -> Result<(), E> {
        match self.settings.set(&self.key, text) {
            Err(problem) if self.key == SECRET => *self.secret = Some(problem),
            result => result.map_err(E::custom)?,
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => f.write_str("a table of a pool's settings"),
            key if keys::is_table(key) => write!(f, "a table of settings for {key}"),
            key => write!(f, "a value for {key}"),
        }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.read(&value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.read(&value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.read(&value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.read(&value.to_string())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.read(value)
    }

    /// A value of null means that the key is not given.
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<(), A::Error> {
        if !self.key.is_empty() && !keys::is_table(&self.key) {
            return Err(A::Error::custom(ConfigError::without_value(&self.key, "is a single value, not a table")));
        }
        let mut seen = Vec::new();
        while let Some(key) = table.next_key_seed(Key { table: &self.key, seen: &seen })? {
            let node = Node { settings: &mut *self.settings, secret: &mut *self.secret, key: key.clone() };
            table.next_value_seed(node)?;
            seen.push(key);
        }
        if self.key == "server_timeouts" && seen.is_empty() {
            self.settings.server_timeouts.enabled = Some(true);
        }
        Ok(())
    }
}

/// Reads a key within a table. The key must exist, and occur once.
struct Key<'a> {
    table: &'a str,
    seen: &'a [String],
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a setting")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<String, E> {
        let key = if self.table.is_empty() { name.to_owned() } else { format!("{}.{name}", self.table) };
        if self.seen.contains(&key) {
            return Err(E::custom(ConfigError::without_value(&key, "is there twice")));
        }
        if name.contains('.') || !(keys::keys(&key).contains(&key) || keys::is_table(&key)) {
            return Err(E::custom(ConfigError::unknown(&key, keys::nearest(&key))));
        }
        Ok(key)
    }
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Table { entries: &self.shown(), depth: 0 }.serialize(serializer)
    }
}

/// Writes settings whose keys have the first `depth` parts in common.
struct Table<'a> {
    entries: &'a [(String, Scalar)],
    depth: usize,
}

impl Table<'_> {
    /// The part of a key that is a key of this table.
    fn part<'k>(&self, key: &'k str) -> &'k str {
        key.split('.').nth(self.depth).unwrap_or_default()
    }
}

impl Serialize for Table<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for group in self.entries.chunk_by(|(one, _), (other, _)| self.part(one) == self.part(other)) {
            match group {
                [(key, scalar)] if key.split('.').count() == self.depth + 1 => {
                    map.serialize_entry(self.part(key), scalar)?
                }
                [(key, _), ..] => {
                    map.serialize_entry(self.part(key), &Table { entries: group, depth: self.depth + 1 })?
                }
                [] => {}
            }
        }
        map.end()
    }
}

impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Whole(number) => serializer.serialize_u64(*number),
            Self::Fraction(number) => serializer.serialize_f64(*number),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
        }
    }
}

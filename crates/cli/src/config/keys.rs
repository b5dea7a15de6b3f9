//! Keys of the configuration: which there are, which is meant, and how layers are laid over
//! another.
//!
//! Layers are JSON tables. The keys that exist are those of [`Config`](super::Config)'s default,
//! written as JSON: one source of truth. Only `remote.<name>` is open-ended.

use serde_json::{Map, Value};

use super::remote::REMOTE_KEYS;
use crate::size;

/// Lays `upper` over `lower`: tables are merged, anything else is replaced.
pub(crate) fn merge(lower: &mut Value, upper: Value) {
    match (lower, upper) {
        (Value::Object(lower), Value::Object(upper)) => {
            for (key, value) in upper {
                merge(lower.entry(key).or_insert(Value::Null), value);
            }
        }
        (lower, upper) => *lower = upper,
    }
}

/// Every key of `table` that holds a value, with its dots, in order.
pub(crate) fn flatten(table: &Value) -> Vec<(String, Value)> {
    let mut keys = Vec::new();
    flatten_into("", table, &mut keys);
    keys
}

fn flatten_into(prefix: &str, value: &Value, keys: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(table) => {
            for (name, value) in table {
                let key = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}.{name}")
                };
                flatten_into(&key, value, keys);
            }
        }
        value => keys.push((prefix.to_owned(), value.clone())),
    }
}

/// A table that holds `value` at `key` and nothing else.
pub(crate) fn nest(key: &str, value: Value) -> Value {
    let parts = match remote_parts(key) {
        Some((name, field)) => vec!["remote", name, field],
        None => key.split('.').collect(),
    };
    parts.into_iter().rev().fold(value, |value, name| {
        Value::Object(Map::from_iter([(name.to_owned(), value)]))
    })
}

/// The keys there are, from the configuration's default.
#[derive(Debug)]
pub(crate) struct KnownKeys {
    keys: Vec<(String, Value)>,
}

impl KnownKeys {
    /// The keys of `default`.
    pub(crate) fn of(default: &Value) -> Self {
        Self {
            keys: flatten(default),
        }
    }

    /// The keys with their dots, but those of remotes.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(key, _)| key.as_str())
    }

    /// Whether `key` exists.
    pub(crate) fn contains(&self, key: &str) -> bool {
        match remote_field(key) {
            Some(field) => REMOTE_KEYS.contains(&field),
            None => self.names().any(|known| known == key),
        }
    }

    /// Whether there is a table `name`, even where the layer holds nothing in it.
    pub(crate) fn has_section(&self, name: &str) -> bool {
        name == "remote" || self.sections().any(|section| section == name)
    }

    fn sections(&self) -> impl Iterator<Item = &str> {
        self.names()
            .filter_map(|key| key.split_once('.'))
            .map(|(section, _)| section)
    }

    /// The known section most like `name`.
    pub(crate) fn nearest_section(&self, name: &str) -> &str {
        let sections = self.sections().chain(["remote"]);
        sections
            .map(|s| (strsim::jaro_winkler(s, name), s))
            .fold(
                (0.0, ""),
                |best, next| {
                    if next.0 > best.0 { next } else { best }
                },
            )
            .1
    }

    /// The known key most like `key`.
    pub(crate) fn nearest(&self, key: &str) -> String {
        if let Some((head, field)) = key.rsplit_once('.').filter(|_| remote_field(key).is_some()) {
            return format!("{head}.{}", most_like(field, REMOTE_KEYS.iter().copied()));
        }
        most_like(key, self.names()).to_owned()
    }

    /// `value` as the kind that `key` holds, where text came from a variable or an INI file.
    pub(crate) fn coerce(&self, key: &str, value: Value) -> Value {
        let Value::String(text) = &value else {
            return value;
        };
        let default = self
            .keys
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, value)| value);
        let coerced = match default {
            Some(Value::Number(_)) => number(key, text),
            Some(Value::Bool(_)) => boolean(text),
            Some(Value::Array(_)) => Some(list(text)),
            None if key.ends_with(".create") || key.ends_with(".lazy") => boolean(text),
            _ => None,
        };
        coerced.unwrap_or(value)
    }
}

/// `name` and `field` of `remote.<name>.field`. A name may hold dots, a field holds none.
fn remote_parts(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix("remote.")?.rsplit_once('.')
}

fn remote_field(key: &str) -> Option<&str> {
    remote_parts(key).map(|(_, field)| field)
}

fn most_like<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    // The last part counts most: a key in the wrong section is a common mistake.
    let last = |key: &'a str| key.rsplit_once('.').map_or(key, |(_, last)| last);
    let wanted = key.rsplit_once('.').map_or(key, |(_, last)| last);
    let score = |candidate: &'a str| {
        strsim::jaro_winkler(key, candidate).max(strsim::jaro_winkler(wanted, last(candidate)))
            + strsim::jaro_winkler(key, candidate)
    };
    known
        .max_by(|a, b| score(a).total_cmp(&score(b)))
        .unwrap_or_default()
}

fn number(key: &str, text: &str) -> Option<Value> {
    let is_size = key.ends_with("_bytes") || key.ends_with("block_size");
    let number = if is_size {
        size::parse(text).ok()
    } else {
        text.trim().parse().ok()
    };
    number.map(Value::from)
}

fn boolean(text: &str) -> Option<Value> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(Value::Bool(true)),
        "false" | "0" | "no" | "off" => Some(Value::Bool(false)),
        _ => None,
    }
}

fn list(text: &str) -> Value {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .collect()
}

//! A configured remote: an address, or a scheme with its fields, as SPFS has them.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;
use url::form_urlencoded::Serializer;

/// Fields of a remote, in SPFS's files and in ours.
pub(crate) const REMOTE_KEYS: &[&str] = &[
    "access_key",
    "access_key_id",
    "account",
    "address",
    "anonymous",
    "create",
    "endpoint",
    "include_secondary_tags",
    "lazy",
    "max_decode_message_size_bytes",
    "max_encode_message_size_bytes",
    "path",
    "path_style",
    "primary",
    "profile",
    "region",
    "sas_token",
    "scheme",
    "secondary",
    "secret_access_key",
    "service_account",
    "session_token",
    "tag_namespace",
    "timeout_ms",
    "token_file",
    "when",
];

/// Fields that are part of the address itself and not of its query.
const ADDRESS_KEYS: &[&str] = &["address", "path", "scheme"];

/// One `remote.<name>` as it stands in the configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct RemoteConfig(pub(crate) BTreeMap<String, Value>);

impl RemoteConfig {
    /// The remote as one address, the form every repository is opened by.
    ///
    /// # Errors
    /// Neither an address nor a scheme with what it needs.
    pub(crate) fn address(&self, name: &str) -> Result<String> {
        let base = match (self.text("scheme"), self.text("address"), self.text("path")) {
            (Some(scheme), _, Some(path)) if is_scheme(scheme, &["fs", "file"]) => {
                return Ok(self.with_query(&format!("file:{}", escape(path))));
            }
            (Some(scheme), _, Some(path)) if is_scheme(scheme, &["tar"]) => {
                format!("tar:{}", escape(path))
            }
            (Some(scheme), None, _) if is_scheme(scheme, &["proxy", "fallback"]) => {
                format!("{}:", scheme.to_ascii_lowercase())
            }
            (_, Some(address), _) => address.to_owned(),
            (Some(scheme), None, None) => {
                bail!("the remote '{name}' has the scheme '{scheme}' but no path or address")
            }
            (Some(scheme), None, Some(_)) => {
                bail!("the remote '{name}' has the unknown scheme '{scheme}'")
            }
            (None, None, _) => {
                bail!("the remote '{name}' has no address: set remote.{name}.address")
            }
        };
        Ok(self.with_query(&base))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }

    fn with_query(&self, base: &str) -> String {
        let mut query = Serializer::new(String::new());
        let fields = self
            .0
            .iter()
            .filter(|(key, _)| !ADDRESS_KEYS.contains(&key.as_str()));
        for (key, value) in fields {
            match value {
                Value::Null => {}
                Value::Array(items) => items.iter().enumerate().for_each(|(position, item)| {
                    query.append_pair(&format!("{key}[{position}]"), &plain(item));
                }),
                value => {
                    query.append_pair(key, &plain(value));
                }
            }
        }
        match query.finish() {
            query if query.is_empty() => base.to_owned(),
            query if base.contains('?') => format!("{base}&{query}"),
            query => format!("{base}?{query}"),
        }
    }

    /// The same, with secrets in its addresses replaced.
    pub(crate) fn redacted(&self) -> Self {
        let redact = |key: &str, value: &Value| match value {
            _ if key != "token_file" && is_secret(key) => "***".into(),
            Value::String(text) => Value::String(redact(text)),
            Value::Array(items) => items
                .iter()
                .map(|item| {
                    item.as_str()
                        .map_or_else(|| item.clone(), |text| redact(text).into())
                })
                .collect(),
            other => other.clone(),
        };
        Self(
            self.0
                .iter()
                .map(|(key, value)| (key.clone(), redact(key, value)))
                .collect(),
        )
    }
}

fn is_scheme(scheme: &str, known: &[&str]) -> bool {
    known.iter().any(|known| known.eq_ignore_ascii_case(scheme))
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Escapes what would end the path of an address.
fn escape(path: &str) -> String {
    path.replace('%', "%25")
        .replace('?', "%3F")
        .replace('#', "%23")
}

/// Whether what has this name must not be shown.
fn is_secret(name: &str) -> bool {
    const SECRET: [&str; 7] = [
        "token",
        "secret",
        "password",
        "passwd",
        "signature",
        "credential",
        "key",
    ];
    let name = name.to_ascii_lowercase();
    name == "sig" || SECRET.iter().any(|word| name.contains(word))
}

/// An address without what must not be shown: a password, and secrets in the query.
pub(crate) fn redact(address: &str) -> String {
    redact_within(address, 4)
}

/// As [`redact`], for an address that may hold others, `depth` deep. What is deeper is not shown.
fn redact_within(address: &str, depth: usize) -> String {
    let Ok(mut url) = Url::parse(address) else {
        return address.to_owned();
    };
    let Some(depth) = depth.checked_sub(1) else {
        return "***".to_owned();
    };
    // A value may be an address itself: a member of a proxy.
    let secret_query = url
        .query_pairs()
        .any(|(name, value)| is_secret(&name) || redact_within(&value, depth) != *value);
    if url.password().is_none() && url.username().is_empty() && !secret_query {
        return address.to_owned();
    }
    if url.password().is_some() {
        // Fails only for an address that cannot have a password, which then has none to hide.
        url.set_password(Some("***")).ok();
    } else if !url.username().is_empty() {
        // A user name alone is often a token.
        url.set_username("***").ok();
    }
    if secret_query {
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        url.query_pairs_mut()
            .clear()
            .extend_pairs(pairs.into_iter().map(|(name, value)| {
                let value = if is_secret(&name) {
                    "***".to_owned()
                } else {
                    redact_within(&value, depth)
                };
                (name, value)
            }));
    }
    url.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn remote(value: Value) -> RemoteConfig {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn both_forms_of_a_remote_give_an_address() {
        let table = [
            (json!({"address": "http://host/path"}), "http://host/path"),
            (
                json!({"scheme": "fs", "path": "/srv/repo"}),
                "file:/srv/repo",
            ),
            (
                json!({"scheme": "FS", "path": "/a b?c", "create": true}),
                "file:/a b%3Fc?create=true",
            ),
            (
                json!({"address": "file:/srv?create=true", "tag_namespace": "ns"}),
                "file:/srv?create=true&tag_namespace=ns",
            ),
            (json!({"scheme": "tar", "path": "/x.tar"}), "tar:/x.tar"),
            (
                json!({"address": "s3://b/p", "region": "here", "path_style": true}),
                "s3://b/p?path_style=true&region=here",
            ),
            (
                json!({"scheme": "grpc", "address": "http2://h:7737", "lazy": true}),
                "http2://h:7737?lazy=true",
            ),
            (
                json!({"scheme": "proxy", "primary": "a", "secondary": ["b", "c"]}),
                "proxy:?primary=a&secondary%5B0%5D=b&secondary%5B1%5D=c",
            ),
        ];
        for (value, expected) in table {
            assert_eq!(
                remote(value.clone()).address("origin").unwrap(),
                expected,
                "{value}"
            );
        }
    }

    #[test]
    fn a_remote_that_lacks_something_says_what() {
        let message = |value| remote(value).address("origin").unwrap_err().to_string();
        assert_eq!(
            message(json!({})),
            "the remote 'origin' has no address: set remote.origin.address"
        );
        assert_eq!(
            message(json!({"scheme": "fs"})),
            "the remote 'origin' has the scheme 'fs' but no path or address"
        );
        assert_eq!(
            message(json!({"scheme": "ftp", "path": "/x"})),
            "the remote 'origin' has the unknown scheme 'ftp'"
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let table = [
            ("http://host/path", "http://host/path"),
            ("/srv/repo", "/srv/repo"),
            ("https://me:pw@host/p", "https://me:***@host/p"),
            ("https://tok@host/p", "https://***@host/p"),
            (
                "https://host/p?lazy=true&access_token=abc",
                "https://host/p?lazy=true&access_token=***",
            ),
            (
                "proxy:?primary=a&secondary[0]=https%3A%2F%2Fme%3Apw%40h%2Fp",
                "proxy:?primary=a&secondary%5B0%5D=https%3A%2F%2Fme%3A***%40h%2Fp",
            ),
            (
                "proxy:?primary=a&secondary[0]=/b",
                "proxy:?primary=a&secondary[0]=/b",
            ),
        ];
        for (address, expected) in table {
            assert_eq!(redact(address), expected);
        }
        let fields = json!({"address": "s3://b", "secret_access_key": "abc", "session_token": "x",
            "access_key_id": "AK", "token_file": "/f", "region": "here"});
        let shown = json!({"address": "s3://b", "secret_access_key": "***",
            "session_token": "***", "access_key_id": "***", "token_file": "/f", "region": "here"});
        assert_eq!(remote(fields).redacted(), remote(shown));
    }
}

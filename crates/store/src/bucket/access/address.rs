//! The address of a bucket: what it may say, and what it says.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use farseek_object::TagNamespace;
use url::Url;

use super::BucketEnvironment;
use super::opening::Opening;
use crate::bucket::BucketRepository;
use crate::bucket::keys::Keys;
use crate::bucket::secret::Secret;
use crate::error::Result;

/// What kind of object store a bucket is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    S3,
    Google,
    Azure,
}

/// What an address may say of each: its name there, and the client's.
const S3: [(&str, &str); 8] = [
    ("endpoint", "aws_endpoint_url_s3"),
    ("region", "aws_region"),
    ("path_style", ""),
    ("access_key_id", "aws_access_key_id"),
    ("secret_access_key", "aws_secret_access_key"),
    ("session_token", "aws_session_token"),
    ("profile", ""),
    ("anonymous", "aws_skip_signature"),
];
const GOOGLE: [(&str, &str); 3] = [
    ("endpoint", "google_base_url"),
    ("service_account", "google_service_account"),
    ("anonymous", "google_skip_signature"),
];
const AZURE: [(&str, &str); 5] = [
    ("endpoint", "azure_storage_endpoint"),
    ("account", "azure_storage_account_name"),
    ("access_key", "azure_storage_account_key"),
    ("sas_token", "azure_storage_sas_key"),
    ("anonymous", "azure_skip_signature"),
];

impl Kind {
    pub(crate) fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" => Some(Self::S3),
            "gs" => Some(Self::Google),
            "az" => Some(Self::Azure),
            _ => None,
        }
    }

    pub(super) fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Google => "gs",
            Self::Azure => "az",
        }
    }

    /// What an address may say.
    pub(crate) fn parameters(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::S3 => &S3,
            Self::Google => &GOOGLE,
            Self::Azure => &AZURE,
        }
    }
}

/// The address of a bucket, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BucketAddress {
    pub(crate) kind: Kind,
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    /// By the names that an address has for them. Any of them may be a secret.
    settings: BTreeMap<String, Secret>,
}

impl fmt::Display for BucketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, bucket) = (self.kind.scheme(), &self.bucket);
        match self.prefix.as_str() {
            "" => write!(f, "{scheme}://{bucket}"),
            prefix => write!(f, "{scheme}://{bucket}/{prefix}"),
        }
    }
}

impl BucketAddress {
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn new(kind: Kind, bucket: &str, prefix: &str) -> Result<Self, String> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if bucket.is_empty() {
            return Err(format!(
                "it names no bucket: {}://BUCKET/PREFIX",
                kind.scheme()
            ));
        }
        if !bucket.bytes().all(is_name) {
            return Err(format!("'{bucket}' is not the name of a bucket"));
        }
        Keys::new(prefix, None)?;
        Ok(Self {
            kind,
            bucket: bucket.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
            settings: BTreeMap::new(),
        })
    }

    /// Takes one parameter; `false` where it is none of this kind's.
    ///
    /// # Errors
    /// What is wrong with its value, in words that do not hold it.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        let mut known = self.kind.parameters().iter();
        if !known.any(|(known, _)| *known == name) {
            return Ok(false);
        }
        if value.is_empty() {
            return Err(format!("{name} is empty"));
        }
        match name {
            "path_style" | "anonymous" if !matches!(value, "true" | "false") => {
                return Err(format!("{name} is true or false"));
            }
            "endpoint" if endpoint(value).is_none() => {
                return Err("endpoint is a URL: http://host:port or https://host".to_owned());
            }
            _ => {}
        }
        self.settings.insert(name.to_owned(), value.into());
        Ok(true)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(Secret::reveal)
    }

    /// What it says: the client's name, its own, and the value.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        let parameters = self.kind.parameters().iter();
        parameters.filter_map(|(name, client)| {
            let value = self.get(name)?;
            (!client.is_empty()).then_some((*client, *name, value))
        })
    }

    /// Opens it. Nothing is asked of it.
    ///
    /// # Errors
    /// `Invalid` where something is missing or wrong, `Io` for the files of a profile.
    pub(crate) fn open(
        &self,
        namespace: Option<TagNamespace>,
        stall: Duration,
        environment: &BucketEnvironment,
    ) -> Result<BucketRepository> {
        let opening = Opening::new(self, stall, environment);
        let (bucket, wire) = opening.bucket()?;
        let keys = Keys::new(&self.prefix, namespace).map_err(|reason| opening.invalid(reason))?;
        Ok(BucketRepository::new(bucket, keys, self.to_string()).with_wire(wire))
    }
}

/// An endpoint: a web address without credentials.
pub(super) fn endpoint(text: &str) -> Option<Url> {
    let url: Url = text.parse().ok()?;
    let is_web = matches!(url.scheme(), "http" | "https");
    let is_plain = url.username().is_empty() && url.password().is_none();
    (is_web && is_plain && url.has_host()).then_some(url)
}

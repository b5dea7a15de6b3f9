//! From an address and the user's surroundings to a bucket that can be asked.
//!
//! What the address says counts most, then the environment's variables, then a profile of the AWS
//! tools; where none of them gives keys, the object store's client gets them from a web identity or
//! from the machine it runs on, and gets new ones before they expire. Everything is decided here,
//! once, when the repository is opened; only the profile's files are read.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use farseek_object::TagNamespace;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ClientOptions, RetryConfig};
use url::Url;

use super::profile;
use super::secret::Secret;
use super::wire::{Wire, WireOptions};
use super::{BucketRepository, handle::Bucket, keys::Keys};
use crate::error::{Result, StoreError};
use crate::http::address::is_loopback;

/// The user's environment, as far as access to buckets depends on it. Its values are never shown.
#[derive(Clone, Default, Debug)]
pub struct BucketEnvironment(Arc<BTreeMap<String, Secret>>);

impl BucketEnvironment {
    /// Of environment variables those that matter here.
    pub fn new<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let wanted = |name: &str| {
            name == "HOME"
                || ["AWS_", "GOOGLE_", "AZURE_"]
                    .iter()
                    .any(|p| name.starts_with(p))
        };
        let variables = variables
            .into_iter()
            .filter(|(name, value)| wanted(name) && !value.is_empty())
            .map(|(name, value)| (name.to_owned(), value.into()));
        Self(Arc::new(variables.collect()))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Secret::reveal)
    }

    /// Those that begin with `prefix`, in lower case, as the object store's client names them.
    fn settings(&self, prefix: &str) -> impl Iterator<Item = (String, &str)> {
        self.0
            .iter()
            .filter(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.reveal()))
    }
}

/// What kind of object store a bucket is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    S3,
    Google,
    Azure,
}

/// What an address may say of each: its name there, and the client's.
const S3: [(&str, &str); 8] = [
    ("endpoint", "aws_endpoint"),
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
    ("sas_token", "azure_storage_sas_token"),
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

    fn scheme(self) -> &'static str {
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
        if !self
            .kind
            .parameters()
            .iter()
            .any(|(known, _)| *known == name)
        {
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

    fn get(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(Secret::reveal)
    }

    /// What the address says, as the client names it.
    fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let parameters = self.kind.parameters().iter();
        parameters.filter_map(|(name, client)| {
            let value = self.get(name)?;
            (!client.is_empty()).then_some((*client, value))
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
        let opening = Opening {
            address: self,
            shown: self.to_string(),
            stall,
            environment,
        };
        let (bucket, wire) = match self.kind {
            Kind::S3 => opening.s3()?,
            Kind::Google => opening.google()?,
            Kind::Azure => opening.azure()?,
        };
        let keys = Keys::new(&self.prefix, namespace).map_err(|reason| opening.invalid(reason))?;
        Ok(BucketRepository::new(bucket, keys, opening.shown).with_wire(wire))
    }
}

fn endpoint(text: &str) -> Option<Url> {
    let url: Url = text.parse().ok()?;
    let is_web = matches!(url.scheme(), "http" | "https");
    let is_plain = url.username().is_empty() && url.password().is_none();
    (is_web && is_plain && url.has_host()).then_some(url)
}

/// A bucket that is being opened.
struct Opening<'a> {
    address: &'a BucketAddress,
    shown: String,
    stall: Duration,
    environment: &'a BucketEnvironment,
}

impl Opening<'_> {
    fn invalid(&self, reason: impl Into<String>) -> StoreError {
        StoreError::Invalid {
            what: "bucket",
            text: self.shown.clone(),
            reason: reason.into(),
        }
    }

    /// The address of the bucket alone, for messages about keys.
    fn root(&self) -> String {
        format!("{}://{}", self.address.kind.scheme(), self.address.bucket)
    }

    fn wire(&self, origins: Vec<String>) -> Result<Wire> {
        let direct = origins.iter().any(|origin| {
            let url: Option<Url> = origin.parse().ok();
            url.is_some_and(|url| is_loopback(&url))
        });
        let options = WireOptions {
            stall: self.stall,
            origins,
            direct,
            seed: RandomState::new().hash_one("seed"),
        };
        Wire::new(&self.shown, options)
    }

    /// An error of a builder, which names settings and never their values.
    fn refused(&self, error: &object_store::Error) -> StoreError {
        let mut cause: &(dyn std::error::Error + 'static) = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        self.invalid(format!("it cannot be opened: {cause}"))
    }

    fn s3(&self) -> Result<(Bucket, Wire)> {
        let settings = self.s3_settings()?;
        let region = settings
            .get("aws_region")
            .or(settings.get("aws_default_region"));
        let region = region.map_or("us-east-1", |region| region.reveal());
        let given = [
            "aws_endpoint",
            "aws_endpoint_url_s3",
            "aws_endpoint_url",
            "endpoint_url",
        ];
        let given = given.iter().find_map(|name| settings.get(*name));
        let base = given.map_or_else(
            || format!("https://s3.{region}.amazonaws.com"),
            |given| given.reveal().trim_end_matches('/').to_owned(),
        );
        let url = endpoint(&base).ok_or_else(|| self.invalid("its endpoint is not a URL"))?;
        let is_path_style = self.address.get("path_style") != Some("false");
        let bucket = &self.address.bucket;
        let base = match is_path_style {
            true => base,
            false => base.replacen("://", &format!("://{bucket}."), 1),
        };
        let wire = self.wire(vec![base.clone()])?;
        let mut builder = AmazonS3Builder::new();
        for (name, value) in &settings {
            if let Ok(key) = name.parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value.reveal());
            }
        }
        // Encrypted, nobody can change a body on its way: to hash it would be for nothing.
        let is_encrypted = url.scheme() == "https";
        let store = builder
            .with_config(AmazonS3ConfigKey::S3Endpoint, base)
            .with_virtual_hosted_style_request(!is_path_style)
            .with_bucket_name(bucket)
            .with_allow_http(!is_encrypted)
            .with_unsigned_payload(is_encrypted)
            .with_conditional_put(S3ConditionalPut::Disabled)
            // A removal is one key's: not every store knows how to remove many.
            .with_disable_bulk_delete(true)
            .with_retry(never())
            .with_http_connector(wire.clone())
            .build()
            .map_err(|error| self.refused(&error))?;
        Ok((Bucket::new(Arc::new(store), &self.root()), wire))
    }

    /// All settings, by the client's names: the address's, the environment's, a profile's.
    fn s3_settings(&self) -> Result<BTreeMap<String, Secret>> {
        const KEYS: [&str; 3] = [
            "aws_access_key_id",
            "aws_secret_access_key",
            "aws_session_token",
        ];
        let mut settings: BTreeMap<String, Secret> = BTreeMap::new();
        let add = |settings: &mut BTreeMap<String, Secret>, all: Vec<(String, Secret)>| {
            // Keys belong together: those of two sources are not mixed.
            let has_keys = KEYS.iter().any(|key| settings.contains_key(*key));
            for (name, value) in all {
                let is_key = KEYS.contains(&name.as_str());
                if !(is_key && has_keys) {
                    settings.entry(name).or_insert(value);
                }
            }
        };
        let named = self.address.named();
        let named = named.map(|(name, value)| (name.to_owned(), value.into()));
        add(&mut settings, named.collect());
        let profile = self.address.get("profile");
        let from_environment: Vec<(String, Secret)> = self
            .environment
            .settings("AWS_")
            // A profile that the address names counts more.
            .filter(|(name, _)| profile.is_none() || !KEYS.contains(&name.as_str()))
            .map(|(name, value)| (name, value.into()))
            .collect();
        add(&mut settings, from_environment);
        let found = self.profile(profile)?;
        add(&mut settings, found);
        Ok(settings)
    }

    /// What the profile says that the address, or the environment, names; or the default one.
    fn profile(&self, named: Option<&str>) -> Result<Vec<(String, Secret)>> {
        let variable = |name| self.environment.get(name);
        let named = named.or(variable("AWS_PROFILE"));
        let home = variable("HOME").map(Path::new);
        let place = |variable_name, file| {
            let given = variable(variable_name).map(PathBuf::from);
            given.or_else(|| home.map(|home| home.join(".aws").join(file)))
        };
        let credentials = read(place("AWS_SHARED_CREDENTIALS_FILE", "credentials"))?;
        let config = read(place("AWS_CONFIG_FILE", "config"))?;
        let name = named.unwrap_or(profile::DEFAULT);
        let found = match profile::profile(&credentials, &config, name) {
            // Nobody has asked for it.
            Err(reason) if named.is_none() => {
                tracing::info!("{reason}");
                None
            }
            found => found.map_err(|reason| self.invalid(reason))?,
        };
        let found = match (found, named) {
            (None, Some(name)) => {
                return Err(self.invalid(format!(
                    "there is no profile '{name}' in ~/.aws/credentials or ~/.aws/config"
                )));
            }
            (found, _) => found.unwrap_or_default(),
        };
        // A name that counts less than what the environment says.
        let client_name = |name: &str| match name {
            "region" => "aws_default_region".to_owned(),
            name => name.to_owned(),
        };
        Ok(found
            .into_iter()
            .map(|(name, value)| (client_name(&name), value.into()))
            .collect())
    }

    /// What the variables with this prefix say, and then the address, which counts more.
    fn settings(&self, prefix: &'static str) -> impl Iterator<Item = (String, &str)> {
        let named = self.address.named();
        let named = named.map(|(name, value)| (name.to_owned(), value));
        self.environment.settings(prefix).chain(named)
    }

    fn google(&self) -> Result<(Bucket, Wire)> {
        let base = self.address.get("endpoint");
        let base = base.unwrap_or("https://storage.googleapis.com");
        let wire = self.wire(vec![base.trim_end_matches('/').to_owned()])?;
        let mut builder = GoogleCloudStorageBuilder::new();
        for (name, value) in self.settings("GOOGLE_") {
            if let Ok(key) = name.parse::<GoogleConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        let store = builder
            .with_bucket_name(&self.address.bucket)
            .with_client_options(ClientOptions::new().with_allow_http(base.starts_with("http:")))
            .with_retry(never())
            .with_http_connector(wire.clone())
            .build()
            .map_err(|error| self.refused(&error))?;
        Ok((Bucket::new(Arc::new(store), &self.root()), wire))
    }

    fn azure(&self) -> Result<(Bucket, Wire)> {
        let variable = |name| self.environment.get(name);
        let account = self.address.get("account");
        let account = account.or(variable("AZURE_STORAGE_ACCOUNT_NAME"));
        let account = account.ok_or_else(|| {
            self.invalid("it needs an account: account= or AZURE_STORAGE_ACCOUNT_NAME")
        })?;
        let base = self.address.get("endpoint").map(str::to_owned);
        let base = base.or(variable("AZURE_STORAGE_ENDPOINT").map(str::to_owned));
        let base = base.unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
        let wire = self.wire(vec![base.trim_end_matches('/').to_owned()])?;
        let mut builder = MicrosoftAzureBuilder::new();
        for (name, value) in self.settings("AZURE_") {
            if let Ok(key) = name.parse::<AzureConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        let store = builder
            .with_container_name(&self.address.bucket)
            .with_client_options(ClientOptions::new().with_allow_http(base.starts_with("http:")))
            .with_retry(never())
            .with_http_connector(wire.clone())
            .build()
            .map_err(|error| self.refused(&error))?;
        Ok((Bucket::new(Arc::new(store), &self.root()), wire))
    }
}

/// The client's own retries: [`wire`](super::wire) does that.
fn never() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

/// What is in a file; nothing where it is not there.
fn read(path: Option<PathBuf>) -> Result<String> {
    let Some(path) = path else {
        return Ok(String::new());
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(StoreError::io("read the profiles in", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(
        parameters: &[(&str, &str)],
        variables: &[(&str, &str)],
    ) -> Result<BTreeMap<String, String>> {
        let mut address = BucketAddress::new(Kind::S3, "b", "").unwrap();
        for (name, value) in parameters {
            assert!(address.set(name, value).unwrap());
        }
        let opening = Opening {
            address: &address,
            shown: address.to_string(),
            stall: Duration::from_secs(1),
            environment: &BucketEnvironment::new(variables.iter().copied()),
        };
        let settings = opening.s3_settings()?;
        let plain = |(name, value): (String, Secret)| (name, value.reveal().to_owned());
        Ok(settings.into_iter().map(plain).collect())
    }

    #[test]
    fn the_address_counts_most_then_the_environment_then_a_profile() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let write = |name: &str, text| {
            std::fs::write(home.path().join(".aws").join(name), text).unwrap();
        };
        write(
            "credentials",
            "[default]\naws_access_key_id=d\naws_secret_access_key=ds\naws_session_token=dt\n\
             [site]\naws_access_key_id=s\naws_secret_access_key=ss\n",
        );
        write(
            "config",
            "[profile site]\nregion=there\nendpoint_url=http://site\n",
        );
        let home = ("HOME", home.path().to_str().unwrap());
        let key = |all: &BTreeMap<String, String>, name: &str| all.get(name).cloned();

        let all = settings(&[], &[home]).unwrap();
        assert_eq!(key(&all, "aws_access_key_id").unwrap(), "d");
        assert_eq!(key(&all, "aws_session_token").unwrap(), "dt");

        let keys = [("AWS_ACCESS_KEY_ID", "e"), ("AWS_SECRET_ACCESS_KEY", "es")];
        let all = settings(&[], &[home, keys[0], keys[1]]).unwrap();
        assert_eq!(key(&all, "aws_access_key_id").unwrap(), "e");
        assert_eq!(key(&all, "aws_session_token"), None, "keys are not mixed");

        let all = settings(&[("profile", "site")], &[home, keys[0], keys[1]]).unwrap();
        assert_eq!(key(&all, "aws_secret_access_key").unwrap(), "ss");
        assert_eq!(key(&all, "aws_default_region").unwrap(), "there");
        let here = [("AWS_PROFILE", "site"), ("AWS_DEFAULT_REGION", "here")];
        let all = settings(&[], &[home, here[0], here[1]]).unwrap();
        assert_eq!(key(&all, "aws_default_region").unwrap(), "here");
        assert_eq!(key(&all, "aws_access_key_id").unwrap(), "s");

        let given = [("access_key_id", "a"), ("secret_access_key", "as")];
        let all = settings(&given, &[home, keys[0], keys[1], here[0]]).unwrap();
        assert_eq!(key(&all, "aws_access_key_id").unwrap(), "a");

        let error = settings(&[("profile", "nobody")], &[home]).unwrap_err();
        assert!(error.to_string().contains("no profile 'nobody'"), "{error}");
    }
}

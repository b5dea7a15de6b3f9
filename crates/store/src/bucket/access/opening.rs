//! A bucket that is being opened: its settings are looked up, and a client is built of them.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::multipart::MultipartStore;
use object_store::{ObjectStore, RetryConfig};
use url::Url;

use super::address::endpoint;
use super::settings::{self, ADDRESS, ENVIRONMENT, PROFILE, Settings, Source};
use super::{BucketAddress, BucketEnvironment, Kind};
use crate::bucket::handle::Bucket;
use crate::bucket::profile;
use crate::bucket::wire::{Wire, WireOptions};
use crate::error::{Result, StoreError};
use crate::http::address::is_loopback;

/// What the clients' builders have in common, and no trait of their own for.
trait Builder: Sized {
    type Key: FromStr;
    type Store: ObjectStore + MultipartStore;

    fn with(self, key: Self::Key, value: &str) -> Self;

    /// The client, whose requests go by `wire`, which does what it would do about retries.
    fn finish(self, wire: Wire) -> object_store::Result<Self::Store>;
}

impl Builder for AmazonS3Builder {
    type Key = AmazonS3ConfigKey;
    type Store = AmazonS3;

    fn with(self, key: Self::Key, value: &str) -> Self {
        self.with_config(key, value)
    }

    fn finish(self, wire: Wire) -> object_store::Result<AmazonS3> {
        self.with_retry(never()).with_http_connector(wire).build()
    }
}

impl Builder for GoogleCloudStorageBuilder {
    type Key = GoogleConfigKey;
    type Store = GoogleCloudStorage;

    fn with(self, key: Self::Key, value: &str) -> Self {
        self.with_config(key, value)
    }

    fn finish(self, wire: Wire) -> object_store::Result<GoogleCloudStorage> {
        self.with_retry(never()).with_http_connector(wire).build()
    }
}

impl Builder for MicrosoftAzureBuilder {
    type Key = AzureConfigKey;
    type Store = MicrosoftAzure;

    fn with(self, key: Self::Key, value: &str) -> Self {
        self.with_config(key, value)
    }

    fn finish(self, wire: Wire) -> object_store::Result<MicrosoftAzure> {
        self.with_retry(never()).with_http_connector(wire).build()
    }
}

/// The client's own retries: [`wire`](crate::bucket::wire) does that.
fn never() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

/// A bucket that is being opened.
pub(super) struct Opening<'a> {
    address: &'a BucketAddress,
    stall: Duration,
    environment: &'a BucketEnvironment,
}

impl<'a> Opening<'a> {
    pub(super) fn new(
        address: &'a BucketAddress,
        stall: Duration,
        environment: &'a BucketEnvironment,
    ) -> Self {
        Self {
            address,
            stall,
            environment,
        }
    }

    pub(super) fn invalid(&self, reason: impl Into<String>) -> StoreError {
        StoreError::Invalid {
            what: "bucket",
            text: self.address.to_string(),
            reason: reason.into(),
        }
    }

    /// The bucket, and the way there.
    pub(super) fn bucket(&self) -> Result<(Bucket, Wire)> {
        let settings = self.settings()?;
        match self.address.kind {
            Kind::S3 => self.s3(settings),
            Kind::Google => self.google(settings),
            Kind::Azure => self.azure(settings),
        }
    }

    /// All settings: the address's, the environment's, a profile's.
    pub(super) fn settings(&self) -> Result<Settings> {
        let kind = self.address.kind;
        let named = self.address.named();
        let named = named.map(|(client, own, value)| (client.to_owned(), own.to_owned(), value));
        let mut sources = vec![Source::new(ADDRESS, kind, named)];
        let prefix = match kind {
            Kind::S3 => "AWS_",
            Kind::Google => "GOOGLE_",
            Kind::Azure => "AZURE_",
        };
        let variables = self.environment.starting(prefix);
        let variables =
            variables.map(|(name, value)| (name.to_ascii_lowercase(), name.to_owned(), value));
        let variables = Source::new(ENVIRONMENT, kind, variables);
        let profile = self.address.get("profile");
        sources.push(match profile {
            None => variables,
            // A profile that the address names counts more.
            Some(_) => variables.without_credentials(kind),
        });
        let found = match kind {
            Kind::S3 => self.profile(profile)?,
            Kind::Google | Kind::Azure => BTreeMap::new(),
        };
        let found = found.iter().map(|(name, value)| {
            // A name that counts less than what the environment says.
            let client = if name == "region" {
                "aws_default_region"
            } else {
                name
            };
            (client.to_owned(), name.clone(), value.as_str())
        });
        sources.push(Source::new(PROFILE, kind, found));
        settings::merge(kind, &sources).map_err(|reason| self.invalid(reason))
    }

    /// What the profile says that the address, or the environment, names; or the default one.
    fn profile(&self, named: Option<&str>) -> Result<BTreeMap<String, String>> {
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
        match (found, named) {
            (None, Some(name)) => Err(self.invalid(format!(
                "there is no profile '{name}' in ~/.aws/credentials or ~/.aws/config"
            ))),
            (found, _) => Ok(found.unwrap_or_default()),
        }
    }

    fn s3(&self, mut settings: Settings) -> Result<(Bucket, Wire)> {
        let get = |name| settings.get(name).map(|value| value.reveal());
        let region = get("aws_region").or(get("aws_default_region"));
        let given = get("aws_endpoint_url_s3").or(get("aws_endpoint"));
        let base = given.map_or_else(
            || format!("https://s3.{}.amazonaws.com", region.unwrap_or("us-east-1")),
            str::to_owned,
        );
        let (base, url) = self.base(&base)?;
        let is_path_style = self.address.get("path_style") != Some("false");
        let bucket = &self.address.bucket;
        let base = match is_path_style {
            true => base,
            false => base.replacen("://", &format!("://{bucket}."), 1),
        };
        // Encrypted, nobody can change a body on its way: to hash it would be for nothing.
        let is_encrypted = url.scheme() == "https";
        let ours = [
            ("aws_endpoint_url_s3", base.as_str()),
            ("aws_bucket", bucket),
            ("aws_virtual_hosted_style_request", said(!is_path_style)),
            ("aws_unsigned_payload", said(is_encrypted)),
            ("aws_conditional_put", "disabled"),
            // A removal is one key's: not every store knows how to remove many.
            ("aws_disable_bulk_delete", "true"),
        ];
        add(&mut settings, &ours);
        self.build(AmazonS3Builder::new(), &settings, base)
    }

    fn google(&self, mut settings: Settings) -> Result<(Bucket, Wire)> {
        for name in ["google_service_account", "google_application_credentials"] {
            if let Some(path) = settings.get(name).map(|path| path.reveal())
                && let Err(error) = File::open(path)
            {
                return Err(self.invalid(format!("its key file {path} cannot be read: {error}")));
            }
        }
        let get = |name| settings.get(name).map(|value| value.reveal());
        let base = get("google_base_url").unwrap_or("https://storage.googleapis.com");
        let (base, _) = self.base(base)?;
        // The client asks for a token even where it would send none.
        let is_anonymous = get("google_skip_signature") == Some("true");
        if is_anonymous {
            add(&mut settings, &[("google_bearer_token", "")]);
        }
        let ours = [
            ("google_base_url", base.as_str()),
            ("google_bucket", &self.address.bucket),
        ];
        add(&mut settings, &ours);
        self.build(GoogleCloudStorageBuilder::new(), &settings, base)
    }

    fn azure(&self, mut settings: Settings) -> Result<(Bucket, Wire)> {
        let get = |name| settings.get(name).map(|value| value.reveal());
        let account = get("azure_storage_account_name").ok_or_else(|| {
            self.invalid("it needs an account: account= or AZURE_STORAGE_ACCOUNT_NAME")
        })?;
        if !account
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Err(self.invalid(format!("'{account}' is not the name of an account")));
        }
        let base = get("azure_storage_endpoint").map(str::to_owned);
        let base = base.unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
        let (base, _) = self.base(&base)?;
        let ours = [
            ("azure_storage_endpoint", base.as_str()),
            ("azure_container_name", &self.address.bucket),
        ];
        add(&mut settings, &ours);
        self.build(MicrosoftAzureBuilder::new(), &settings, base)
    }

    /// What begins every address in the store, without a slash at its end.
    fn base(&self, given: &str) -> Result<(String, Url)> {
        let base = given.trim_end_matches('/').to_owned();
        let url = endpoint(&base).ok_or_else(|| self.invalid("its endpoint is not a URL"))?;
        Ok((base, url))
    }

    fn build<B: Builder>(
        &self,
        builder: B,
        settings: &Settings,
        base: String,
    ) -> Result<(Bucket, Wire)> {
        let wire = self.wire(base)?;
        let told = settings
            .iter()
            .fold(builder, |builder, (name, value)| match name.parse() {
                Ok(key) => builder.with(key, value.reveal()),
                Err(_) => builder,
            });
        let store = told.finish(wire.clone());
        let store = store.map_err(|error| self.refused(settings, &error))?;
        let root = format!("{}://{}", self.address.kind.scheme(), self.address.bucket);
        Ok((Bucket::new(Arc::new(store), &root), wire))
    }

    fn wire(&self, origin: String) -> Result<Wire> {
        let url: Option<Url> = origin.parse().ok();
        let options = WireOptions {
            stall: self.stall,
            origins: vec![origin],
            direct: url.is_some_and(|url| is_loopback(&url)),
            seed: RandomState::new().hash_one("seed"),
        };
        Wire::new(&self.address.to_string(), options)
    }

    /// An error of a builder. Those about credentials may quote them: they are told in our words.
    fn refused(&self, settings: &Settings, error: &object_store::Error) -> StoreError {
        let is_given = |name: &str| settings.contains_key(name);
        self.invalid(match self.address.kind {
            Kind::Google => "its credentials cannot be used: they are not the key of a service \
                             account, in JSON, as Google gives it"
                .to_owned(),
            Kind::Azure if is_given("azure_storage_account_key") => {
                "its access key cannot be used: it is not base64".to_owned()
            }
            Kind::Azure if is_given("azure_storage_sas_key") => {
                "its SAS token cannot be used: it is not NAME=VALUE, joined by &".to_owned()
            }
            Kind::S3 | Kind::Azure => {
                let mut cause: &(dyn StdError + 'static) = error;
                while let Some(inner) = cause.source() {
                    cause = inner;
                }
                format!("it cannot be opened: {cause}")
            }
        })
    }
}

fn add(settings: &mut Settings, ours: &[(&str, &str)]) {
    let ours = ours
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).into()));
    settings.extend(ours);
}

fn said(value: bool) -> &'static str {
    if value { "true" } else { "false" }
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

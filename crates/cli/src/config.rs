//! What the user configured, from every layer, as one plain value.
//!
//! Layers, later ones over earlier ones: defaults, SPFS's files and `SPFS_*` variables,
//! `/etc/farseek.toml`, `~/.config/farseek/farseek.toml`, `FARSEEK_*` variables; flags are laid
//! over by the commands. Objects are built from a [`Config`] elsewhere.

mod names;
mod cache;
mod remote;
mod keys;
mod layers;
mod malformed;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(crate) use self::cache::{CacheConfig, Percent};
use self::keys::KnownKeys;
use self::names::any_case;
pub(crate) use self::names::{FormatName, PromoteName, StrategyName, VerifyName};
pub(crate) use self::remote::{RemoteConfig, redact};
use crate::environment::Environment;
use crate::exit::Failure;

/// Every key of the configuration and its value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) user: UserConfig,
    pub(crate) storage: StorageConfig,
    pub(crate) filesystem: FilesystemConfig,
    pub(crate) fuse: FuseConfig,
    pub(crate) reader: ReaderConfig,
    pub(crate) cache: CacheConfig,
    pub(crate) environment: EnvironmentConfig,
    pub(crate) log: LogConfig,
    #[serde(default)]
    pub(crate) remote: BTreeMap<String, RemoteConfig>,
}

/// Who signs tags.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct UserConfig {
    /// The login name.
    pub(crate) name: String,
    /// The host's name.
    pub(crate) domain: String,
}

/// The local repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StorageConfig {
    /// Its directory.
    pub(crate) root: PathBuf,
    /// The namespace its tags are read and written in.
    pub(crate) tag_namespace: Option<String>,
    /// How digests of new objects are computed.
    #[serde(deserialize_with = "any_case")]
    pub(crate) digest_strategy: StrategyName,
    /// How new objects are laid out.
    #[serde(deserialize_with = "any_case")]
    pub(crate) encoding_format: FormatName,
}

/// What a mount is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FilesystemConfig {
    /// Remotes that are read behind the local repository; `origin` where it is configured and
    /// nothing is said here.
    pub(crate) secondary_repositories: Vec<String>,
    /// Annotations of more bytes than this are stored as blobs.
    pub(crate) annotation_size_limit: u64,
}

/// The mount itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FuseConfig {
    /// Threads that answer the kernel.
    pub(crate) worker_threads: usize,
    /// Whether the kernel reads local files by itself, where it can.
    pub(crate) passthrough: bool,
    /// Whether tags of secondary repositories can be mounted.
    pub(crate) include_secondary_tags: bool,
    /// Memory for blocks of payloads.
    pub(crate) blob_cache_max_bytes: u64,
    /// Blocks of payloads larger than this stay in memory only while they are being read.
    pub(crate) blob_cache_max_single_bytes: u64,
}

/// How payloads are fetched.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReaderConfig {
    /// Bytes of a block, a power of two.
    pub(crate) block_size: u64,
    /// The largest payload that is fetched whole and verified first.
    pub(crate) whole_fetch_max_bytes: u64,
    /// Bytes that may be on their way at once.
    pub(crate) in_flight_max_bytes: u64,
    /// Requests that may be on their way at once.
    pub(crate) max_fetches: usize,
    /// The longest single request.
    pub(crate) fetch_max_bytes: u64,
    /// Seconds without progress after which a remote is given up.
    pub(crate) stall_seconds: u64,
    /// When payloads are checked against their digests.
    #[serde(deserialize_with = "any_case")]
    pub(crate) verify: VerifyName,
    /// When payloads become payloads of the local repository.
    #[serde(deserialize_with = "any_case")]
    pub(crate) promote: PromoteName,
    /// The most that is fetched ahead of one reader; 0 turns it off.
    pub(crate) readahead_max_bytes: u64,
    /// The most that is fetched ahead of all readers together.
    pub(crate) readahead_budget_bytes: u64,
}

/// What runtimes do with the variables they are given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EnvironmentConfig {
    /// Those that the user's startup file must not change.
    pub(crate) variable_names_to_preserve: Vec<String>,
}

/// What is logged, and where.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LogConfig {
    /// A filter such as `info` or `farseek_reader=debug`.
    pub(crate) filter: Option<String>,
    /// A file to append to.
    pub(crate) file: Option<PathBuf>,
}

impl Config {
    /// The configuration where nobody has configured anything.
    pub(crate) fn default_for(environment: &Environment) -> Self {
        let data = environment.data_dir();
        Self {
            user: UserConfig {
                name: environment.user.clone(),
                domain: environment.host.clone(),
            },
            storage: StorageConfig {
                root: data.map_or_else(|| PathBuf::from("/tmp/spfs"), |data| data.join("spfs")),
                tag_namespace: None,
                digest_strategy: StrategyName::WithKindAndSalt,
                encoding_format: FormatName::FlatBuffers,
            },
            filesystem: FilesystemConfig {
                secondary_repositories: Vec::new(),
                annotation_size_limit: 16_384,
            },
            fuse: FuseConfig {
                worker_threads: environment.cpus.clamp(1, 8),
                passthrough: true,
                include_secondary_tags: true,
                blob_cache_max_bytes: 256 << 20,
                blob_cache_max_single_bytes: 64 << 20,
            },
            reader: ReaderConfig {
                block_size: 256 << 10,
                whole_fetch_max_bytes: 1 << 20,
                in_flight_max_bytes: 64 << 20,
                max_fetches: 64,
                fetch_max_bytes: 4 << 20,
                stall_seconds: 30,
                verify: VerifyName::Auto,
                promote: PromoteName::Complete,
                readahead_max_bytes: 32 << 20,
                readahead_budget_bytes: 64 << 20,
            },
            cache: CacheConfig::default_in(environment.cache_dir().as_deref()),
            environment: EnvironmentConfig {
                variable_names_to_preserve: Vec::new(),
            },
            log: LogConfig {
                filter: None,
                file: None,
            },
            remote: BTreeMap::new(),
        }
    }

    /// Reads every layer.
    ///
    /// # Errors
    /// A file that does not parse, an unknown key in a file of ours or in a `FARSEEK_*`
    /// variable, a value of the wrong kind: each with where it stands.
    pub(crate) fn load(environment: &Environment) -> Result<Self> {
        let default = Self::default_for(environment);
        let mut merged =
            serde_json::to_value(&default).context("the defaults cannot be written")?;
        let known = KnownKeys::of(&merged);
        let mut lists_secondaries = false;
        for layer in layers::read(environment, &known)? {
            for (key, value) in layer.values {
                lists_secondaries |= key == "filesystem.secondary_repositories";
                keys::merge(&mut merged, keys::nest(&key, value));
                // One key at a time, so that the error can name it.
                Self::deserialize(&merged).with_context(|| {
                    format!("{}: the value of '{key}' is not valid", layer.source)
                })?;
            }
        }
        let mut config = Self::deserialize(merged).context("the configuration is not valid")?;
        if !lists_secondaries && config.remote.contains_key("origin") {
            config.filesystem.secondary_repositories = vec!["origin".into()];
        }
        // A process in the background works in another directory.
        let paths = std::iter::once(&mut config.storage.root)
            .chain(&mut config.log.file)
            .chain(&mut config.cache.directory);
        for path in paths {
            *path = std::path::absolute(environment.expand(&path.to_string_lossy()))
                .with_context(|| format!("'{}' is not a path", path.display()))?;
        }
        for remote in config.remote.values_mut() {
            if let Some(Value::String(path)) = remote.0.get_mut("path") {
                *path = environment.expand(path).to_string_lossy().into_owned();
            }
        }
        config.check()?;
        Ok(config)
    }

    /// Values that are of the right kind and yet cannot work.
    pub(crate) fn check(&self) -> Result<()> {
        let reader = &self.reader;
        if !reader.block_size.is_power_of_two()
            || !(4 << 10..=16 << 20).contains(&reader.block_size)
        {
            bail!(
                "reader.block_size is {}: it must be a power of two from 4 KiB to 16 MiB",
                reader.block_size
            );
        }
        let positive = [
            ("reader.stall_seconds", reader.stall_seconds),
            ("reader.max_fetches", reader.max_fetches as u64),
            ("reader.fetch_max_bytes", reader.fetch_max_bytes),
            ("reader.in_flight_max_bytes", reader.in_flight_max_bytes),
            ("fuse.worker_threads", self.fuse.worker_threads as u64),
        ];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => bail!("{key} is 0: it must be at least 1"),
            None => Ok(()),
        }
    }

    /// Makes `origin` a proxy of the repository at `path`, made if need be, over what it was.
    pub(crate) fn wrap_origin(&mut self, path: &Path) -> Result<()> {
        let Some(origin) = self.remote.remove("origin") else {
            return Err(Failure::usage(
                "--wrap-origin needs a remote 'origin', and none is configured",
            ));
        };
        let path = std::path::absolute(path)
            .map_err(|_| Failure::usage("--wrap-origin is empty: say which directory"))?;
        let path = path.to_str().context("--wrap-origin is not UTF-8")?;
        let remote =
            |fields: Value| RemoteConfig(serde_json::from_value(fields).unwrap_or_default());
        let outer = json!({"scheme": "fs", "path": path, "create": true});
        let proxy = json!({
            "scheme": "proxy", "primary": "outerrepo", "secondary": ["remoteorigin"],
        });
        self.remote.insert("outerrepo".into(), remote(outer));
        self.remote.insert("remoteorigin".into(), origin);
        self.remote.insert("origin".into(), remote(proxy));
        Ok(())
    }

    /// The same without secrets, to be shown.
    pub(crate) fn redacted(&self) -> Self {
        let remote = self
            .remote
            .iter()
            .map(|(name, remote)| (name.clone(), remote.redacted()));
        let mut shown = self.clone();
        shown.remote = remote.collect();
        for name in &mut shown.filesystem.secondary_repositories {
            *name = redact(name);
        }
        shown
    }

    /// Who tags are made by: `name@domain`.
    pub(crate) fn signature(&self) -> String {
        format!("{}@{}", self.user.name, self.user.domain)
    }
}

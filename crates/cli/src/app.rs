//! What every command works with: surroundings, configuration, output; and the second step from
//! configuration to objects: repositories and readers.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Local};
use farseek_object::{DigestStrategy, Encoding, Header, TagNamespace};
use farseek_reader::{BlockSize, DiskOptions, Promote, Reader, ReaderOptions, Verify};
use farseek_runtime::daemon::{self, Spawned};
use farseek_runtime::record::Runtimes;
use farseek_runtime::run::Host;
use farseek_store::{
    BucketEnvironment, FsOptions, FsRepository, Location, OpenOptions, Repository,
};
use tokio::runtime::Handle;

use crate::args::IN_BACKGROUND;
use crate::config::{Config, FormatName, PromoteName, StrategyName, VerifyName};
use crate::environment::Environment;
use crate::exit::{self, AlreadyTold, Failure};
use crate::output::Output;
use crate::sources::Sources;

/// The command's surroundings.
pub(crate) struct App {
    pub(crate) environment: Environment,
    pub(crate) config: Config,
    pub(crate) output: Output,
    /// When the command began: what relative times count from.
    pub(crate) now: DateTime<Local>,
    /// Whether this is the child that goes to the background.
    pub(crate) in_background: bool,
    /// What this process is to the runtime it is to serve.
    pub(crate) host: Option<Host>,
}

impl App {
    /// The repository a command works on: `remote` where it is given, else the local one.
    pub(crate) async fn repository(&self, remote: Option<&str>) -> Result<Arc<dyn Repository>> {
        match remote {
            Some(remote) => self.remote(remote).await,
            None => self.local()?.ok_or_else(|| {
                let root = self.config.storage.root.display();
                Failure::not_found(format!(
                    "there is no local repository at {root} yet; `farseek init` or the first \
                     `farseek commit` makes one, --remote uses another"
                ))
            }),
        }
    }

    /// The repository to write to: the local one is made where it is not there yet.
    pub(crate) async fn writable(&self, remote: Option<&str>) -> Result<Arc<dyn Repository>> {
        match remote {
            Some(remote) => self.remote(remote).await,
            None => {
                let repository =
                    FsRepository::create(&self.config.storage.root, self.fs_options()?)?;
                Ok(Arc::new(repository))
            }
        }
    }

    /// The local repository, where it is there.
    pub(crate) fn local(&self) -> Result<Option<Arc<dyn Repository>>> {
        let root = &self.config.storage.root;
        if !is_there(root)? {
            return Ok(None);
        }
        Ok(Some(Arc::new(FsRepository::open(
            root,
            self.fs_options()?,
        )?)))
    }

    /// The runtime records of the local repository, where it is there.
    pub(crate) fn runtimes(&self) -> Result<Option<Runtimes>> {
        let root = &self.config.storage.root;
        if !is_there(root)? {
            return Ok(None);
        }
        // Their tags are in no namespace, whatever is configured.
        let repository = FsRepository::open(root, FsOptions::default())?;
        Ok(Some(self.runtimes_in(Arc::new(repository))))
    }

    /// The runtime records of a repository.
    pub(crate) fn runtimes_in(&self, repository: Arc<dyn Repository>) -> Runtimes {
        Runtimes::new(repository, self.config.signature(), self.header())
    }

    /// Opens a remote by its configured name, its URL or its path, in this order.
    pub(crate) async fn remote(&self, specifier: &str) -> Result<Arc<dyn Repository>> {
        self.remote_of(specifier, 1).await
    }

    /// As [`remote`](Self::remote), for one of `remotes` that are asked one after the other: each
    /// has its share of the time, so that one that hangs does not use up what the next needs.
    pub(crate) async fn remote_of(
        &self,
        specifier: &str,
        remotes: usize,
    ) -> Result<Arc<dyn Repository>> {
        let address = self.address(specifier)?;
        let stall = share(self.stall(), remotes);
        self.open(&address, stall).await.with_context(|| {
            match self.config.remote.contains_key(specifier) {
                true => format!("cannot open the remote '{specifier}'"),
                false => "cannot open the repository".to_owned(),
            }
        })
    }

    /// What `specifier` means as an address.
    pub(crate) fn address(&self, specifier: &str) -> Result<String> {
        if let Some(remote) = self.config.remote.get(specifier) {
            return remote.address(specifier);
        }
        if specifier.contains('/') || specifier.contains(':') || matches!(specifier, "." | "..") {
            return Ok(specifier.to_owned());
        }
        let names: Vec<&str> = self.config.remote.keys().map(String::as_str).collect();
        let known = match names[..] {
            [] => "no remote is configured".to_owned(),
            _ => format!("the configured ones are {}", names.join(", ")),
        };
        Err(Failure::not_found(format!(
            "there is no remote '{specifier}': {known}; a path must contain a '/' (./{specifier})"
        )))
    }

    /// The address of a member of a proxy, where it is given as the name of a remote.
    fn member(&self, specifier: &str) -> Result<Option<String>> {
        let address = self.address(specifier)?;
        let is_name = self.config.remote.contains_key(specifier);
        Ok(is_name.then_some(address))
    }

    async fn open(&self, address: &str, stall: Duration) -> Result<Arc<dyn Repository>> {
        let names = |name: &str| self.member(name).map_err(|error| exit::message(&error));
        let location = Location::parse_with(address, &names)?;
        let options = OpenOptions {
            stall,
            now: self.now,
            environment: self.bucket_environment(),
            ..OpenOptions::default()
        };
        Ok(farseek_store::open(&location, &options).await?)
    }

    /// The namespace whose tags a command sees: of `remote` where it is given, else of the local
    /// repository. Most have none.
    pub(crate) fn namespace(&self, remote: Option<&str>) -> Result<Option<TagNamespace>> {
        let Some(remote) = remote else {
            return Ok(self.fs_options()?.tag_namespace);
        };
        let names = |name: &str| self.member(name).map_err(|error| exit::message(&error));
        let location = Location::parse_with(&self.address(remote)?, &names)?;
        Ok(location.tag_namespace().cloned())
    }

    /// What the user's environment says of access to buckets.
    pub(crate) fn bucket_environment(&self) -> BucketEnvironment {
        let environment = &self.environment;
        let home = environment.home.as_deref().and_then(Path::to_str);
        let home = home.map(|home| ("HOME", home));
        let variables = environment.variables.iter();
        let variables = variables.map(|(name, value)| (name.as_str(), value.as_str()));
        BucketEnvironment::new(variables.chain(home))
    }

    /// How the local repository is opened.
    pub(crate) fn fs_options(&self) -> Result<FsOptions> {
        let namespace = self
            .config
            .storage
            .tag_namespace
            .as_deref()
            .filter(|n| !n.is_empty());
        let tag_namespace: Option<TagNamespace> = namespace
            .map(str::parse)
            .transpose()
            .context("storage.tag_namespace is not valid")?;
        Ok(FsOptions {
            tag_namespace,
            ..FsOptions::default()
        })
    }

    /// The header of new objects.
    pub(crate) fn header(&self) -> Header {
        Header {
            strategy: match self.config.storage.digest_strategy {
                StrategyName::Legacy => DigestStrategy::Legacy,
                StrategyName::WithKindAndSalt => DigestStrategy::KindAndSalt,
            },
            encoding: match self.config.storage.encoding_format {
                FormatName::Legacy => Encoding::Legacy,
                FormatName::FlatBuffers => Encoding::FlatBuffers,
            },
        }
    }

    /// How long a remote may make no progress.
    pub(crate) fn stall(&self) -> Duration {
        Duration::from_secs(self.config.reader.stall_seconds)
    }

    /// The limits of a reader of `sources`. What is on this machine already is not cached.
    pub(crate) fn reader_options(&self, sources: &Sources) -> Result<ReaderOptions> {
        let is_cached = sources.has_remotes && self.config.cache.place().is_some();
        Ok(ReaderOptions {
            disk: self.disk_options().filter(|_| is_cached),
            local: sources.local.clone(),
            ..self.memory_options()?
        })
    }

    /// The limits of a reader that keeps nothing.
    pub(crate) fn memory_options(&self) -> Result<ReaderOptions> {
        let (config, fuse) = (&self.config.reader, &self.config.fuse);
        let block_size = BlockSize::new(config.block_size)
            .with_context(|| format!("reader.block_size cannot be {}", config.block_size))?;
        Ok(ReaderOptions {
            block_size,
            whole_fetch_max_bytes: config.whole_fetch_max_bytes,
            blob_cache_max_bytes: fuse.blob_cache_max_bytes,
            blob_cache_max_single_bytes: fuse.blob_cache_max_single_bytes,
            in_flight_max_bytes: config.in_flight_max_bytes,
            max_fetches: config.max_fetches,
            fetch_max_bytes: config.fetch_max_bytes,
            readahead_max_bytes: config.readahead_max_bytes,
            readahead_budget_bytes: config.readahead_budget_bytes,
            verify: match config.verify {
                VerifyName::Auto => Verify::Auto,
                VerifyName::Strict => Verify::Strict,
                VerifyName::Off => Verify::Off,
            },
            promote: match config.promote {
                PromoteName::Complete => Promote::Complete,
                PromoteName::OnSeek => Promote::OnSeek,
                PromoteName::Never => Promote::Never,
            },
            stall: self.stall(),
            ..ReaderOptions::default()
        })
    }

    /// Where blocks are kept on the disk, if anywhere, whether that is turned on or not.
    pub(crate) fn disk_options(&self) -> Option<DiskOptions> {
        let config = &self.config.cache;
        Some(DiskOptions {
            max_bytes: config.disk_cache_max_bytes,
            keep_free_percent: config.disk_cache_keep_free.0,
            ..DiskOptions::new(config.directory.clone()?)
        })
    }

    /// A reader of `repository`'s payloads for a short command: it keeps nothing.
    pub(crate) fn reader(&self, repository: Arc<dyn Repository>) -> Result<Reader> {
        Ok(Reader::new(
            repository,
            self.memory_options()?,
            Handle::current(),
        ))
    }
}

/// Runs this program again with the same arguments and `more`, as a child that goes to the
/// background, and waits until it is up: its process number.
///
/// Other users see its command line for as long as it runs: it shows `place` alone.
///
/// # Errors
/// [`AlreadyTold`] where the child failed.
pub(crate) async fn spawn_in_background(place: &Path, more: &[OsString]) -> Result<u32> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let shown = [OsString::from(IN_BACKGROUND), place.into()];
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    arguments.extend_from_slice(more);
    let spawning = tokio::task::spawn_blocking(move || daemon::spawn(&program, &shown, &arguments));
    match spawning
        .await
        .context("starting the background process was given up")??
    {
        Spawned::Ready(pid) => Ok(pid),
        Spawned::Failed(code) => Err(AlreadyTold(code).into()),
    }
}

/// What each of `remotes` may take of `stall`.
fn share(stall: Duration, remotes: usize) -> Duration {
    stall / u32::try_from(remotes.max(1)).unwrap_or(u32::MAX)
}

/// Whether a repository has ever been made at `root`; an empty directory is none.
fn is_there(root: &Path) -> Result<bool> {
    match std::fs::read_dir(root) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        // A file, or no permission: opening it says what is wrong.
        Err(_) => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_share_the_time_a_read_has() {
        let stall = Duration::from_secs(30);
        let table = [(0, 30), (1, 30), (2, 15), (3, 10)];
        for (remotes, seconds) in table {
            assert_eq!(share(stall, remotes), Duration::from_secs(seconds));
        }
    }
}

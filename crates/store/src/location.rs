//! Where a repository is, as a person or a configuration writes it (FORMAT.md section 7).
//!
//! | written | meaning |
//! |---|---|
//! | `/path`, `./path`, `a/path` | a directory, as it stands |
//! | `file:/path`, `file:///path` | a directory, percent-decoded |
//! | `http://host/path`, `https://…` | the same directory behind a web server |
//! | `grpc://host:port`, `http2://…` | a server of SPFS's protocol |
//! | `grpcs://host:port` | the same through TLS |
//! | `s3://bucket/prefix`, `gs://…`, `az://…` | a bucket in an object store |
//! | `tar:/path.tar` | a directory in a tar archive, percent-decoded |
//! | `proxy:?primary=A&secondary[0]=B`, `fallback:?…` | A, then B, read as one |
//!
//! Parameters follow `?` and are joined by `&`: `create` and `lazy` (`true` or `false`),
//! `tag_namespace`, and `when` (a view of the tags at a time); for a gRPC server also `timeout_ms`,
//! `max_decode_message_size_bytes`, `max_encode_message_size_bytes` and `token_file`. A path that is
//! written without `file:` may itself contain `?`: what follows
//! one is taken as parameters only where it begins with the name of a parameter and `=`.
//!
//! Opening asks a remote for nothing, so one that is offline does not stand in the way of those
//! that are not; opening a directory looks at the directory. `lazy` is understood and changes
//! nothing for a directory that is there: to open it costs next to nothing.
//!
//! Deliberately absent: names of configured remotes (whoever knows them passes a way to look them
//! up, [`Location::parse_with`]), and kinds of repository that are not built yet, which are refused by name.

mod chain;
mod grpc;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Local};
use farseek_object::{TagNamespace, TimeSpec};
use url::Url;

use crate::bucket::{BucketAddress, BucketEnvironment};
use crate::error::{Result, StoreError};
use crate::fs::{FsOptions, FsRepository};
use crate::http::{HttpOptions, HttpRepository};
use crate::pinned::Pinned;
use crate::repository::Repository;
use crate::tar::{TarOptions, TarRepository};

/// The address of a repository, parsed.
///
/// Its `Display` form holds no credentials and is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    place: Place,
    create: bool,
    lazy: bool,
    tag_namespace: Option<TagNamespace>,
    when: Option<TimeSpec>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Directory(PathBuf),
    Web(Url),
    Grpc(grpc::Place),
    Bucket(BucketAddress),
    Tar(PathBuf),
    Chain(chain::Place),
}

/// How any kind of repository is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// How long a remote may make no progress before a call fails.
    pub stall: Duration,
    /// How long to wait for a tag that another process is changing.
    pub lock_timeout: Duration,
    /// The moment that relative times (`when=~1d`) are before.
    pub now: DateTime<Local>,
    /// What the user's environment says of access to buckets.
    pub environment: BucketEnvironment,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            stall: HttpOptions::default().stall,
            lock_timeout: FsOptions::default().lock_timeout,
            now: Local::now(),
            environment: BucketEnvironment::default(),
        }
    }
}

impl Location {
    /// The directory at `path`, whatever characters it is made of.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self::at(Place::Directory(path.into()))
    }

    fn at(place: Place) -> Self {
        Self {
            place,
            create: false,
            lazy: false,
            tag_namespace: None,
            when: None,
        }
    }

    /// Parses an address in which members of a proxy may be names: `names` gives the address of
    /// one, `None` where it is no name, or says in words why there can be none.
    ///
    /// # Errors
    /// `Invalid`, with what is wrong; also where names lead in a circle.
    pub fn parse_with(
        text: &str,
        names: &dyn Fn(&str) -> Result<Option<String>, String>,
    ) -> Result<Self> {
        let names = chain::Names::new(names);
        parse::parse(text, &names).map_err(|reason| StoreError::Invalid {
            what: "repository address",
            text: parse::shown(text),
            reason,
        })
    }

    /// The directory, where it is one on this machine.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Directory(path) => Some(path),
            Place::Web(_) | Place::Grpc(_) | Place::Bucket(_) | Place::Tar(_) | Place::Chain(_) => {
                None
            }
        }
    }

    /// The namespace whose tags are meant.
    pub fn tag_namespace(&self) -> Option<&TagNamespace> {
        self.tag_namespace.as_ref()
    }

    /// Whether a directory that is not there is to be made.
    pub fn create(&self) -> bool {
        self.create
    }

    /// The same place, to be made if it is not there.
    #[must_use]
    pub fn with_create(self, create: bool) -> Self {
        Self { create, ..self }
    }

    /// The same place, with the tags of a namespace.
    #[must_use]
    pub fn with_tag_namespace(self, tag_namespace: Option<TagNamespace>) -> Self {
        Self {
            tag_namespace,
            ..self
        }
    }

    fn open_directory(&self, path: &Path, options: &OpenOptions) -> Result<FsRepository> {
        let fs = FsOptions {
            tag_namespace: self.tag_namespace.clone(),
            lock_timeout: options.lock_timeout,
        };
        match self.create {
            true => FsRepository::create(path, fs),
            false => FsRepository::open(path, fs),
        }
    }

    fn open_web(&self, url: &Url, options: &OpenOptions) -> Result<HttpRepository> {
        let http = HttpOptions {
            stall: options.stall,
            namespace: self.tag_namespace.clone(),
            ..HttpOptions::default()
        };
        HttpRepository::open(url.clone(), http)
    }

    fn open_tar(&self, path: &Path, options: &OpenOptions) -> Result<TarRepository> {
        let tar = TarOptions {
            tag_namespace: self.tag_namespace.clone(),
            lock_timeout: options.lock_timeout,
            create: self.create,
        };
        TarRepository::open(path, tar)
    }
}

impl FromStr for Location {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse_with(text, &|_| Ok(None))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Directory(path) => path.display().fmt(f),
            Place::Web(url) => f.write_str(&parse::without_credentials(url.as_str())),
            Place::Grpc(place) => f.write_str(&parse::without_credentials(place.url.as_str())),
            Place::Bucket(address) => address.fmt(f),
            Place::Tar(path) => write!(f, "tar:{}", path.display()),
            Place::Chain(place) => f.write_str(&place.shown()),
        }
    }
}

/// Opens the repository at `location`.
///
/// # Errors
/// What is wrong with a directory or an archive, by its path. Nothing is asked of a remote.
pub async fn open(location: &Location, options: &OpenOptions) -> Result<Arc<dyn Repository>> {
    let repository = open_place(location, options).await?;
    let Some(when) = location.when else {
        return Ok(repository);
    };
    let moment = when.resolve(&options.now);
    let moment = moment.map_err(|error| StoreError::Invalid {
        what: "time",
        text: when.to_string(),
        reason: error.to_string(),
    })?;
    Ok(Arc::new(Pinned::new(repository, moment)))
}

async fn open_place(location: &Location, options: &OpenOptions) -> Result<Arc<dyn Repository>> {
    match &location.place {
        Place::Web(url) => Ok(Arc::new(location.open_web(url, options)?)),
        Place::Grpc(place) => {
            let namespace = location.tag_namespace.clone();
            let opened = place.clone().open(namespace, options.clone());
            Ok(Arc::new(opened.await?))
        }
        Place::Bucket(address) => open_bucket(location, address, options).await,
        Place::Chain(place) => place.open(location, options).await,
        Place::Directory(path) => {
            let (location, path, options) = (location.clone(), path.clone(), options.clone());
            let opened = crate::blocking::run(move || location.open_directory(&path, &options));
            Ok(Arc::new(opened.await?))
        }
        Place::Tar(path) => {
            let (location, path, options) = (location.clone(), path.clone(), options.clone());
            let opened = crate::blocking::run(move || location.open_tar(&path, &options));
            Ok(Arc::new(opened.await?))
        }
    }
}

async fn open_bucket(
    location: &Location,
    address: &BucketAddress,
    options: &OpenOptions,
) -> Result<Arc<dyn Repository>> {
    let (address, namespace) = (address.clone(), location.tag_namespace.clone());
    let (stall, environment) = (options.stall, options.environment.clone());
    // A profile is in a file.
    let opened = crate::blocking::run(move || address.open(namespace, stall, &environment));
    let bucket = opened.await?;
    if location.create {
        bucket.create().await?;
    }
    Ok(Arc::new(bucket))
}

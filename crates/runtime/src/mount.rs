//! An environment mounted: the floors below put together, and seen to answer.

use std::path::PathBuf;
use std::sync::Arc;

use farseek_object::{EnvSpec, MergeOptions};
use farseek_reader::{Reader, ReaderOptions, Verify};
use farseek_store::{Repository, RepositoryExt as _, ResolvedEnvironment};
use farseek_vfs::fuse::{Mount, MountOptions};
use farseek_vfs::{LocalOptions, StatsText, Vfs, VfsOptions, WalkOptions};
use nix::sys::statvfs::statvfs;
use nix::unistd::{getgid, getuid};
use tokio::runtime::Handle;
use tokio::task;

use crate::environment;
use crate::error::{Result, RuntimeError};
use crate::mountpoint::{self, MountpointOptions};
use crate::patience::{PATIENCE, ask};

/// What to mount, where and how.
#[derive(Debug, Clone)]
pub struct MountRequest {
    /// The environment.
    pub spec: EnvSpec,
    /// The directory to mount it at.
    pub mountpoint: PathBuf,
    /// What the directory may be.
    pub mountpoint_options: MountpointOptions,
    /// Limits of the tree.
    pub merge: MergeOptions,
    /// Limits of the reader.
    pub reader: ReaderOptions,
    /// Whether other users may use it; `None` means: if we are root.
    pub allow_other: Option<bool>,
    /// Threads that serve the kernel; `None` means one for each CPU, up to a limit.
    pub threads: Option<usize>,
    /// Whether the kernel reads local payloads by itself, where it can and we may have it do so.
    pub passthrough: bool,
    /// Puts what the mount has done into words, for other processes: see
    /// [`STATS_XATTR`](farseek_vfs::STATS_XATTR).
    pub stats: Option<StatsText>,
    /// Whether the mount lists its extended attributes: not where an overlay is put over it, which
    /// would copy them.
    pub list_xattrs: bool,
}

impl MountRequest {
    /// `spec` at `mountpoint`, with defaults for everything else.
    pub fn new(spec: EnvSpec, mountpoint: impl Into<PathBuf>) -> Self {
        Self {
            spec,
            mountpoint: mountpoint.into(),
            mountpoint_options: MountpointOptions::default(),
            merge: MergeOptions::default(),
            reader: ReaderOptions::default(),
            allow_other: None,
            threads: None,
            passthrough: true,
            stats: None,
            list_xattrs: true,
        }
    }

    fn vfs_options(&self, repository: Arc<dyn Repository>) -> VfsOptions {
        // What is promoted need not be among what is read.
        let repositories = self.reader.local.clone().into_iter().chain([repository]);
        let local = self.passthrough.then(|| LocalOptions {
            repositories: repositories.collect(),
            strict: self.reader.verify == Verify::Strict,
        });
        VfsOptions {
            uid: getuid().as_raw(),
            gid: getgid().as_raw(),
            local,
            walk: walk_options(&self.reader),
            stats: self.stats.clone(),
            list_xattrs: self.list_xattrs,
            ..VfsOptions::default()
        }
    }

    /// How it is mounted.
    pub(crate) fn fuse_options(&self) -> MountOptions {
        let defaults = MountOptions::new(&self.spec.to_string());
        MountOptions {
            allow_other: self.allow_other.unwrap_or_else(|| getuid().is_root()),
            threads: self.threads.unwrap_or(defaults.threads),
            ..defaults
        }
    }
}

/// A mounted environment. Dropping it unmounts.
pub struct MountedEnvironment {
    mount: Mount,
    vfs: Arc<Vfs>,
}

impl MountedEnvironment {
    /// The mount.
    pub fn mount(&self) -> &Mount {
        &self.mount
    }

    /// What is mounted, with its tree and its reader.
    pub fn vfs(&self) -> &Arc<Vfs> {
        &self.vfs
    }
}

/// Mounts an environment, and returns when the mount answers.
///
/// Runs on the current tokio runtime, which serves the mount's reads and must outlive it.
///
/// # Errors
/// Whatever is in the way, before anything is mounted; nothing is left behind.
pub async fn mount(
    repository: Arc<dyn Repository>,
    request: MountRequest,
) -> Result<MountedEnvironment> {
    let (path, options) = (request.mountpoint.clone(), request.mountpoint_options);
    let mountpoint = blocking(move || mountpoint::check(&path, options)).await?;
    let environment = repository.resolve_environment(&request.spec).await?;
    let vfs = prepare(repository, &request, environment).await?;
    let runtime = Handle::current();
    blocking(move || {
        let options = request.fuse_options();
        let mount = farseek_vfs::fuse::mount(Arc::clone(&vfs), &mountpoint, &options, runtime)?;
        let mounted = MountedEnvironment { mount, vfs };
        see_it_answer(&mounted)?;
        Ok(mounted)
    })
    .await
}

/// Everything of a mount but the mount: the environment merged, with its reader.
pub(crate) async fn prepare(
    repository: Arc<dyn Repository>,
    request: &MountRequest,
    environment: ResolvedEnvironment,
) -> Result<Arc<Vfs>> {
    let tree = environment::merge(environment, request.merge).await?;
    let options = request.vfs_options(Arc::clone(&repository));
    let reader = Reader::new(repository, request.reader.clone(), Handle::current());
    blocking(move || Ok(Arc::new(Vfs::new(tree, reader, options)))).await
}

/// What is loaded ahead of a walk must find room in the memory of the reader, with what is ahead
/// of others and what is read: else it is gone before it is asked for, and fetched twice.
fn walk_options(reader: &ReaderOptions) -> WalkOptions {
    let defaults = WalkOptions::default();
    let wanted = reader.readahead_max_bytes > 0;
    WalkOptions {
        small_max_bytes: reader.whole_fetch_max_bytes,
        files_max: if wanted { defaults.files_max } else { 0 },
        bytes_max: defaults.bytes_max.min(reader.blob_cache_max_bytes / 32),
    }
}

/// Asks through the kernel: a mount that is in the list but does not work is not a success.
fn see_it_answer(mounted: &MountedEnvironment) -> Result<()> {
    let path = mounted.mount.mountpoint().to_owned();
    let asked = path.clone();
    let expected = mounted.vfs.statfs().nodes;
    match ask(PATIENCE, move || statvfs(&asked)) {
        None => Err(RuntimeError::NoAnswer { path }),
        Some(Ok(answer)) if answer.files() == expected => Ok(()),
        Some(Ok(_)) => {
            let reason = "something else was mounted there meanwhile".to_owned();
            Err(RuntimeError::Mountpoint { path, reason })
        }
        Some(Err(errno)) => {
            let reason = format!("the new mount does not work: {}", errno.desc());
            Err(RuntimeError::Mountpoint { path, reason })
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    task::spawn_blocking(work)
        .await
        .expect("the work does not panic and is not cancelled")
}

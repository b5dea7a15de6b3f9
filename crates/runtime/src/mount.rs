//! An environment mounted: the floors below put together, and seen to answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use farseek_object::{EnvSpec, MergeOptions, MergedTree};
use farseek_reader::{Promote, Reader, ReaderOptions, Verify};
use farseek_store::{Repository, RepositoryExt as _, ResolvedEnvironment};
use farseek_vfs::fuse::{Mount, MountOptions};
use farseek_vfs::{LocalOptions, StatsText, Vfs, VfsOptions, WalkOptions};
use nix::sys::statvfs::statvfs;
use nix::unistd::{getgid, getuid};
use tokio::runtime::Handle;

use crate::blocking::blocking;
use crate::environment::{self, Named};
use crate::error::{Result, RuntimeError};
use crate::mountpoint::{self, MountpointOptions};
use crate::patience::{PATIENCE, ask};
use crate::record::{Keeper, Reference, Runtimes};

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
    /// Keeps what the mount may read from being cleaned: a record is written before it is mounted.
    /// Where that cannot be done it is mounted all the same, and no payload becomes local.
    pub keeper: Option<Keeper>,
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
            keeper: None,
        }
    }

    /// The local repository, where there is one, or else that of the records.
    pub(crate) fn local(&self, runtimes: Option<&Runtimes>) -> Option<Arc<dyn Repository>> {
        let of_records = || runtimes.map(|runtimes| Arc::clone(runtimes.repository()));
        self.reader.local.clone().or_else(of_records)
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
    reference: Option<Reference>,
}

impl MountedEnvironment {
    /// The mount.
    pub fn mount(&self) -> &Mount {
        &self.mount
    }

    /// The record of the mount, where there is one. Whoever takes it is to
    /// [release](Reference::release) it when the mount has ended: else it stays until this process
    /// has ended and somebody prunes.
    pub fn take_reference(&mut self) -> Option<Reference> {
        self.reference.take()
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
    mut request: MountRequest,
) -> Result<MountedEnvironment> {
    let (path, options) = (request.mountpoint.clone(), request.mountpoint_options);
    let mountpoint = blocking(move || mountpoint::check(&path, options)).await?;
    let keeper = request.keeper.as_ref();
    let local = request.local(keeper.map(|keeper| &keeper.runtimes));
    let mut named = Named::now(local, &request.spec).await;
    let mut environment = Arc::new(repository.resolve_environment(&request.spec).await?);
    let (tree, reference) = loop {
        let merging = environment::merge(Arc::clone(&environment), request.merge);
        let (tree, reference) = tokio::join!(merging, keep(&request, &mountpoint, &environment));
        let confirming = named.confirm(&repository, &request.spec, &environment);
        match confirming.await {
            Ok(None) => break (tree, reference),
            Ok(Some(again)) => environment = Arc::new(again),
            Err(error) => break (Err(error), reference),
        }
        if let Some(reference) = reference {
            reference.release().await;
        }
    };
    drop(environment);
    if request.keeper.is_some() && reference.is_none() {
        request.reader.promote = Promote::Never;
    }
    let mounted = match tree {
        Ok(tree) => mount_tree(repository, request, mountpoint, tree).await,
        Err(error) => Err(error),
    };
    match (mounted, reference) {
        (Ok(mounted), reference) => Ok(MountedEnvironment {
            reference,
            ..mounted
        }),
        (Err(error), None) => Err(error),
        (Err(error), Some(reference)) => {
            reference.release().await;
            Err(error)
        }
    }
}

/// Writes the record of a mount, if one is to be and can be written.
async fn keep(
    request: &MountRequest,
    mountpoint: &Path,
    environment: &ResolvedEnvironment,
) -> Option<Reference> {
    let keeper = request.keeper.as_ref()?;
    match keeper.keep(&request.spec, mountpoint, environment).await {
        Ok(reference) => Some(reference),
        Err(error) => {
            tracing::info!("no record is kept of the mount, so no file becomes local: {error}");
            None
        }
    }
}

/// Mounts a tree, and returns when it answers.
async fn mount_tree(
    repository: Arc<dyn Repository>,
    request: MountRequest,
    mountpoint: PathBuf,
    tree: MergedTree,
) -> Result<MountedEnvironment> {
    let runtime = Handle::current();
    let vfs = prepare(repository, &request, tree).await;
    blocking(move || {
        let options = request.fuse_options();
        let mount = farseek_vfs::fuse::mount(Arc::clone(&vfs), &mountpoint, &options, runtime)?;
        let mounted = MountedEnvironment {
            mount,
            vfs,
            reference: None,
        };
        see_it_answer(&mounted)?;
        Ok(mounted)
    })
    .await
}

/// Everything of a mount but the mount.
pub(crate) async fn prepare(
    repository: Arc<dyn Repository>,
    request: &MountRequest,
    tree: MergedTree,
) -> Arc<Vfs> {
    let reader = Reader::new(
        Arc::clone(&repository),
        request.reader.clone(),
        Handle::current(),
    );
    prepare_with(repository, reader, request, tree).await
}

/// The same with a reader that is there.
pub(crate) async fn prepare_with(
    repository: Arc<dyn Repository>,
    reader: Reader,
    request: &MountRequest,
    tree: MergedTree,
) -> Arc<Vfs> {
    let options = request.vfs_options(repository);
    blocking(move || Arc::new(Vfs::new(tree, reader, options))).await
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

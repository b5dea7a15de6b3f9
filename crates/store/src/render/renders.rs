//! The repository's own store of renders: `renders/<user>/<AA>/<rest>` (FORMAT.md section 4.5).
//!
//! That a render is there means that it is complete, and stays so after a loss of power: it is
//! built in `work/`, everything is brought to the disk at once, and only then it gets its name. Who
//! is killed leaves a directory in `work/`, which a clean removes; of two who render the same, the
//! second finds the name taken and drops its own.
//!
//! A render that is found is made young, so that a clean which began before anything needed it
//! leaves it. It stays for as long as its manifest is reachable.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use farseek_object::{Digest, EnvItem, Manifest, MergeOptions, MergedTree, Object};
use nix::unistd::geteuid;
use rustix::io::Errno;
use uuid::Uuid;

use super::directory::Directory;
use super::fill::{self, Fill};
use super::proxies::{Link, Proxies, link};
use super::source::{Bytes, RenderSource};
use super::{RenderOptions, RenderSummary};
use crate::blocking::run;
use crate::copy::{CopyOptions, CopySummary, copy};
use crate::error::{Result, StoreError};
use crate::fs::{FsRepository, durable, open_tree};
use crate::progress::Progress;
use crate::repository::Repository;

/// The mode of a render's root, which no manifest has.
const ROOT_MODE: u32 = 0o777;

/// How often a render is given its name, where another has it and a clean takes that away.
const ATTEMPTS: usize = 4;

/// A render that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The manifest.
    pub manifest: Digest,
    /// The directory.
    pub path: PathBuf,
    /// What was made; `None` where it was there.
    pub summary: Option<RenderSummary>,
}

/// The renders of one user in a repository on disk.
#[derive(Debug, Clone)]
pub struct RenderStore {
    repository: Arc<FsRepository>,
    /// `renders/<user>`.
    place: PathBuf,
    link: Link,
}

impl RenderStore {
    /// Those of the user with this login name.
    ///
    /// # Errors
    /// The name cannot be that of a directory.
    pub fn new(repository: Arc<FsRepository>, user: &str) -> Result<Self> {
        if matches!(user, "" | "." | "..") || user.contains(['/', '\0']) {
            return Err(StoreError::Invalid {
                what: "name of a user",
                text: user.to_owned(),
                reason: "renders are kept in a directory of that name".into(),
            });
        }
        Ok(Self {
            place: repository.root().join("renders").join(user),
            repository,
            link,
        })
    }

    /// Sees to it that nobody else gets into the place: what is there is read as the manifests say,
    /// and may hold programs that run as its owner.
    fn close(&self) -> Result<()> {
        let failed = || StoreError::io("create", &self.place);
        let above = self.place.parent().expect("it is in the repository");
        durable::make_dirs(above).map_err(StoreError::io("create", above))?;
        match DirBuilder::new().mode(0o700).create(&self.place) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed()(error)),
            _ => {}
        }
        let found = fs::symlink_metadata(&self.place).map_err(failed())?;
        if !found.is_dir() || found.uid() != geteuid().as_raw() {
            return Err(StoreError::Invalid {
                what: "directory of renders",
                text: self.place.display().to_string(),
                reason: "it is another user's: remove it".into(),
            });
        }
        if found.mode() & 0o077 != 0 {
            let closed = fs::Permissions::from_mode(0o700);
            fs::set_permissions(&self.place, closed).map_err(failed())?;
        }
        Ok(())
    }

    /// Where the render of `manifest` is, once it is there.
    pub fn path(&self, manifest: &Digest) -> PathBuf {
        sharded(&self.place, manifest)
    }

    /// Brings what `manifests` need, and is not here, from `from`; those whose renders are there need
    /// nothing. Whoever is to render them [holds](Repository::hold) the repository meanwhile.
    ///
    /// # Errors
    /// As for a [copy](crate::copy()).
    pub async fn fetch(
        &self,
        from: &Arc<dyn Repository>,
        manifests: &[Digest],
        options: CopyOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<CopySummary> {
        let paths: Vec<_> = manifests.iter().map(|d| (*d, self.path(d))).collect();
        let store = self.clone();
        let missing = run(move || {
            store.close()?;
            let missing = paths.into_iter().filter(|(_, path)| !reuse(path));
            Ok(missing
                .map(|(digest, _)| EnvItem::Digest(digest))
                .collect::<Vec<_>>())
        });
        let missing = missing.await?;
        if missing.is_empty() {
            return Ok(CopySummary::default());
        }
        let to = Arc::clone(&self.repository) as Arc<dyn Repository>;
        // Where an environment is mounted its objects are here, and not all of its files.
        let options = CopyOptions {
            partial: true,
            ..options
        };
        copy(Arc::clone(from), to, &missing, options, progress).await
    }

    /// Renders a manifest by itself, unless that is there. Its payloads have to be in the
    /// repository: nothing is fetched.
    ///
    /// Whoever needs the render for longer than this takes has a tag name the manifest, or
    /// [holds](Repository::hold) the repository.
    ///
    /// # Errors
    /// A payload that is missing or damaged, or whatever cannot be made; nothing is left then.
    pub async fn render(
        &self,
        manifest: Manifest,
        options: &RenderOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<Rendered> {
        let (manifest, tree) = run(move || unfold(manifest)).await?;
        let path = self.path(&manifest);
        let there = path.clone();
        let rendered = |summary| Rendered {
            manifest,
            path: path.clone(),
            summary,
        };
        let store = self.clone();
        let is_there = run(move || store.close().map(|()| reuse(&there)));
        if is_there.await? {
            return Ok(rendered(None));
        }
        let _hold = self.repository.hold().await?;
        let mut summary = RenderSummary::of(&tree);
        summary.announce(&progress);
        let (work, filling) = self.begin(tree, options, progress).await?;
        let work_path = work.path.clone();
        let root = run(move || Directory::open(&work_path)).await?;
        let filling = Arc::new(filling);
        let filled = fill::fill(Arc::clone(&filling), root, options.concurrency).await;
        let (store, to) = (self.clone(), path.clone());
        summary.linked = filling.linked.load(Ordering::Relaxed);
        // Also where it has failed: what was begun is removed there.
        let is_new = run(move || {
            let ended = filled.and_then(|()| store.end(work, &filling, &to));
            drop(filling);
            ended
        })
        .await?;
        Ok(rendered(is_new.then_some(summary)))
    }

    /// Makes the directory that the render is built in.
    async fn begin(
        &self,
        tree: MergedTree,
        options: &RenderOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<(Work, Fill)> {
        let source = RenderSource {
            local: Some(Arc::clone(&self.repository)),
            all: Arc::clone(&self.repository) as Arc<dyn Repository>,
        };
        let bytes = Bytes::new(source);
        let (store, options) = (self.clone(), *options);
        run(move || {
            let proxies = Proxies::new(store.place.join("proxy"), &options, store.link)?;
            let filling = Fill {
                tree: Arc::new(tree),
                bytes,
                links: Some((Arc::clone(&store.repository), proxies)),
                root_mode: Some(ROOT_MODE),
                dated: false,
                // Nobody else gets to them.
                set_id: true,
                existing: false,
                progress,
                linked: AtomicU64::new(0),
            };
            Ok((Work::create(&store.place.join("work"))?, filling))
        })
        .await
    }

    /// Brings what was made to the disk, and gives it its name. Returns whether nobody else has.
    fn end(&self, mut work: Work, filling: &Fill, to: &Path) -> Result<bool> {
        durable::sync_all_of(self.repository.root())?;
        if let Some((_, proxies)) = &filling.links {
            proxies.publish()?;
        }
        let shard = to.parent().expect("a render is in a shard");
        durable::make_dirs(shard).map_err(StoreError::io("create", shard))?;
        let mut taken = Errno::EXIST;
        for _ in 0..ATTEMPTS {
            match work.place(to) {
                Ok(()) => {
                    durable::sync_dir(shard)?;
                    return Ok(true);
                }
                // Another was faster, and its render is as good; unless a clean has just taken it.
                Err(Errno::EXIST | Errno::NOTEMPTY) if reuse(to) => return Ok(false),
                Err(errno) => taken = errno,
            }
        }
        Err(StoreError::io("create", to)(taken.into()))
    }

    /// The same store with another way to make links.
    #[cfg(test)]
    pub(super) fn with_link(self, link: Link) -> Self {
        Self { link, ..self }
    }
}

/// `<AA>/<rest>` in `root`.
pub(super) fn sharded(root: &Path, digest: &Digest) -> PathBuf {
    let text = digest.to_string();
    let (shard, rest) = text.split_at(2);
    root.join(shard).join(rest)
}

fn unfold(manifest: Manifest) -> Result<(Digest, MergedTree)> {
    let tree = MergedTree::new(&[&manifest], MergeOptions::default());
    let digest = Object::Manifest(manifest).digest();
    let tree = tree.map_err(|source| StoreError::Undecodable {
        location: format!("the manifest {digest}"),
        source,
    })?;
    Ok((digest, tree))
}

/// Whether the render at `path` is there, and was made young: a clean that has just judged it to be
/// old looks once more, where it is out of everybody's reach.
fn reuse(path: &Path) -> bool {
    let is_ours = |found: fs::Metadata| found.is_dir() && found.uid() == geteuid().as_raw();
    let is_there = || fs::symlink_metadata(path).is_ok_and(is_ours);
    is_there() && {
        durable::refresh(path);
        is_there()
    }
}

/// A directory that a render is built in, removed when dropped unless it was placed.
#[derive(Debug)]
struct Work {
    path: PathBuf,
    placed: bool,
}

impl Work {
    fn create(work: &Path) -> Result<Self> {
        durable::make_dirs(work).map_err(StoreError::io("create", work))?;
        let path = work.join(Uuid::new_v4().to_string());
        let made: io::Result<()> = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(StoreError::io("create", &path))?;
        Ok(Self {
            path,
            placed: false,
        })
    }

    fn place(&mut self, to: &Path) -> Result<(), Errno> {
        rustix::fs::rename(&self.path, to)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.placed
            && let Err(error) = open_tree::remove(&self.path)
        {
            tracing::debug!("left behind: {}", error.with_causes());
        }
    }
}

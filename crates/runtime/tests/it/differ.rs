//! The oracle differ over the ways the kernel may get at a file's bytes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use farseek_object::Digest;
use farseek_reader::{BlockSize, ReaderOptions};
use farseek_runtime::{MountRequest, VfsStats, mount};
use farseek_store::{
    Chain, ChainOptions, CommitOptions, FsOptions, FsRepository, MemoryRepository, Progress,
    Repository, commit_directory,
};
use farseek_testkit::oracle::{self, Options};
use farseek_testkit::tree::{self, TreeOptions};
use farseek_testkit::{Need, need};
use tempfile::TempDir;
use tokio::task::block_in_place;

use crate::fixture::spec;

/// A commit that nobody watches.
struct Silent;

impl Progress for Silent {}

/// A tree on disk, and a mount of it.
struct Scene {
    tree: TempDir,
    at: TempDir,
    home: TempDir,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let tree = tempfile::tempdir().unwrap();
        let shape = TreeOptions {
            seed,
            crowd: 500,
            ..TreeOptions::default()
        };
        tree::generate(tree.path(), &shape).unwrap();
        Self {
            tree,
            at: tempfile::tempdir().unwrap(),
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn on_disk(&self) -> Arc<dyn Repository> {
        let root = self.home.path().join("local");
        Arc::new(FsRepository::create(&root, FsOptions::default()).unwrap())
    }

    async fn commit(&self, repository: &Arc<dyn Repository>) -> Digest {
        let repository = Arc::clone(repository);
        let options = CommitOptions::default();
        let commit = commit_directory(repository, self.tree.path(), options, &Silent);
        commit.await.unwrap().layer
    }

    fn request(&self, layer: Digest) -> MountRequest {
        MountRequest::new(spec(&layer.to_string()), self.at.path())
    }

    /// Mounts, compares the tree with what `show` makes of the mount, and unmounts.
    async fn compare(
        &self,
        repository: Arc<dyn Repository>,
        request: MountRequest,
        show: impl FnOnce(&Path) -> Shown,
    ) -> VfsStats {
        let mounted = mount(repository, request).await.unwrap();
        let shown = show(self.at.path());
        let options = Options {
            operations: 1_000,
            processes: 3,
            ..Options::default()
        };
        let report = block_in_place(|| oracle::run(self.tree.path(), &shown.path(), &options));
        let report = report.unwrap_or_else(|difference| panic!("{difference}"));
        assert_eq!(report.operations, 3_000);
        drop(shown);
        // What is being made local would be in the way of removing the directory.
        mounted.vfs().reader().settle().await;
        mounted.vfs().stats()
    }
}

/// Where the mount is looked at.
enum Shown {
    Itself(PathBuf),
    /// Through an overlay, whose upper layer is on a tmpfs.
    Overlay(TempDir),
}

impl Shown {
    fn path(&self) -> PathBuf {
        match self {
            Self::Itself(path) => path.clone(),
            Self::Overlay(place) => place.path().join("merged"),
        }
    }

    fn overlay(lower: &Path) -> Self {
        let place = tempfile::tempdir().unwrap();
        let script = "mount -t tmpfs tmpfs \"$1\" && cd \"$1\" && mkdir upper work merged && \
                      mount -t overlay overlay -o \"lowerdir=$2,upperdir=upper,workdir=work\" merged";
        let mut command = Command::new("sh");
        command.args(["-ec", script, "sh"]).arg(place.path());
        assert!(command.arg(lower).status().unwrap().success());
        Self::Overlay(place)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Self::Overlay(place) = self {
            for path in [&place.path().join("merged"), place.path()] {
                let _ = Command::new("umount").arg("-l").arg(path).status();
            }
        }
    }
}

fn itself(path: &Path) -> Shown {
    Shown::Itself(path.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn passed_through() {
    if !need("the differ with passthrough", &[Need::Fuse, Need::Root]) {
        return;
    }
    let scene = Scene::new(11);
    let local = scene.on_disk();
    let request = scene.request(scene.commit(&local).await);
    let stats = scene.compare(local, request, itself).await;
    // Only empty files are not.
    assert!(stats.opens_passthrough > 1_000, "{stats:?}");
    assert!(
        stats.opens_cached < stats.opens_passthrough / 4,
        "{stats:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn local_without_passthrough() {
    if !need("the differ without passthrough", &[Need::Fuse]) {
        return;
    }
    let scene = Scene::new(12);
    let local = scene.on_disk();
    let request = MountRequest {
        passthrough: false,
        ..scene.request(scene.commit(&local).await)
    };
    let stats = scene.compare(local, request, itself).await;
    assert_eq!(stats.opens_passthrough, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_an_overlay() {
    if !need("the differ under an overlay", &[Need::Fuse, Need::Root]) {
        return;
    }
    let scene = Scene::new(13);
    let local = scene.on_disk();
    let request = scene.request(scene.commit(&local).await);
    let stats = scene.compare(local, request, Shown::overlay).await;
    assert!(stats.opens_passthrough > 1_000, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn promoted_while_it_is_read() {
    if !need("the differ with promotion", &[Need::Fuse, Need::Root]) {
        return;
    }
    let scene = Scene::new(14);
    let remote: Arc<dyn Repository> = Arc::new(MemoryRepository::new());
    let layer = scene.commit(&remote).await;
    let local = scene.on_disk();
    let chain = Chain::new(Arc::clone(&local), vec![remote], ChainOptions::default());
    let request = MountRequest {
        reader: ReaderOptions {
            block_size: BlockSize::new(64 * 1024).unwrap(),
            whole_fetch_max_bytes: 128 * 1024,
            local: Some(local),
            ..ReaderOptions::default()
        },
        ..scene.request(layer)
    };
    let stats = scene.compare(Arc::new(chain), request, itself).await;
    // How soon a payload is local depends on the disk.
    assert!(
        stats.opens_passthrough > 0 && stats.opens_cached > 0,
        "{stats:?}"
    );
}

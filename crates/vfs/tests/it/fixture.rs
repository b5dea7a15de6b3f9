//! Trees in memory, and mounts of them that are gone when the test is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farseek_object::{
    DirectoryBuilder, EntryName, Header, MergeOptions, MergedTree, NewEntry, S_IFDIR, S_IFLNK,
    S_IFREG,
};
use farseek_reader::{Reader, ReaderOptions};
use farseek_store::{PutOptions, Repository};
use farseek_testkit::{Need, need, output_within};
use farseek_vfs::fuse::{Mount, MountOptions, mount};
use farseek_vfs::{Vfs, VfsOptions};
use futures::StreamExt;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::gate::Gate;

/// What a directory holds, by name.
pub(crate) type Tree = BTreeMap<String, Item>;

#[derive(Debug, Clone)]
pub(crate) enum Item {
    Directory(u32, Tree),
    File(u32, Vec<u8>),
    Link(Vec<u8>),
}

/// A file of mode 0644.
pub(crate) fn file(bytes: impl Into<Vec<u8>>) -> Item {
    Item::File(0o644, bytes.into())
}

/// A directory of mode 0755.
pub(crate) fn directory<const N: usize>(items: [(&str, Item); N]) -> Item {
    Item::Directory(0o755, tree(items))
}

pub(crate) fn link(target: &str) -> Item {
    Item::Link(target.as_bytes().to_vec())
}

pub(crate) fn tree<const N: usize>(items: [(&str, Item); N]) -> Tree {
    items
        .into_iter()
        .map(|(name, item)| (name.to_owned(), item))
        .collect()
}

/// Bytes of which no two pages are alike.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at ^ (at >> 8) ^ ((at >> 16) * 7)) as u8)
        .collect()
}

/// A file system over a repository in memory.
pub(crate) struct Core {
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) runtime: Runtime,
}

impl Core {
    pub(crate) fn new(tree: &Tree) -> Self {
        Self::with(tree, ReaderOptions::default())
    }

    pub(crate) fn with(tree: &Tree, options: ReaderOptions) -> Self {
        Self::with_all(tree, options, |_| VfsOptions::default())
    }

    /// A file system with the options that `choose` makes of its repository.
    pub(crate) fn with_all(
        tree: &Tree,
        options: ReaderOptions,
        choose: impl FnOnce(&Arc<Gate>) -> VfsOptions,
    ) -> Self {
        let runtime = Runtime::new().unwrap();
        let gate = Arc::new(Gate::new());
        let manifest = runtime
            .block_on(store(&gate, tree))
            .into_manifest(header())
            .unwrap();
        let merged = MergedTree::new(&[&manifest], MergeOptions::default()).unwrap();
        let repository = Arc::clone(&gate) as Arc<dyn Repository>;
        let reader = Reader::new(repository, options, runtime.handle().clone());
        let vfs = Arc::new(Vfs::new(merged, reader, choose(&gate)));
        Self { vfs, gate, runtime }
    }
}

fn header() -> Header {
    Header::default()
}

/// Stores the payloads of `tree`.
async fn store(gate: &Gate, tree: &Tree) -> DirectoryBuilder {
    let mut builder = DirectoryBuilder::new();
    for (name, item) in tree {
        let entry = match item {
            Item::Directory(mode, tree) => {
                let contents = Box::pin(store(gate, tree)).await;
                NewEntry::Directory {
                    mode: S_IFDIR | mode,
                    contents,
                }
            }
            Item::File(mode, bytes) => blob(gate, S_IFREG | mode, bytes).await,
            Item::Link(target) => blob(gate, S_IFLNK | 0o777, target).await,
        };
        builder.insert(EntryName::new(name).unwrap(), entry);
    }
    builder
}

async fn blob(gate: &Gate, mode: u32, bytes: &[u8]) -> NewEntry {
    let bytes = Bytes::copy_from_slice(bytes);
    let body = futures::stream::iter([Ok(bytes)]).boxed();
    let (object, size) = gate.put_payload(body, PutOptions::default()).await.unwrap();
    NewEntry::Blob { object, mode, size }
}

/// A mounted file system.
pub(crate) struct Mounted {
    // In the order in which they have to go.
    pub(crate) mount: Option<Mount>,
    pub(crate) core: Core,
    directory: TempDir,
}

impl Mounted {
    /// Mounts `tree`, where this machine can.
    pub(crate) fn new(test: &str, tree: &Tree) -> Option<Self> {
        Self::with(test, tree, ReaderOptions::default())
    }

    pub(crate) fn with(test: &str, tree: &Tree, options: ReaderOptions) -> Option<Self> {
        Self::over(test, || Core::with(tree, options))
    }

    /// Mounts what `make` makes, where this machine can.
    pub(crate) fn over(test: &str, make: impl FnOnce() -> Core) -> Option<Self> {
        if !need(test, &[Need::Fuse, Need::Root]) {
            return None;
        }
        let core = make();
        let directory = tempfile::tempdir().unwrap();
        let options = MountOptions {
            threads: 2,
            allow_other: true,
            ..MountOptions::new(test)
        };
        let mount = mount(
            Arc::clone(&core.vfs),
            directory.path(),
            &options,
            core.runtime.handle().clone(),
        )
        .unwrap();
        Some(Self {
            mount: Some(mount),
            core,
            directory,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn join(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    pub(crate) fn mount(&self) -> &Mount {
        self.mount.as_ref().expect("the test has not ended it")
    }
}

/// Runs a program to its end and returns what it prints.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = output_within(command, Duration::from_secs(30)).unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a piece of Python with `M` as the mount, and returns what it prints.
pub(crate) fn python(mounted: &Mounted, script: &str) -> String {
    let mut command = Command::new("python3");
    command
        .arg("-c")
        .arg(format!("import os,sys,mmap,errno\nM=sys.argv[1]\n{script}"));
    succeed(command.arg(mounted.path()))
}

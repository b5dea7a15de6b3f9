//! A repository with layers of any shape, and what is seen of a render.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use farseek_object::{
    Blob, Digest, DirectoryBuilder, EntryName, Header, Manifest, MergeOptions, MergedTree,
    NewEntry, Object, S_IFDIR, S_IFLNK, S_IFREG,
};
use farseek_store::{
    FsOptions, FsRepository, PutOptions, RenderOptions, RenderSource, RenderStore, RenderStrategy,
    RenderSummary, Repository, Result, render_directory,
};
use futures::{StreamExt as _, stream};

/// Something in a directory.
#[derive(Debug, Clone)]
pub(crate) enum What {
    File(u32, &'static str),
    Link(&'static str),
    Directory(u32, Vec<(&'static str, What)>),
    Mask,
}

pub(crate) use What::{Directory, File, Link, Mask};

/// What is seen at a path: kind and permissions, and the content or the target.
pub(crate) type Seen = BTreeMap<String, (u32, Vec<u8>)>;

/// The temporary directory of a test, with a repository in it.
pub(crate) struct Site {
    directory: tempfile::TempDir,
    pub(crate) repository: Arc<FsRepository>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("repository");
        let repository = FsRepository::create(&root, FsOptions::default()).unwrap();
        Self {
            repository: Arc::new(repository),
            directory,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn renders(&self) -> RenderStore {
        RenderStore::new(Arc::clone(&self.repository), "me").unwrap()
    }

    /// `renders/me/` and more of the repository.
    pub(crate) fn of_renders(&self, name: &str) -> PathBuf {
        self.path("repository/renders/me").join(name)
    }

    pub(crate) async fn layer(&self, entries: Vec<(&'static str, What)>) -> Manifest {
        put(&*self.repository, entries).await
    }

    /// Renders into the directory `name`, one step after the other.
    pub(crate) async fn render(&self, layers: &[&Manifest], name: &str) -> Result<RenderSummary> {
        self.render_with(layers, name, &one_by_one()).await
    }

    pub(crate) async fn render_with(
        &self,
        layers: &[&Manifest],
        name: &str,
        options: &RenderOptions,
    ) -> Result<RenderSummary> {
        let target = self.path(name);
        let (source, tree) = (self.source(), merged(layers));
        render_directory(source, tree, &target, options, Arc::new(())).await
    }

    pub(crate) fn source(&self) -> RenderSource {
        RenderSource {
            local: Some(Arc::clone(&self.repository)),
            all: Arc::clone(&self.repository) as Arc<dyn Repository>,
        }
    }

    /// The file of a payload.
    pub(crate) fn payload(&self, digest: &Digest) -> PathBuf {
        let text = digest.to_string();
        let payloads = self.path("repository/payloads");
        payloads.join(&text[..2]).join(&text[2..])
    }
}

pub(crate) fn one_by_one() -> RenderOptions {
    RenderOptions {
        concurrency: 1,
        ..RenderOptions::default()
    }
}

pub(crate) fn by(strategy: RenderStrategy) -> RenderOptions {
    RenderOptions {
        strategy,
        ..RenderOptions::default()
    }
}

pub(crate) fn merged(layers: &[&Manifest]) -> Arc<MergedTree> {
    Arc::new(MergedTree::new(layers, MergeOptions::default()).unwrap())
}

/// Stores a layer's payloads, blobs and manifest.
pub(crate) async fn put(
    repository: &dyn Repository,
    entries: Vec<(&'static str, What)>,
) -> Manifest {
    let contents = build(repository, entries).await;
    let manifest = contents.into_manifest(Header::default()).unwrap();
    let object = Object::Manifest(manifest.clone());
    let put = PutOptions::default();
    repository.put_object(&object, put).await.unwrap();
    manifest
}

async fn build(
    repository: &dyn Repository,
    entries: Vec<(&'static str, What)>,
) -> DirectoryBuilder {
    let mut contents = DirectoryBuilder::new();
    for (name, what) in entries {
        let entry = match what {
            File(mode, text) => blob(repository, S_IFREG | mode, text).await,
            Link(target) => blob(repository, S_IFLNK | 0o777, target).await,
            Mask => NewEntry::Mask { mode: 0o020_000 },
            Directory(mode, entries) => NewEntry::Directory {
                mode: S_IFDIR | mode,
                contents: Box::pin(build(repository, entries)).await,
            },
        };
        contents.insert(EntryName::new(name).unwrap(), entry);
    }
    contents
}

async fn blob(repository: &dyn Repository, mode: u32, text: &'static str) -> NewEntry {
    let body = stream::once(async move { Ok(Bytes::from_static(text.as_bytes())) });
    let is_file = mode & S_IFREG == S_IFREG && mode & S_IFLNK != S_IFLNK;
    let put = PutOptions {
        mode: is_file.then_some(mode),
        ..PutOptions::default()
    };
    let (payload, size) = repository.put_payload(body.boxed(), put).await.unwrap();
    let object = Object::Blob(Blob {
        header: Header::default(),
        payload,
        size,
    });
    let put = PutOptions::default();
    repository.put_object(&object, put).await.unwrap();
    NewEntry::Blob {
        object: payload,
        mode,
        size,
    }
}

/// Everything below `root`, which is left as it is. Closed directories are opened for it.
pub(crate) fn look(root: &Path) -> Seen {
    let mut seen = Seen::new();
    look_in(root, root, &mut seen);
    seen
}

fn look_in(root: &Path, directory: &Path, seen: &mut Seen) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = match () {
            () if metadata.is_dir() => {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
                look_in(root, &path, seen);
                fs::set_permissions(&path, metadata.permissions()).unwrap();
                Vec::new()
            }
            () if metadata.is_symlink() => {
                fs::read_link(&path).unwrap().as_os_str().as_bytes().into()
            }
            () => read(&path),
        };
        let name = path.strip_prefix(root).unwrap().to_str().unwrap();
        seen.insert(name.to_owned(), (metadata.mode(), content));
    }
}

/// The content of a file that its owner may not be allowed to read.
fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|_| {
        let mode = fs::metadata(path).unwrap().permissions();
        fs::set_permissions(path, fs::Permissions::from_mode(0o400)).unwrap();
        let content = fs::read(path).unwrap();
        fs::set_permissions(path, mode).unwrap();
        content
    })
}

/// What a render of these has to show.
pub(crate) fn expected(entries: &[(&'static str, What)]) -> Seen {
    let mut seen = Seen::new();
    expect_in("", entries, &mut seen);
    seen
}

fn expect_in(above: &str, entries: &[(&'static str, What)], seen: &mut Seen) {
    for (name, what) in entries {
        let path = format!("{above}{name}");
        match what {
            File(mode, text) => {
                seen.insert(path, (S_IFREG | mode, text.as_bytes().into()));
            }
            Link(target) => {
                seen.insert(path, (S_IFLNK | 0o777, target.as_bytes().into()));
            }
            Directory(mode, entries) => {
                expect_in(&format!("{path}/"), entries, seen);
                seen.insert(path, (S_IFDIR | mode, Vec::new()));
            }
            Mask => {}
        }
    }
}

/// Some of everything, with modes that are in the way of whoever makes it.
pub(crate) fn everything() -> Vec<(&'static str, What)> {
    vec![
        (
            "closed",
            Directory(0o000, vec![("in it", File(0o444, "kept"))]),
        ),
        ("dangling", Link("../nowhere")),
        (
            "dir",
            Directory(
                0o555,
                vec![
                    ("again", File(0o644, "hello")),
                    (
                        "deep",
                        Directory(0o1777, vec![("er", Directory(0o700, vec![]))]),
                    ),
                    ("link", Link("../hello")),
                ],
            ),
        ),
        ("empty", File(0o600, "")),
        ("hello", File(0o644, "hello")),
        ("nobody's", File(0o000, "secret")),
        ("\u{65e5}\u{672c} 'x'\n", File(0o640, "a name")),
        ("read-only", File(0o444, "r")),
        ("set-group", File(0o2755, "g")),
        ("set-user", File(0o4755, "u")),
        ("sticky", File(0o1644, "s")),
        ("to-directory", Link("dir")),
        ("xs", File(0o755, "hello")),
    ]
}

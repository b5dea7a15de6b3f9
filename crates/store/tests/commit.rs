//! Commits of real directories: what is stored, what is refused, what is noticed.

mod sample;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use farseek_object::{
    Digest, DigestStrategy, Encoding, Header, Manifest, MergeOptions, MergedTree, NodeKind, Object,
};
use farseek_store::{
    CommitOptions, CommitSummary, FsOptions, FsRepository, MemoryRepository, Progress, Repository,
    StoreError, commit_directory,
};
use futures::StreamExt;

use sample::{payload, random_bytes};

async fn commit(repository: &Arc<dyn Repository>, directory: &Path) -> CommitSummary {
    let options = CommitOptions::default();
    commit_directory(Arc::clone(repository), directory, options, &())
        .await
        .expect("committed")
}

async fn refused(directory: &Path) -> String {
    let memory: Arc<dyn Repository> = Arc::new(MemoryRepository::new());
    let options = CommitOptions::default();
    let error = commit_directory(Arc::clone(&memory), directory, options, &()).await;
    let error = error.expect_err("it cannot be stored");
    assert!(matches!(error, StoreError::Unstorable { .. }), "{error:?}");
    assert_eq!(
        memory.list_payloads().count().await,
        0,
        "nothing was written before"
    );
    assert_eq!(
        memory.list_objects(None).count().await,
        0,
        "nothing was written before"
    );
    error.to_string()
}

fn fs_repository(path: &Path) -> Arc<dyn Repository> {
    Arc::new(FsRepository::create(path, FsOptions::default()).expect("a repository"))
}

async fn manifest(repository: &Arc<dyn Repository>, summary: &CommitSummary) -> Manifest {
    match repository
        .get_object(&summary.manifest)
        .await
        .expect("the manifest")
    {
        Object::Manifest(manifest) => manifest,
        other => panic!("a manifest, not a {}", other.kind()),
    }
}

/// A directory with some of everything that can be stored.
fn fill(root: &Path) {
    fs::create_dir_all(root.join("sub/deep/er")).expect("directories");
    fs::create_dir(root.join("empty")).expect("a directory");
    fs::write(root.join("hello.txt"), "hello").expect("a file");
    fs::write(root.join("nothing"), "").expect("a file");
    fs::write(root.join("sub/again"), "hello").expect("a file");
    fs::write(root.join("sub/deep/er/large"), random_bytes(3_000_123, 7)).expect("a file");
    fs::write(
        root.join("sub/\u{65e5}\u{672c} 'x'"),
        random_bytes(300_000, 8),
    )
    .expect("a file");
    fs::set_permissions(root.join("hello.txt"), fs::Permissions::from_mode(0o4751)).expect("mode");
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o700)).expect("mode");
    symlink("../hello.txt", root.join("sub/link")).expect("a link");
    symlink("nowhere", root.join("dangling")).expect("a link");
    symlink("sub", root.join("to-directory")).expect("a link");
}

/// Mode and contents of everything below `root`, by its path.
fn on_disk(root: &Path) -> BTreeMap<String, (u32, Bytes)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("metadata");
            let contents = if metadata.is_dir() {
                pending.push(path.clone());
                Bytes::new()
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path).expect("a target");
                Bytes::copy_from_slice(target.as_os_str().as_bytes())
            } else {
                fs::read(&path).expect("contents").into()
            };
            let name = path
                .strip_prefix(root)
                .expect("below")
                .to_str()
                .expect("text")
                .to_owned();
            found.insert(name, (metadata.mode(), contents));
        }
    }
    found
}

async fn in_repository(
    repository: &Arc<dyn Repository>,
    summary: &CommitSummary,
) -> BTreeMap<String, (u32, Bytes)> {
    let manifest = manifest(repository, summary).await;
    let tree = MergedTree::new(&[&manifest], MergeOptions::default()).expect("a tree");
    let mut found = BTreeMap::new();
    for (at, node) in tree.nodes().iter().enumerate().skip(1) {
        let contents = match node.kind() {
            NodeKind::Directory => Bytes::new(),
            _ => {
                let contents = payload(&**repository, &node.payload, 0..u64::MAX).await;
                assert_eq!(contents.len() as u64, node.size);
                assert_eq!(Digest::of(&contents), node.payload);
                let blob = repository
                    .get_object(&node.payload)
                    .await
                    .expect("its blob");
                assert!(matches!(blob, Object::Blob(blob) if blob.size == node.size));
                contents
            }
        };
        found.insert(tree.path(at as u32), (node.mode, contents));
    }
    found
}

#[tokio::test]
async fn everything_comes_back_as_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let tree = dir.path().join("tree");
    fill(&tree);
    let repositories = [
        Arc::new(MemoryRepository::new()) as Arc<dyn Repository>,
        fs_repository(&dir.path().join("repo")),
    ];
    for repository in repositories {
        let summary = commit(&repository, &tree).await;
        assert_eq!(in_repository(&repository, &summary).await, on_disk(&tree));
        assert_eq!(
            (summary.files, summary.symlinks, summary.directories),
            (5, 3, 4)
        );
        assert_eq!(summary.masks, 0);
        assert_eq!(summary.bytes, 5 + 5 + 3_000_123 + 300_000 + 12 + 7 + 3);
        assert_eq!(
            (summary.new_payloads, summary.new_bytes),
            (7, summary.bytes - 5)
        );
        assert!(summary.stock_readable);
        let Object::Layer(layer) = repository
            .get_object(&summary.layer)
            .await
            .expect("a layer")
        else {
            panic!("the layer is something else")
        };
        assert_eq!(layer.manifest(), Some(summary.manifest));

        let again = commit(&repository, &tree).await;
        let nothing_new = CommitSummary {
            new_payloads: 0,
            new_bytes: 0,
            ..summary
        };
        assert_eq!(again, nothing_new);
    }
}

#[tokio::test]
async fn digests_are_those_of_spfs() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("sub")).expect("a directory");
    fs::set_permissions(dir.path().join("sub"), fs::Permissions::from_mode(0o755)).expect("mode");
    fs::write(dir.path().join("hello.txt"), "hello").expect("a file");
    let mode = fs::Permissions::from_mode(0o644);
    fs::set_permissions(dir.path().join("hello.txt"), mode).expect("mode");
    symlink("../hello.txt", dir.path().join("sub/link")).expect("a link");
    let memory: Arc<dyn Repository> = Arc::new(MemoryRepository::new());
    let summary = commit(&memory, dir.path()).await;
    let text = summary.manifest.to_string();
    assert_eq!(
        text,
        "44VDDJFMMC2S5B665AZ4FSUD4Z63HF74DYJXSTS3L3O5QO7NGXGQ===="
    );
    let text = summary.layer.to_string();
    assert_eq!(
        text,
        "OCUW5FED6XDXLWOHVMTA6IOJ2P6TA7MGHNDQPYLOG2QFGLQEC6BQ===="
    );
    let header = Header {
        strategy: DigestStrategy::Legacy,
        encoding: Encoding::Legacy,
    };
    let options = CommitOptions {
        header,
        ..CommitOptions::default()
    };
    let legacy = commit_directory(memory, dir.path(), options, &())
        .await
        .expect("committed");
    let text = legacy.manifest.to_string();
    assert_eq!(
        text,
        "VC5VZQCKXU2VFU46FDT72HXD57PZHFLDC7OZF56HBNWRRT4735OA===="
    );
}

#[tokio::test]
async fn an_empty_directory_and_excluded_paths() {
    let dir = tempfile::tempdir().expect("a directory");
    let memory: Arc<dyn Repository> = Arc::new(MemoryRepository::new());
    let empty = commit(&memory, dir.path()).await;
    assert_eq!(
        empty.files + empty.directories + empty.symlinks + empty.bytes,
        0
    );
    assert!(manifest(&memory, &empty).await.root().entries().is_empty());

    fill(dir.path());
    let exclude = vec![PathBuf::from("sub/deep"), PathBuf::from("nothing")];
    let options = CommitOptions {
        exclude,
        ..CommitOptions::default()
    };
    let some = commit_directory(Arc::clone(&memory), dir.path(), options, &())
        .await
        .expect("some");
    let mut expected = on_disk(dir.path());
    expected.retain(|path, _| !path.starts_with("sub/deep") && path != "nothing");
    assert_eq!(in_repository(&memory, &some).await, expected);
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("a"), "fine").expect("a file");
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let said = refused(dir.path()).await;
    assert!(said.contains("/pipe: it is a named pipe"), "{said}");

    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).expect("one");
    fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"n\xffme")), "").expect("a file");
    symlink(
        std::ffi::OsStr::from_bytes(b"t\xff"),
        dir.path().join("link"),
    )
    .expect("a link");
    let said = refused(dir.path()).await;
    assert!(said.contains("4 things in it cannot be stored"), "{said}");
    for part in [
        "/pipe: it is a named pipe",
        "/socket: it is a socket",
        "not valid UTF-8",
        "/link: its target",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn of_many_problems_some_are_listed_and_all_are_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    for n in 0..30 {
        let pipe = dir.path().join(format!("pipe{n:02}"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    }
    let said = refused(dir.path()).await;
    assert!(
        said.contains("30 things") && said.contains("and 10 more"),
        "{said}"
    );
    assert!(said.contains("pipe00") && said.contains("pipe19") && !said.contains("pipe20"));
}

#[tokio::test]
async fn a_file_or_nothing_instead_of_a_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("file"), "").expect("a file");
    let said = refused(&dir.path().join("file")).await;
    assert!(said.contains("only a directory"), "{said}");
    let memory: Arc<dyn Repository> = Arc::new(MemoryRepository::new());
    let missing = dir.path().join("missing");
    let error = commit_directory(memory, &missing, CommitOptions::default(), &()).await;
    assert!(error.expect_err("missing").to_string().contains("missing"));
}

#[tokio::test]
async fn whiteouts_become_masks() {
    let dir = tempfile::tempdir().expect("a directory");
    let mode = nix::sys::stat::Mode::empty();
    let made = nix::sys::stat::mknod(
        &dir.path().join("gone"),
        nix::sys::stat::SFlag::S_IFCHR,
        mode,
        0,
    );
    if let Err(error) = made {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI makes device nodes: {error}"
        );
        eprintln!("left out: whiteouts cannot be made here: {error}");
        return;
    }
    let memory: Arc<dyn Repository> = Arc::new(MemoryRepository::new());
    let summary = commit(&memory, dir.path()).await;
    assert_eq!((summary.masks, summary.files), (1, 0));
    let manifest = manifest(&memory, &summary).await;
    let [entry] = manifest.root().entries() else {
        panic!("one entry")
    };
    assert_eq!((entry.name.as_str(), entry.object), ("gone", Digest::NULL));
    assert_eq!(
        (entry.kind, entry.mode),
        (farseek_object::EntryKind::Mask, 0o020_000)
    );
}

/// Changes the tree when the walk is over and nothing has been read.
struct Meddler<F>(Mutex<Option<F>>);

impl<F: FnOnce() + Send> Progress for Meddler<F> {
    fn found(&self, _files: u64, _bytes: u64) {
        if let Some(meddle) = self.0.lock().expect("no panic").take() {
            meddle();
        }
    }
}

async fn meddled(size: usize, meddle: impl FnOnce(&Path) + Send) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let (tree, repository) = (dir.path().join("tree"), dir.path().join("repo"));
    fs::create_dir_all(tree.join("sub")).expect("directories");
    fs::write(tree.join("sub/file"), random_bytes(size, 1)).expect("a file");
    let repository = fs_repository(&repository);
    let meddler = Meddler(Mutex::new(Some(|| meddle(&tree))));
    let options = CommitOptions::default();
    let result = commit_directory(Arc::clone(&repository), &tree, options, &meddler).await;
    let objects: Vec<_> = repository.list_objects(None).collect().await;
    for digest in objects {
        let object = repository
            .get_object(&digest.expect("a digest"))
            .await
            .expect("an object");
        assert!(
            matches!(object, Object::Blob(_)),
            "a {} was made",
            object.kind()
        );
    }
    result.expect_err("it changed").to_string()
}

#[tokio::test]
async fn what_changes_meanwhile_is_noticed() {
    for size in [100, 2_000_000] {
        let said = meddled(size, |tree| {
            fs::write(tree.join("sub/file"), random_bytes(size, 2)).expect("written");
        });
        assert!(
            said.await.contains("sub/file: it changed while"),
            "same size {size}"
        );
        let said = meddled(size, |tree| {
            fs::write(tree.join("sub/file"), random_bytes(size * 2, 2)).expect("written");
        });
        assert!(
            said.await.contains("sub/file: it changed while"),
            "longer {size}"
        );
        let said = meddled(size, |tree| {
            fs::remove_file(tree.join("sub/file")).expect("removed");
            symlink("/etc/passwd", tree.join("sub/file")).expect("a link");
        });
        assert!(said.await.contains("sub/file"), "replaced {size}");
        let said = meddled(size, |tree| {
            fs::remove_file(tree.join("sub/file")).expect("removed");
            let pipe = tree.join("sub/file");
            nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        });
        assert!(
            said.await.contains("sub/file: it changed while"),
            "a pipe in its place {size}"
        );
    }
    let said = meddled(100, |tree| {
        fs::write(tree.join("sub/new"), "").expect("written")
    })
    .await;
    assert!(said.contains("sub: it changed while"), "{said}");
}

#[derive(Default)]
struct Counts(Mutex<[u64; 4]>);

impl Progress for Counts {
    fn found(&self, files: u64, bytes: u64) {
        let mut counts = self.0.lock().expect("no panic");
        (counts[0], counts[1]) = (files, bytes);
    }

    fn stored(&self, files: u64, bytes: u64) {
        let mut counts = self.0.lock().expect("no panic");
        counts[2] += files;
        counts[3] += bytes;
    }
}

#[tokio::test]
async fn progress_adds_up() {
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path());
    let (memory, counts) = (Arc::new(MemoryRepository::new()), Counts::default());
    let options = CommitOptions {
        concurrency: 1,
        ..CommitOptions::default()
    };
    let summary = commit_directory(memory, dir.path(), options, &counts)
        .await
        .expect("committed");
    let [files, bytes, stored_files, stored_bytes] = *counts.0.lock().expect("no panic");
    assert_eq!((files, bytes), (8, summary.bytes));
    assert_eq!((stored_files, stored_bytes), (files, bytes));
}

#[tokio::test]
async fn a_very_deep_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let depth = 1_900;
    let deepest: PathBuf = std::iter::once(dir.path().to_owned())
        .chain((0..depth).map(|_| "d".into()))
        .collect();
    fs::create_dir_all(&deepest).expect("directories");
    fs::write(deepest.join("f"), "deep").expect("a file");
    let memory: Arc<dyn Repository> = Arc::new(MemoryRepository::new());
    let summary = commit(&memory, dir.path()).await;
    assert_eq!((summary.directories, summary.files), (depth, 1));
    assert_eq!(
        manifest(&memory, &summary).await.trees().len() as u64,
        depth + 1
    );
}

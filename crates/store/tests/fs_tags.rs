//! Tags on disk: where their files are, namespaces, what a crash leaves, and damage.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use farseek_object::{Digest, TagName, TagNamespace, TagStream};
use farseek_store::{
    FsOptions, FsRepository, Repository, RepositoryExt as _, StoreError, TagEntry,
};
use tempfile::TempDir;

fn create() -> (TempDir, FsRepository) {
    let directory = TempDir::new().unwrap();
    let repository = FsRepository::create(directory.path(), FsOptions::default()).unwrap();
    (directory, repository)
}

fn files_below(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path))
        } else {
            found.push(path)
        }
    }
    found
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[tokio::test]
async fn tag_files_are_where_spfs_looks_for_them() {
    let (directory, repository) = create();
    let name: TagName = "vfx/sub/2019".parse().unwrap();
    let tag = repository
        .push_tag(&name, &Digest::EMPTY, "me@here")
        .await
        .unwrap();
    let path = directory.path().join("tags/vfx/sub/2019.tag");
    let record = tag.encode();
    let mut wanted = (record.len() as i64).to_be_bytes().to_vec();
    wanted.extend(record);
    assert_eq!(fs::read(&path).unwrap(), wanted);
    assert_eq!(mode(&path), 0o666);
    assert_eq!(mode(path.parent().unwrap()), 0o777);
    assert_eq!(files_below(&directory.path().join("tags")), [path]);

    repository.remove_tag(&tag).await.unwrap();
    assert!(
        !directory.path().join("tags/vfx").exists(),
        "empty folders go too"
    );
    assert!(directory.path().join("tags").exists());
}

#[tokio::test]
async fn namespaces_are_worlds_of_their_own() {
    let (directory, outside) = create();
    let options = |namespace: &str| FsOptions {
        tag_namespace: Some(namespace.parse().unwrap()),
        ..FsOptions::default()
    };
    let inside = FsRepository::open(directory.path(), options("team")).unwrap();
    let name: TagName = "org/tag".parse().unwrap();
    assert_eq!(inside.list_tags("").await.unwrap(), []);
    inside
        .push_tag(&name, &Digest::EMPTY, "me@here")
        .await
        .unwrap();
    assert!(directory.path().join("tags/team#ns/org/tag.tag").exists());
    assert!(outside.read_tag(&name).await.unwrap_err().is_not_found());
    let namespace = TagEntry::Namespace("team".parse().unwrap());
    assert_eq!(outside.list_tags("").await.unwrap(), [namespace]);
    fs::create_dir(directory.path().join("tags/team#ns/inner#ns")).unwrap();
    fs::create_dir(directory.path().join("tags/team#ns/org/inner#ns")).unwrap();
    assert_eq!(
        inside.list_tags("").await.unwrap(),
        [TagEntry::Folder("org".into())]
    );
    assert_eq!(
        inside.list_tags("org").await.unwrap(),
        [TagEntry::Tag("tag".into())]
    );
    fs::remove_dir(directory.path().join("tags/team#ns/inner#ns")).unwrap();
    fs::remove_dir(directory.path().join("tags/team#ns/org/inner#ns")).unwrap();
    inside.remove_tag_stream(&name).await.unwrap();
    assert!(directory.path().join("tags/team#ns").exists());
    assert!(!directory.path().join("tags/team#ns/org").exists());
    assert!("../up".parse::<TagNamespace>().is_err());
}

#[tokio::test]
async fn stale_work_files_never_come_back() {
    let (directory, repository) = create();
    let name: TagName = "t".parse().unwrap();
    let first = repository
        .push_tag(&name, &Digest::of(b"1"), "me@here")
        .await
        .unwrap();
    let path = directory.path().join("tags/t.tag");
    let work = directory.path().join("tags/t.tag.work");
    fs::copy(&path, &work).unwrap();
    assert_eq!(
        repository.list_tags("").await.unwrap(),
        [TagEntry::Tag("t".into())]
    );
    let second = repository
        .push_tag(&name, &Digest::of(b"2"), "me@here")
        .await
        .unwrap();
    assert!(!work.exists());
    let stream = TagStream::decode(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(stream.newest_first().collect::<Vec<_>>(), [&second, &first]);
}

#[tokio::test]
async fn damaged_tag_files_are_named_and_not_written_over() {
    let (directory, repository) = create();
    let name: TagName = "t".parse().unwrap();
    for target in [b"1", b"2"] {
        repository
            .push_tag(&name, &Digest::of(target), "me@here")
            .await
            .unwrap();
    }
    let path = directory.path().join("tags/t.tag");
    let good = fs::read(&path).unwrap();
    let boundary = good.len() / 2;
    for length in (0..good.len()).filter(|&length| length != boundary) {
        fs::write(&path, &good[..length]).unwrap();
        let read = repository.read_tag(&name).await.unwrap_err();
        let push = repository
            .push_tag(&name, &Digest::EMPTY, "me@here")
            .await
            .unwrap_err();
        for error in [read, push] {
            assert!(
                error.to_string().contains(path.to_str().unwrap()),
                "{error}"
            );
            assert!(!error.is_not_found());
        }
        assert_eq!(fs::read(&path).unwrap(), good[..length]);
        assert_eq!(
            files_below(&directory.path().join("tags")),
            std::slice::from_ref(&path)
        );
    }
    let mut negative = good.clone();
    negative[0] = 0x80;
    fs::write(&path, &negative).unwrap();
    repository.read_tag(&name).await.unwrap_err();
    // The way out: removing the tag asks nothing of what is in the file.
    repository.remove_tag_stream(&name).await.unwrap();
    repository
        .push_tag(&name, &Digest::EMPTY, "me@here")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_directory_that_may_not_be_read_is_no_missing_one() {
    if nix::unistd::geteuid().is_root() {
        // Root may read everything; the rest of the suite runs as anybody.
        eprintln!("LEFT OUT: a directory that may not be read: it needs not to run as root");
        return;
    }
    let (directory, repository) = create();
    let tags = directory.path().join("tags");
    fs::set_permissions(&tags, fs::Permissions::from_mode(0o000)).unwrap();
    let error = repository.list_tags("").await.unwrap_err();
    fs::set_permissions(&tags, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}

#[tokio::test]
async fn links_to_folders_are_followed_unless_they_lead_up() {
    let (directory, repository) = create();
    let tags = directory.path().join("tags");
    for name in ["a/x", "b/y"] {
        repository
            .push_tag(&name.parse().unwrap(), &Digest::EMPTY, "me@here")
            .await
            .unwrap();
    }
    // Two of each: to follow them would take 2^40 steps.
    for link in ["1", "2"] {
        symlink(".", tags.join(format!("self{link}"))).unwrap();
        symlink("..", tags.join(format!("a/up{link}"))).unwrap();
        symlink("../b", tags.join(format!("a/b{link}"))).unwrap();
        symlink("../a", tags.join(format!("b/a{link}"))).unwrap();
    }
    symlink("round.tag", tags.join("round.tag")).unwrap();
    let names = repository.walk_tags("").await.unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let wanted = [
        "a/b1/y", "a/b2/y", "a/x", "b/a1/x", "b/a2/x", "b/y", "round",
    ];
    assert_eq!(names, wanted);
    let read = repository.read_tag(&"round".parse().unwrap()).await;
    assert!(matches!(read, Err(StoreError::Io { .. })), "{read:?}");
}

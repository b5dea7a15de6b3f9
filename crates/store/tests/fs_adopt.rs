//! Taking a complete file over as a payload, from the same file system and from another.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail it")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use farseek_object::Digest;
use farseek_store::{FsOptions, FsRepository, Repository};

const CONTENT: &[u8] = b"complete and verified";

/// Adopts a file from `from` and returns its inode before and that of the payload after.
async fn adopt(from: &Path, repository: &FsRepository, root: &Path) -> (u64, u64) {
    let digest = Digest::of(CONTENT);
    let file = from.join("data");
    fs::write(&file, CONTENT).unwrap();
    let before = fs::metadata(&file).unwrap().ino();
    repository.adopt_payload(&digest, &file).await.unwrap();
    assert!(!file.exists(), "it is taken, not copied");
    let text = digest.to_string();
    let payload = root.join("payloads").join(&text[..2]).join(&text[2..]);
    let metadata = fs::metadata(&payload).unwrap();
    assert_eq!(fs::read(&payload).unwrap(), CONTENT);
    assert_eq!(metadata.permissions().mode() & 0o777, 0o666);
    let work = fs::read_dir(root.join("payloads/work"))
        .into_iter()
        .flatten()
        .count();
    assert_eq!(work, 0, "nothing is left in work/");
    (before, metadata.ino())
}

#[tokio::test]
async fn it_is_renamed_where_it_can_be_and_adopting_again_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("repository");
    let repository = FsRepository::create(&root, FsOptions::default()).unwrap();
    let (before, after) = adopt(dir.path(), &repository, &root).await;
    assert_eq!(before, after, "renamed");
    let (_, again) = adopt(dir.path(), &repository, &root).await;
    assert_eq!(again, after, "the payload that is there stays");
}

#[tokio::test]
async fn from_another_file_system_it_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let devices = [dir.path(), elsewhere.path()].map(|path| fs::metadata(path).unwrap().dev());
    assert_ne!(devices[0], devices[1], "the test needs two file systems");
    let root = dir.path().join("repository");
    let repository = FsRepository::create(&root, FsOptions::default()).unwrap();
    adopt(elsewhere.path(), &repository, &root).await;
}

#[tokio::test]
async fn a_file_that_is_not_there_is_an_error_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let repository = FsRepository::create(dir.path(), FsOptions::default()).unwrap();
    let digest = Digest::of(CONTENT);
    assert!(
        repository
            .adopt_payload(&digest, &dir.path().join("none"))
            .await
            .is_err()
    );
    assert_eq!(repository.payload_size(&digest).await.unwrap(), None);
}

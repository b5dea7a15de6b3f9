//! The repository on disk: its layout, what a crash leaves, and damage.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use farseek_object::{Blob, Digest, Encoding, Header, Object, Platform};
use farseek_store::{FsOptions, FsRepository, PutOptions, Repository, StoreError};
use futures::{StreamExt, TryStreamExt, stream};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

const NOW: PutOptions = PutOptions {
    mode: None,
    deferred: false,
    digest: None,
};
const LATER: PutOptions = PutOptions {
    mode: None,
    deferred: true,
    digest: None,
};

fn create() -> (TempDir, FsRepository) {
    let directory = TempDir::new().unwrap();
    let repository = FsRepository::create(directory.path(), FsOptions::default()).unwrap();
    (directory, repository)
}

fn shard_path(root: &Path, store: &str, digest: &Digest) -> PathBuf {
    let text = digest.to_string();
    root.join(store).join(&text[..2]).join(&text[2..])
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

fn make_old(path: &Path) -> SystemTime {
    let old = SystemTime::now() - Duration::from_secs(100_000);
    File::open(path)
        .unwrap()
        .set_times(FileTimes::new().set_modified(old))
        .unwrap();
    old
}

fn is_young(path: &Path) -> bool {
    fs::metadata(path)
        .unwrap()
        .modified()
        .unwrap()
        .elapsed()
        .unwrap_or_default()
        < Duration::from_secs(1000)
}

async fn put(repository: &FsRepository, bytes: Vec<u8>, options: PutOptions) -> Digest {
    let body = stream::iter([Ok(Bytes::from(bytes))]).boxed();
    repository.put_payload(body, options).await.unwrap().0
}

fn platform(text: &str) -> Platform {
    Platform {
        header: Header::default(),
        layers: vec![Digest::of(text.as_bytes())],
    }
}

fn open_error(path: &Path) -> String {
    FsRepository::open(path, FsOptions::default())
        .unwrap_err()
        .to_string()
}

#[test]
fn what_is_no_repository_is_said_clearly() {
    let directory = TempDir::new().unwrap();
    let root = directory.path();
    assert!(open_error(&root.join("none")).contains("there is nothing there"));
    assert!(open_error(root).contains("no directory 'objects'"));
    fs::create_dir(root.join("objects")).unwrap();
    assert!(open_error(root).contains("no directory 'payloads'"));
    fs::create_dir(root.join("payloads")).unwrap();
    FsRepository::open(root, FsOptions::default()).unwrap();

    fs::write(root.join("file"), "").unwrap();
    assert!(open_error(&root.join("file")).contains("a file, not a directory"));
    let refused = FsRepository::create(&root.join("file"), FsOptions::default()).unwrap_err();
    assert!(
        refused.to_string().contains("a file, not a directory"),
        "{refused}"
    );
}

#[test]
fn versions_are_checked_and_never_overwritten() {
    let directory = TempDir::new().unwrap();
    let root = directory.path().join("made/on/the/way");
    FsRepository::create(&root, FsOptions::default()).unwrap();
    let version = root.join("VERSION");
    assert_eq!(fs::read_to_string(&version).unwrap(), "0.44.0");
    for directory in ["", "objects", "payloads", "tags"] {
        assert_eq!(mode(&root.join(directory)), 0o777, "{directory:?}");
    }
    assert_eq!(mode(&version), 0o666);

    fs::write(&version, "0.12.3\n").unwrap();
    FsRepository::create(&root, FsOptions::default()).unwrap();
    assert_eq!(fs::read_to_string(&version).unwrap(), "0.12.3\n");

    fs::write(&version, "1.0.0").unwrap();
    fs::remove_dir(root.join("tags")).unwrap();
    assert!(
        open_error(&root).contains("too new"),
        "{}",
        open_error(&root)
    );
    FsRepository::create(&root, FsOptions::default()).unwrap_err();
    assert_eq!(fs::read_to_string(&version).unwrap(), "1.0.0");
    assert!(!root.join("tags").exists(), "nothing is made in it");

    fs::write(&version, " ").unwrap();
    FsRepository::open(&root, FsOptions::default()).unwrap();
}

#[tokio::test]
async fn files_are_where_spfs_looks_for_them() {
    let (directory, repository) = create();
    let root = directory.path();
    let digest = put(&repository, b"hello".to_vec(), NOW).await;
    assert_eq!(
        digest.to_string(),
        "FTZE3OS7WCRQ4JXIHMVMLOPCTYNRMHS4D6TUEXTTAQZWFE4LTASA===="
    );
    let payload = root.join("payloads/FT/ZE3OS7WCRQ4JXIHMVMLOPCTYNRMHS4D6TUEXTTAQZWFE4LTASA====");
    assert_eq!(fs::read(&payload).unwrap(), b"hello");
    assert_eq!(mode(&payload), 0o666);
    assert_eq!(mode(&root.join("payloads/FT")), 0o777);

    let blob = Object::Blob(Blob {
        header: Header::default(),
        payload: digest,
        size: 5,
    });
    repository.put_object(&blob, NOW).await.unwrap();
    let object = shard_path(root, "objects", &digest);
    assert_eq!(fs::read(&object).unwrap(), blob.encode().unwrap());
    assert_eq!(mode(&object), 0o666);

    let private = PutOptions {
        mode: Some(0o104_700),
        deferred: false,
        digest: None,
    };
    let digest = put(&repository, b"tool".to_vec(), private).await;
    // Nobody gets a program that runs as its owner onto the disk by that.
    assert_eq!(mode(&shard_path(root, "payloads", &digest)), 0o744);
    for work in ["objects/work", "payloads/work"] {
        assert_eq!(files_below(&root.join(work)), [] as [PathBuf; 0]);
    }
}

#[tokio::test]
async fn what_is_there_is_kept_and_made_young() {
    let (directory, repository) = create();
    let large = vec![7; 3 << 20];
    for deferred in [false, true] {
        let options = PutOptions {
            mode: None,
            deferred,
            digest: None,
        };
        for bytes in [b"small".to_vec(), large.clone()] {
            let digest = put(&repository, bytes.clone(), NOW).await;
            let path = shard_path(directory.path(), "payloads", &digest);
            let inode = fs::metadata(&path).unwrap().ino();
            make_old(&path);
            assert!(!is_young(&path));
            put(&repository, bytes, options).await;
            assert!(is_young(&path));
            assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        }
        let object = Object::Platform(platform("a"));
        let digest = repository.put_object(&object, NOW).await.unwrap();
        let path = shard_path(directory.path(), "objects", &digest);
        make_old(&path);
        repository.put_object(&object, options).await.unwrap();
        assert!(is_young(&path));

        // The same object in the other encoding is the same object: it stays as it is.
        let before = fs::read(&path).unwrap();
        make_old(&path);
        let header = Header {
            encoding: Encoding::Legacy,
            ..Header::default()
        };
        let legacy = Object::Platform(Platform {
            header,
            ..platform("a")
        });
        assert_eq!(
            repository.put_object(&legacy, options).await.unwrap(),
            digest
        );
        assert!(is_young(&path));
        assert_eq!(fs::read(&path).unwrap(), before);
    }
    assert_eq!(
        files_below(&directory.path().join("payloads/work")),
        [] as [PathBuf; 0]
    );
}

#[tokio::test]
async fn damaged_files_are_named_and_mended_by_the_next_write() {
    let (directory, repository) = create();
    let object = Object::Platform(platform("a"));
    let digest = repository.put_object(&object, NOW).await.unwrap();
    let path = shard_path(directory.path(), "objects", &digest);
    let good = fs::read(&path).unwrap();
    for length in 0..good.len() {
        fs::write(&path, &good[..length]).unwrap();
        let error = repository.get_object(&digest).await.unwrap_err();
        let StoreError::Undecodable { location, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(location, path.to_str().unwrap());
        assert!(repository.has_object(&digest).await.unwrap());
    }
    repository.put_object(&object, NOW).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), good);

    // A flipped bit is noticed, or is in a byte that no reader looks at.
    let mut noticed = 0;
    for position in 0..good.len() {
        let mut bad = good.clone();
        bad[position] ^= 1;
        fs::write(&path, &bad).unwrap();
        match repository.get_object(&digest).await {
            Ok(found) => assert_eq!(found.digest(), digest),
            Err(StoreError::Undecodable { location, .. }) => {
                assert_eq!(location, path.to_str().unwrap());
                noticed += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(noticed > good.len() / 2, "{noticed} of {}", good.len());

    let digest = put(&repository, b"hello".to_vec(), NOW).await;
    let path = shard_path(directory.path(), "payloads", &digest);
    fs::write(&path, "hel").unwrap();
    assert_eq!(repository.payload_size(&digest).await.unwrap(), Some(3));
    put(&repository, b"hello".to_vec(), NOW).await;
    assert_eq!(fs::read(&path).unwrap(), b"hello");
    fs::remove_file(&path).unwrap();
    assert_eq!(repository.payload_size(&digest).await.unwrap(), None);
}

#[tokio::test]
async fn a_payload_that_shrinks_while_it_is_read_is_an_error() {
    let (directory, repository) = create();
    let digest = put(&repository, vec![7; 3 << 20], NOW).await;
    let mut payload = repository.get_payload(&digest, 0..u64::MAX).await.unwrap();
    let path = shard_path(directory.path(), "payloads", &digest);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1)
        .unwrap();
    assert!(payload.body.next().await.unwrap().is_ok());
    let error = payload.body.next().await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()));
    assert!(payload.body.next().await.is_none());
}

#[tokio::test]
async fn what_is_no_file_is_corrupt_and_never_waited_for() {
    let (directory, repository) = create();
    for (number, kind) in ["directory", "fifo"].into_iter().enumerate() {
        let digest = Digest::of(&[number as u8]);
        for store in ["objects", "payloads"] {
            let path = shard_path(directory.path(), store, &digest);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match kind {
                "directory" => fs::create_dir(&path).unwrap(),
                _ => mkfifo(&path, Mode::S_IRWXU).unwrap(),
            }
        }
        let errors = [
            repository.get_object(&digest).await.unwrap_err(),
            repository.has_object(&digest).await.unwrap_err(),
            repository.get_payload(&digest, 0..1).await.unwrap_err(),
            repository.payload_file(&digest).await.unwrap_err(),
            repository.payload_size(&digest).await.unwrap_err(),
        ];
        for error in errors {
            assert!(
                matches!(error, StoreError::Corrupt { .. }),
                "{kind}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn what_does_not_belong_is_not_listed() {
    let (directory, repository) = create();
    let digest = repository
        .put_object(&Object::Platform(platform("a")), NOW)
        .await
        .unwrap();
    let objects = directory.path().join("objects");
    let text = digest.to_string();
    for junk in [
        "work/00000000-0000-4000-8000-000000000000",
        "abc",
        "AA/short",
        "aa/x",
        "proxy/x",
    ] {
        let path = objects.join(junk);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "junk").unwrap();
    }
    fs::write(
        objects
            .join(&text[..2])
            .join(format!("{}.completed", &text[2..])),
        "",
    )
    .unwrap();
    let found: Vec<_> = repository.list_objects(None).try_collect().await.unwrap();
    assert_eq!(found, [digest]);
}

#[tokio::test]
async fn many_deferred_writes_are_published_together() {
    let (directory, repository) = create();
    let mut digests = Vec::new();
    for number in 0..300_u32 {
        let bytes = number.to_le_bytes().to_vec();
        let digest = put(&repository, bytes, LATER).await;
        let blob = Object::Blob(Blob {
            header: Header::default(),
            payload: digest,
            size: 4,
        });
        repository.put_object(&blob, LATER).await.unwrap();
        digests.push(digest);
    }
    let work = |store: &str| files_below(&directory.path().join(store).join("work")).len();
    assert_eq!((work("objects"), work("payloads")), (300, 300));
    repository.publish().await.unwrap();
    assert_eq!((work("objects"), work("payloads")), (0, 0));
    for (number, digest) in digests.iter().enumerate() {
        let payload = shard_path(directory.path(), "payloads", digest);
        assert_eq!(fs::read(&payload).unwrap(), (number as u32).to_le_bytes());
        assert_eq!(mode(&payload), 0o666);
        repository.get_object(digest).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_never_published_is_removed() {
    let (directory, repository) = create();
    let digest = put(&repository, b"hello".to_vec(), LATER).await;
    assert_eq!(files_below(&directory.path().join("payloads")).len(), 1);
    drop(repository);
    assert_eq!(
        files_below(&directory.path().join("payloads")),
        [] as [PathBuf; 0]
    );
    let repository = FsRepository::open(directory.path(), FsOptions::default()).unwrap();
    repository.publish().await.unwrap();
    assert_eq!(repository.payload_size(&digest).await.unwrap(), None);
}

#[tokio::test]
async fn a_publish_that_fails_can_be_repeated() {
    let (directory, repository) = create();
    let mut digests = Vec::new();
    for number in 0..5_u8 {
        digests.push(put(&repository, vec![number], LATER).await);
    }
    // A file where a directory should be made stops the publish in the middle.
    let obstacle = shard_path(directory.path(), "payloads", &digests[2]);
    let obstacle = obstacle.parent().unwrap();
    fs::write(obstacle, "").unwrap();
    repository.publish().await.unwrap_err();
    repository.publish().await.unwrap_err();
    let is_there = async |digest| matches!(repository.payload_size(digest).await, Ok(Some(1)));
    assert!(is_there(&digests[0]).await && is_there(&digests[1]).await);
    assert!(!is_there(&digests[3]).await);
    fs::remove_file(obstacle).unwrap();
    repository.publish().await.unwrap();
    for digest in &digests {
        assert!(is_there(digest).await);
    }
}

#[tokio::test]
async fn a_repository_that_cannot_be_written_says_which_file() {
    let (directory, repository) = create();
    let digest = put(&repository, b"hello".to_vec(), NOW).await;
    // A file where the work directory should be: it stops even root.
    fs::remove_dir(directory.path().join("payloads/work")).unwrap();
    fs::write(directory.path().join("payloads/work"), "").unwrap();
    let body = stream::iter([Ok(Bytes::from_static(b"other"))]).boxed();
    let error = repository.put_payload(body, NOW).await.unwrap_err();
    let StoreError::Io { path, .. } = &error else {
        panic!("{error}")
    };
    assert!(
        path.starts_with(directory.path().join("payloads/work")),
        "{error}"
    );
    assert_eq!(
        put(&repository, b"hello".to_vec(), NOW).await,
        digest,
        "it is there already"
    );
}

#[tokio::test]
async fn what_somebody_removes_before_it_is_published_is_told_once_and_forgotten() {
    for many in [3, 100] {
        let (directory, repository) = create();
        let header = Header::default();
        let mut digests = Vec::new();
        for number in 0..many {
            let payload = put(&repository, vec![number; 10], LATER).await;
            let size = 10;
            let blob = Object::Blob(Blob {
                header,
                payload,
                size,
            });
            assert_eq!(repository.put_object(&blob, LATER).await.unwrap(), payload);
            digests.push(payload);
        }
        let work = directory.path().join("payloads/work");
        let removed = files_below(&work).pop().unwrap();
        let lost = Digest::of(&fs::read(&removed).unwrap());
        fs::remove_file(removed).unwrap();
        let error = repository.publish().await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Lost { digests, .. } if *digests == [lost]),
            "{error:?}"
        );
        // All else is there, and no blob object promises what is not.
        for digest in &digests {
            let is_there = *digest != lost;
            let size = repository.payload_size(digest).await.unwrap();
            assert_eq!(size.is_some(), is_there);
            assert_eq!(repository.has_object(digest).await.unwrap(), is_there);
        }
        repository.publish().await.unwrap();
        assert_eq!(files_below(&work), [] as [PathBuf; 0]);
        let number = digests.iter().position(|digest| *digest == lost).unwrap();
        put(&repository, vec![number as u8; 10], LATER).await;
        repository.publish().await.unwrap();
        assert_eq!(repository.payload_size(&lost).await.unwrap(), Some(10));
    }
}

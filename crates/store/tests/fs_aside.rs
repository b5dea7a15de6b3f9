//! What a cleaner has put aside is there for everybody, and is put back.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use farseek_object::{Blob, Digest, Header, Object};
use farseek_store::{
    CleanOptions, FsOptions, FsRepository, PutOptions, Repository, Upkeep as _, plan_clean, sweep,
};
use futures::stream::{self, StreamExt};

const NAME: &str = "6a0f3f0c-5f3c-4d1e-9b52-0d8a2d1c9f10";

fn path_of(root: &Path, store: &str, digest: &Digest) -> PathBuf {
    let text = digest.to_string();
    root.join(store).join(&text[..2]).join(&text[2..])
}

/// Does what a cleaner has done that is killed before it judges.
fn put_aside(root: &Path, store: &str, digest: &Digest) {
    let aside = root.join(store).join("work/aside");
    fs::create_dir_all(&aside).unwrap();
    let path = path_of(root, store, digest);
    fs::rename(path, aside.join(format!("{digest}.{NAME}"))).unwrap();
}

fn make_old(path: &Path) -> SystemTime {
    let day_ago = SystemTime::now() - Duration::from_secs(86_400);
    let times = FileTimes::new().set_modified(day_ago);
    File::open(path).unwrap().set_times(times).unwrap();
    day_ago
}

async fn put(repository: &FsRepository, bytes: &[u8]) -> Digest {
    let body = stream::iter([Ok(Bytes::copy_from_slice(bytes))]).boxed();
    let put = PutOptions::default();
    let (payload, size) = repository.put_payload(body, put).await.unwrap();
    let header = Header::default();
    let blob = Object::Blob(Blob {
        header,
        payload,
        size,
    });
    repository.put_object(&blob, put).await.unwrap()
}

async fn clean(repository: &Arc<FsRepository>) -> u64 {
    let repository: Arc<dyn Repository> = repository.clone();
    let options = CleanOptions {
        threshold: Duration::ZERO,
        ..CleanOptions::default()
    };
    let plan = plan_clean(&repository, &options, &()).await.unwrap();
    let summary = sweep(&repository, &plan, &options, &()).await.unwrap();
    summary.objects + summary.payloads
}

#[tokio::test]
async fn what_is_aside_is_read_and_put_back_and_goes_with_the_clean_after() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let repository = Arc::new(FsRepository::create(root, FsOptions::default()).unwrap());
    let digest = put(&repository, b"aside").await;
    put_aside(root, "objects", &digest);
    put_aside(root, "payloads", &digest);
    assert!(matches!(
        repository.get_object(&digest).await,
        Ok(Object::Blob(_))
    ));
    assert!(repository.payload_file(&digest).await.unwrap().is_some());
    assert_eq!(repository.aside().await.unwrap(), [digest]);
    // Another may be at work on it: it is left alone, and put back for who comes next.
    assert_eq!(clean(&repository).await, 0);
    assert!(path_of(root, "objects", &digest).exists());
    assert!(path_of(root, "payloads", &digest).exists());
    assert_eq!(clean(&repository).await, 2);
    assert!(
        repository
            .get_object(&digest)
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert_eq!(
        fs::read_dir(root.join("objects/work/aside"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn what_was_written_anew_stays_when_the_old_one_is_put_back() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let repository = Arc::new(FsRepository::create(root, FsOptions::default()).unwrap());
    let digest = put(&repository, b"anew").await;
    let old = path_of(root, "payloads", &digest);
    let day_ago = make_old(&old);
    put_aside(root, "payloads", &digest);
    put(&repository, b"anew").await;
    repository.restore().await.unwrap();
    assert!(repository.payload_written(&digest).await.unwrap() > Some(day_ago));
    assert_eq!(
        fs::read_dir(root.join("payloads/work/aside"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn nothing_written_since_a_hold_began_goes_while_it_lasts() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let repository = Arc::new(FsRepository::create(root, FsOptions::default()).unwrap());
    let before = put(&repository, b"before").await;
    // The clock of files ticks some milliseconds at a time.
    make_old(&path_of(root, "objects", &before));
    make_old(&path_of(root, "payloads", &before));
    let hold = repository.hold().await.unwrap();
    let during = put(&repository, b"during").await;
    assert_eq!(clean(&repository).await, 2);
    assert!(repository.has_object(&during).await.unwrap());
    assert!(!repository.has_object(&before).await.unwrap());
    drop(hold);
    assert_eq!(clean(&repository).await, 2);
}

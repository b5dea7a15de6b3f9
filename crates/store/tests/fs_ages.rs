//! Ages of files on disk: who has put something may count on a young one, whatever a cleaner does.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs::{File, FileTimes};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use farseek_object::{Blob, Digest, Header, Object};
use farseek_store::{
    CleanOptions, FsOptions, FsRepository, PutOptions, Repository, plan_clean, sweep,
};
use futures::stream::{self, StreamExt};
use tokio::runtime::Runtime;

const DAY: Duration = Duration::from_secs(86_400);

fn file_of(root: &Path, store: &str, digest: &Digest) -> PathBuf {
    let text = digest.to_string();
    root.join(store).join(&text[..2]).join(&text[2..])
}

fn make_old(path: &Path) {
    let times = FileTimes::new().set_modified(SystemTime::now() - 2 * DAY);
    File::open(path).unwrap().set_times(times).unwrap();
}

/// What a cleaner takes for old.
fn limit() -> SystemTime {
    SystemTime::now() - DAY
}

async fn put(repository: &FsRepository, bytes: &[u8], options: PutOptions) -> Digest {
    let body = stream::iter([Ok(Bytes::copy_from_slice(bytes))]).boxed();
    repository.put_payload(body, options).await.unwrap().0
}

/// Files in `path` and below it.
fn files_in(path: &Path) -> usize {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => files_in(&entry.path()),
            false => 1,
        })
        .sum()
}

#[tokio::test]
async fn what_waited_to_be_published_or_adopted_is_young() {
    let directory = tempfile::tempdir().unwrap();
    let repository = FsRepository::create(directory.path(), FsOptions::default()).unwrap();
    let deferred = PutOptions {
        deferred: true,
        ..PutOptions::default()
    };
    let waiting = put(&repository, b"waits", deferred).await;
    for entry in std::fs::read_dir(directory.path().join("payloads/work")).unwrap() {
        make_old(&entry.unwrap().path());
    }
    repository.publish().await.unwrap();
    let cached = directory.path().join("cached");
    std::fs::write(&cached, b"cached").unwrap();
    make_old(&cached);
    let adopted = Digest::of(b"cached");
    repository.adopt_payload(&adopted, &cached).await.unwrap();
    for digest in [waiting, adopted] {
        let removal = repository.remove_payload_if_older_than(&digest, limit());
        assert!(!removal.await.unwrap());
        assert!(repository.payload_size(&digest).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn what_is_put_again_is_young_and_what_is_not_goes() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let repository = FsRepository::create(root, FsOptions::default()).unwrap();
    let again = put(&repository, b"again", PutOptions::default()).await;
    let once = put(&repository, b"once", PutOptions::default()).await;
    for digest in [again, once] {
        make_old(&file_of(root, "payloads", &digest));
        assert!(repository.payload_written(&digest).await.unwrap() < Some(limit()));
    }
    put(&repository, b"again", PutOptions::default()).await;
    let removal = repository.remove_payload_if_older_than(&again, limit());
    assert!(!removal.await.unwrap());
    let removal = repository.remove_payload_if_older_than(&once, limit());
    assert!(removal.await.unwrap());
    assert!(repository.payload_size(&again).await.unwrap().is_some());
    assert!(repository.payload_size(&once).await.unwrap().is_none());
    assert_eq!(files_in(&root.join("payloads/work")), 0);
}

/// A writer finds an old object, a cleaner at the same time, too: whoever is first, what the
/// writer was told is stored is there.
#[test]
fn a_removal_by_age_takes_nothing_from_who_puts_it_again() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let open = || FsRepository::create(root, FsOptions::default()).unwrap();
    let object = Object::Blob(Blob {
        header: Header::default(),
        payload: Digest::EMPTY,
        size: 0,
    });
    let digest = object.digest();
    let path = file_of(root, "objects", &digest);
    let (writer, cleaner) = (open(), open());
    let runtime = Runtime::new().unwrap();
    let put = || runtime.block_on(writer.put_object(&object, PutOptions::default()));
    put().unwrap();
    for _ in 0..500 {
        make_old(&path);
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                let removal = cleaner.remove_object_if_older_than(&digest, limit());
                runtime.block_on(removal).unwrap();
            });
            start.wait();
            put().unwrap();
        });
        let written = runtime.block_on(writer.object_written(&digest)).unwrap();
        assert!(written > Some(limit()), "{written:?}");
    }
    assert_eq!(files_in(&root.join("objects/work")), 0);
}

#[tokio::test]
async fn an_upload_that_broke_off_goes_after_a_day_unless_somebody_goes_on_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let repository = FsRepository::create(directory.path(), FsOptions::default()).unwrap();
    let work = directory.path().join("payloads/work");
    std::fs::create_dir_all(&work).unwrap();
    let upload = |name: &str| {
        let path = work.join(name);
        std::fs::write(&path, b"the beginning").unwrap();
        path
    };
    let of = |what: &[u8]| format!("upload-{}", Digest::of(what));
    let [old, locked] = [b"old", b"lck"].map(|what| upload(&of(what)));
    let young = upload(&of(b"young"));
    let somebodys = upload("upload-of-mine");
    for path in [&old, &locked, &somebodys] {
        make_old(path);
    }
    let going_on = File::open(&locked).unwrap();
    going_on.lock().unwrap();
    let repository: Arc<dyn Repository> = Arc::new(repository);
    let options = CleanOptions {
        threshold: Duration::ZERO,
        ..CleanOptions::default()
    };
    let plan = plan_clean(&repository, &options, &()).await.unwrap();
    sweep(&repository, &plan, &options, &()).await.unwrap();
    let left = [&old, &locked, &young, &somebodys].map(|path| path.exists());
    assert_eq!(left, [false, true, true, true]);
}

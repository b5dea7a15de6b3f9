//! Many writers of the same tags at once: threads, processes, and SPFS's own way of locking.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{SubsecRound, Utc};
use farseek_object::{Digest, Tag, TagName, TagStream};
use farseek_store::{FsOptions, FsRepository, Repository, RepositoryExt, StoreError};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// Where the ignored test that pushes finds the repository, and who it is.
const PUSH: &str = "FARSEEK_TEST_PUSH";

/// These tests are about lost versions, not about patience on a slow machine.
fn options() -> FsOptions {
    FsOptions {
        lock_timeout: Duration::from_secs(120),
        ..FsOptions::default()
    }
}

fn name(text: &str) -> TagName {
    text.parse().unwrap()
}

/// Pushes `count` versions that only `who` pushes, as a process of its own would.
fn push_many(path: &Path, who: &str, count: usize) {
    let runtime = Runtime::new().unwrap();
    let repository = FsRepository::open(path, options()).unwrap();
    let tag = name("org/shared");
    for number in 0..count {
        let target = Digest::of(format!("{who} {number}").as_bytes());
        let pushed = repository.push_tag(&tag, &target, who);
        assert_eq!(runtime.block_on(pushed).unwrap().target, target);
    }
}

/// All versions are there, each after its parent; nothing else is left in the folder.
fn check_chain(path: &Path, count: usize) {
    let file = path.join("tags/org/shared.tag");
    let stream = TagStream::decode(&fs::read(file).unwrap()).unwrap();
    let versions: Vec<&Tag> = stream.newest_first().collect();
    assert_eq!(versions.len(), count);
    for pair in versions.windows(2) {
        assert_eq!(pair[0].parent, pair[1].digest());
        assert!(pair[0].time > pair[1].time);
    }
    assert_eq!(versions.last().unwrap().parent, Digest::NULL);
    assert_eq!(fs::read_dir(path.join("tags/org")).unwrap().count(), 1);
}

#[test]
fn threads_lose_no_version() {
    let directory = TempDir::new().unwrap();
    FsRepository::create(directory.path(), options()).unwrap();
    thread::scope(|scope| {
        for who in 0..20 {
            let path = directory.path();
            scope.spawn(move || push_many(path, &who.to_string(), 5));
        }
    });
    check_chain(directory.path(), 100);
}

#[test]
fn tasks_of_one_repository_lose_no_version() {
    let directory = TempDir::new().unwrap();
    let repository = FsRepository::create(directory.path(), options()).unwrap();
    let pushes = (0..40_u8).map(|number| {
        let repository = &repository;
        async move {
            let target = Digest::of(&[number]);
            repository
                .push_tag(&name("org/shared"), &target, "me@here")
                .await
                .unwrap();
        }
    });
    Runtime::new()
        .unwrap()
        .block_on(futures::future::join_all(pushes));
    check_chain(directory.path(), 40);
}

#[test]
#[ignore = "run by processes_lose_no_version, in a process of its own"]
fn push_as_a_process() {
    let Ok(what) = std::env::var(PUSH) else {
        return;
    };
    let (who, path) = what.split_once(' ').unwrap();
    push_many(Path::new(path), who, 5);
}

#[test]
fn processes_lose_no_version() {
    let directory = TempDir::new().unwrap();
    FsRepository::create(directory.path(), options()).unwrap();
    let children: Vec<_> = (0..8)
        .map(|who| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "push_as_a_process", "--ignored"])
                .env(PUSH, format!("{who} {}", directory.path().display()))
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let results: Vec<_> = children
        .into_iter()
        .map(|mut child| child.wait().unwrap())
        .collect();
    assert!(results.iter().all(|status| status.success()), "{results:?}");
    check_chain(directory.path(), 40);
}

/// A writer that does as SPFS does: an empty lock, no look at its owner.
fn insert_as_spfs(path: &Path, tag: Tag) {
    let deadline = Instant::now() + Duration::from_secs(120);
    let lock = path.with_extension("tag.lock");
    while OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&lock)
        .is_err()
    {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(1));
    }
    let mut stream = TagStream::decode(&fs::read(path).unwrap()).unwrap();
    stream.insert(tag);
    let work = path.with_extension("tag.work");
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&work)
        .unwrap();
    file.write_all(&stream.encode()).unwrap();
    fs::rename(work, path).unwrap();
    fs::remove_file(lock).unwrap();
}

#[test]
fn spfs_and_we_lose_nothing_of_each_other() {
    let directory = TempDir::new().unwrap();
    FsRepository::create(directory.path(), options()).unwrap();
    push_many(directory.path(), "first", 1);
    thread::scope(|scope| {
        for who in 0..4_u8 {
            let path = directory.path();
            scope.spawn(move || push_many(path, &who.to_string(), 10));
            scope.spawn(move || {
                for number in 0..10_u8 {
                    let tag = Tag {
                        name: name("org/shared"),
                        target: Digest::of(&[who, number]),
                        parent: Digest::NULL,
                        user: "spfs@here".into(),
                        time: Utc::now().trunc_subsecs(6),
                    };
                    insert_as_spfs(&path.join("tags/org/shared.tag"), tag);
                }
            });
        }
    });
    let stream = fs::read(directory.path().join("tags/org/shared.tag")).unwrap();
    assert_eq!(TagStream::decode(&stream).unwrap().len(), 81);
}

/// Folders come and go under those who write in them.
#[test]
fn folders_that_vanish_are_made_again() {
    let directory = TempDir::new().unwrap();
    FsRepository::create(directory.path(), options()).unwrap();
    thread::scope(|scope| {
        for who in 0..6 {
            let path = directory.path();
            scope.spawn(move || {
                let runtime = Runtime::new().unwrap();
                let repository = FsRepository::open(path, options()).unwrap();
                let tag = name(&format!("a/b/c/{who}"));
                for _ in 0..30 {
                    runtime
                        .block_on(repository.push_tag(&tag, &Digest::EMPTY, "me@here"))
                        .unwrap();
                    runtime.block_on(repository.list_tags("a/b")).unwrap();
                    runtime
                        .block_on(repository.remove_tag_stream(&tag))
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(
        fs::read_dir(directory.path().join("tags")).unwrap().count(),
        0
    );
}

/// Readers see a whole history while it is rewritten, and never none.
#[test]
fn readers_see_whole_histories() {
    let directory = TempDir::new().unwrap();
    FsRepository::create(directory.path(), options()).unwrap();
    push_many(directory.path(), "first", 1);
    thread::scope(|scope| {
        let path = directory.path();
        let writer = scope.spawn(move || push_many(path, "me", 60));
        let reader = scope.spawn(move || {
            let runtime = Runtime::new().unwrap();
            let repository = FsRepository::open(path, options()).unwrap();
            let mut last = 0;
            while last < 61 {
                let count = runtime
                    .block_on(repository.read_tag(&name("org/shared")))
                    .unwrap()
                    .len();
                assert!(count >= last);
                last = count;
            }
        });
        writer.join().unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn a_held_lock_is_reported_and_everything_else_works() {
    let directory = TempDir::new().unwrap();
    let options = FsOptions {
        lock_timeout: Duration::from_millis(50),
        ..FsOptions::default()
    };
    let repository = FsRepository::create(directory.path(), options).unwrap();
    let runtime = Runtime::new().unwrap();
    let push = |tag: &str, target: &[u8]| {
        runtime.block_on(repository.push_tag(&name(tag), &Digest::of(target), "me@here"))
    };
    push("org/t", b"1").unwrap();
    let lock = directory.path().join("tags/org/t.tag.lock");
    fs::write(&lock, "").unwrap();
    let errors = [
        push("org/t", b"2").unwrap_err(),
        runtime
            .block_on(repository.remove_tag_stream(&name("org/t")))
            .unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, StoreError::Locked { .. }), "{error}");
        assert!(
            error.to_string().contains(lock.to_str().unwrap()),
            "{error}"
        );
    }
    push("org/u", b"1").unwrap();
    assert_eq!(
        runtime
            .block_on(repository.read_tag(&name("org/t")))
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        runtime.block_on(repository.walk_tags("")).unwrap(),
        [name("org/t"), name("org/u")]
    );
    fs::remove_file(lock).unwrap();
    push("org/t", b"2").unwrap();
}

/// A push whose future is dropped is finished nevertheless, and its lock with it.
#[test]
fn an_abandoned_push_leaves_no_lock() {
    let directory = TempDir::new().unwrap();
    let repository = FsRepository::create(directory.path(), options()).unwrap();
    let runtime = Runtime::new().unwrap();
    let tag = name("org/shared");
    for number in 0..20_u8 {
        let target = Digest::of(&[number]);
        // Polled once, so that it has begun.
        let push = async {
            let push = repository.push_tag(&tag, &target, "me@here");
            timeout(Duration::ZERO, push).await.is_ok()
        };
        runtime.block_on(push);
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    let is_done = || match runtime.block_on(repository.read_tag(&tag)) {
        Ok(stream) => {
            stream.len() == 20 && !directory.path().join("tags/org/shared.tag.lock").exists()
        }
        Err(error) => !error.is_not_found(),
    };
    while !is_done() {
        assert!(
            Instant::now() < deadline,
            "a push was lost, or its lock was left"
        );
        thread::sleep(Duration::from_millis(5));
    }
    check_chain(directory.path(), 20);
}

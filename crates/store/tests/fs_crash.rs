//! A writer that is killed at any moment leaves a repository that is whole.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farseek_object::{Blob, Digest, Header, Object, TagName};
use farseek_store::{FsOptions, FsRepository, PutOptions, Repository};
use futures::{StreamExt, TryStreamExt, stream};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Where the ignored test that writes finds the repository.
const WRITE: &str = "FARSEEK_TEST_WRITE";

/// Killed and waited for when dropped.
struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn name() -> TagName {
    "org/crash".parse().unwrap()
}

/// One small payload, one larger than a batch, their blobs, and a tag on them.
async fn write_one(repository: &FsRepository, seed: &str, number: u32) {
    let options = PutOptions {
        mode: None,
        deferred: number % 2 == 1,
        digest: None,
    };
    let small = format!("{seed} {number}").into_bytes();
    let large = small.repeat((1 << 20) / small.len() + 1000);
    let mut last = Digest::NULL;
    for bytes in [small, large] {
        let chunks: Vec<_> = bytes
            .chunks(100_000)
            .map(|c| Ok(Bytes::copy_from_slice(c)))
            .collect();
        let body = stream::iter(chunks).boxed();
        let (payload, size) = repository.put_payload(body, options).await.unwrap();
        let blob = Object::Blob(Blob {
            header: Header::default(),
            payload,
            size,
        });
        last = repository.put_object(&blob, options).await.unwrap();
    }
    repository.publish().await.unwrap();
    repository
        .push_tag(&name(), &last, "me@here")
        .await
        .unwrap();
}

#[test]
#[ignore = "run by a_killed_writer_leaves_a_whole_repository, in a process of its own"]
fn write_until_killed() {
    let Some(path) = std::env::var_os(WRITE) else {
        return;
    };
    let repository = FsRepository::open(Path::new(&path), FsOptions::default()).unwrap();
    let runtime = Runtime::new().unwrap();
    let seed = std::process::id().to_string();
    for number in 0.. {
        runtime.block_on(write_one(&repository, &seed, number));
    }
}

/// Everything that has a name is what it is named, and what tags name is there.
async fn check(repository: &FsRepository) -> usize {
    let objects: Vec<_> = repository.list_objects(None).try_collect().await.unwrap();
    for digest in &objects {
        let object = repository.get_object(digest).await.unwrap();
        let Object::Blob(blob) = object else {
            panic!("only blobs were written")
        };
        let size = repository.payload_size(&blob.payload).await.unwrap();
        assert_eq!(
            size,
            Some(blob.size),
            "the payload is there before its object"
        );
    }
    let payloads: Vec<_> = repository.list_payloads().try_collect().await.unwrap();
    for digest in &payloads {
        let payload = repository.get_payload(digest, 0..u64::MAX).await.unwrap();
        let chunks: Vec<_> = payload.body.try_collect().await.unwrap();
        assert_eq!(Digest::of(&chunks.concat()), *digest);
    }
    let Ok(stream) = repository.read_tag(&name()).await else {
        return 0;
    };
    for tag in stream.newest_first() {
        assert!(objects.contains(&tag.target), "a tag names what is there");
    }
    stream.len()
}

#[test]
fn a_killed_writer_leaves_a_whole_repository() {
    let directory = TempDir::new().unwrap();
    let options = FsOptions {
        lock_timeout: Duration::from_secs(2),
        ..FsOptions::default()
    };
    let repository = FsRepository::create(directory.path(), options).unwrap();
    let runtime = Runtime::new().unwrap();
    let mut versions = 0;
    for round in 0..12 {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "write_until_killed", "--ignored"])
            .env(WRITE, directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let writer = Writer(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        // Killed at another moment each time, once it is at work.
        while !is_at_work(directory.path(), versions) {
            assert!(Instant::now() < deadline, "the writer does not write");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(1700 * round));
        drop(writer);
        let found = runtime.block_on(check(&repository));
        assert!(found >= versions, "no version is lost");
        // Whatever lies about, the next writer is not hindered, nor does it pick anything up.
        runtime.block_on(write_one(&repository, "after", round as u32));
        versions = runtime.block_on(check(&repository));
        assert_eq!(versions, found + 1);
    }
}

/// Whether the tag has more than `versions` versions.
fn is_at_work(root: &Path, versions: usize) -> bool {
    let record = fs::read(root.join("tags/org/crash.tag")).unwrap_or_default();
    farseek_object::TagStream::decode(&record).unwrap().len() > versions
}

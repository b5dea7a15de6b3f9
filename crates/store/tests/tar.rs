//! Archives: what a writer leaves for others, what a crash leaves, and archives that lie.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use farseek_object::{Blob, Digest, Header, Object, TagName};
use farseek_store::{
    FsOptions, FsRepository, PutOptions, Repository, RepositoryExt as _, StoreError, TagEntry,
    TarOptions, TarRepository,
};
use futures::StreamExt as _;
use futures::stream;
use tar::EntryType;
use tempfile::TempDir;

#[path = "sample/mod.rs"]
mod sample;

use sample::{payload, random_bytes};

fn open(path: &Path) -> TarRepository {
    TarRepository::open(path, TarOptions::default()).expect("a repository")
}

fn create(path: &Path) -> TarRepository {
    let options = TarOptions {
        create: true,
        lock_timeout: Duration::from_millis(100),
        ..TarOptions::default()
    };
    TarRepository::open(path, options).expect("a repository")
}

fn reason(path: &Path) -> String {
    let opened = TarRepository::open(path, TarOptions::default());
    opened.expect_err("it cannot be opened").to_string()
}

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.tar");
    (directory, path)
}

async fn put(repository: &dyn Repository, bytes: &[u8]) -> Digest {
    let body = stream::iter([Ok(Bytes::copy_from_slice(bytes))]).boxed();
    let put = repository.put_payload(body, PutOptions::default()).await;
    let (digest, size) = put.expect("stored");
    let blob = Object::Blob(Blob {
        header: Header::default(),
        payload: digest,
        size,
    });
    repository
        .put_object(&blob, PutOptions::default())
        .await
        .expect("stored");
    digest
}

fn name(text: &str) -> TagName {
    text.parse().expect("a name")
}

fn names_beside(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path.parent().expect("a parent")).expect("a listing");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_archive_is_made_by_the_first_write_only() {
    let (_directory, path) = place();
    assert!(reason(&path).contains("there is no archive there"));
    let repository = create(&path);
    assert!(
        !repository
            .has_object(&Digest::EMPTY)
            .await
            .expect("an answer")
    );
    assert_eq!(repository.walk_tags("").await.expect("no tags"), []);
    repository.publish().await.expect("nothing to do");
    assert_eq!(names_beside(&path), [""; 0]);

    let digest = put(&repository, b"hello").await;
    assert!(!path.exists(), "it waits to be published");
    assert_eq!(payload(&repository, &digest, 0..9).await, "hello");
    repository.publish().await.expect("published");
    assert_eq!(payload(&repository, &digest, 1..3).await, "el");
    assert_eq!(payload(&open(&path), &digest, 0..9).await, "hello");
    drop(repository);
    assert_eq!(names_beside(&path), ["x.tar"]);
}

#[tokio::test]
async fn what_was_not_published_is_packed_at_the_end_but_for_deferred_writes() {
    let (_directory, path) = place();
    let repository = create(&path);
    let kept = put(&repository, b"kept").await;
    let body = stream::iter([Ok(Bytes::from_static(b"given up"))]).boxed();
    let deferred = PutOptions {
        deferred: true,
        ..PutOptions::default()
    };
    let (given_up, _) = repository
        .put_payload(body, deferred)
        .await
        .expect("stored");
    drop(repository);
    let repository = open(&path);
    assert_eq!(payload(&repository, &kept, 0..9).await, "kept");
    assert_eq!(
        repository.payload_size(&given_up).await.expect("an answer"),
        None
    );
    assert_eq!(names_beside(&path), ["x.tar"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_nobody_awaits_any_more_does_no_harm() {
    let (_directory, path) = place();
    let bytes = random_bytes(20_000_000, 7);
    for milliseconds in 0..20 {
        let _ = fs::remove_file(&path);
        let repository = create(&path);
        let digest = put(&repository, &bytes).await;
        let done = Arc::new(AtomicBool::new(false));
        let (reader, looks_at) = (Arc::clone(&done), path.clone());
        // Whoever looks at any moment finds nothing or a whole archive.
        let reader = std::thread::spawn(move || {
            while !reader.load(Ordering::Relaxed) {
                if looks_at.exists() {
                    open(&looks_at);
                }
            }
        });
        let given_up = Duration::from_millis(milliseconds);
        let _ = tokio::time::timeout(given_up, repository.publish()).await;
        drop(repository);
        done.store(true, Ordering::Relaxed);
        reader.join().expect("it never finds half an archive");
        let end = payload(&open(&path), &digest, 19_999_990..u64::MAX).await;
        assert_eq!(end, bytes[19_999_990..], "{milliseconds}");
    }
}

#[tokio::test]
async fn a_tag_is_durable_with_all_it_names() {
    let (_directory, path) = place();
    let repository = create(&path);
    let digest = put(&repository, &random_bytes(3_000_000, 1)).await;
    repository
        .push_tag(&name("a/b"), &digest, "me@here")
        .await
        .expect("pushed");
    let other = open(&path);
    assert_eq!(
        other
            .resolve(&"a/b".parse().expect("a name"))
            .await
            .expect("there"),
        digest
    );
    let end = payload(&other, &digest, 2_999_990..u64::MAX).await;
    assert_eq!(end, random_bytes(3_000_000, 1)[2_999_990..]);
    assert!(other.get_object(&digest).await.is_ok());
}

#[tokio::test]
async fn what_is_removed_or_replaced_leaves_the_archive() {
    let (_directory, path) = place();
    let repository = create(&path);
    let large = put(&repository, &random_bytes(1_000_000, 1)).await;
    let small = put(&repository, b"small").await;
    repository
        .push_tag(&name("a"), &large, "me")
        .await
        .expect("pushed");
    repository
        .push_tag(&name("b"), &small, "me")
        .await
        .expect("pushed");
    let before = fs::metadata(&path).expect("a file").len();
    repository.remove_payload(&large).await.expect("removed");
    repository.remove_object(&large).await.expect("removed");
    assert!(
        !repository.has_object(&large).await.expect("an answer"),
        "at once"
    );
    assert_eq!(
        open(&path).payload_size(&large).await.expect("a size"),
        Some(1_000_000)
    );
    repository
        .remove_tag_stream(&name("a"))
        .await
        .expect("removed");
    let after = fs::metadata(&path).expect("a file").len();
    assert!(after + 1_000_000 <= before, "{before} to {after}");
    let other = open(&path);
    assert_eq!(other.payload_size(&large).await.expect("an answer"), None);
    assert_eq!(other.walk_tags("").await.expect("tags"), [name("b")]);
    assert_eq!(payload(&other, &small, 0..9).await, "small");
    // Put again, it is there again.
    assert_eq!(put(&repository, &random_bytes(1_000_000, 1)).await, large);
    drop(repository);
    assert_eq!(
        open(&path).payload_size(&large).await.expect("a size"),
        Some(1_000_000)
    );
}

#[tokio::test]
async fn a_second_writer_is_told_and_loses_nothing() {
    let (_directory, path) = place();
    let first = create(&path);
    let second = create(&path);
    let digest = put(&first, b"first").await;
    first
        .push_tag(&name("t"), &digest, "me")
        .await
        .expect("pushed");
    let error = second.push_tag(&name("t"), &Digest::EMPTY, "you").await;
    let error = error.expect_err("it is locked");
    assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
    let process = format!("the process {}", std::process::id());
    assert!(error.to_string().contains(&process), "{error}");
    drop(first);
    // It had been opened when there was no archive: it takes in what the first has written.
    let tag = second
        .push_tag(&name("t"), &Digest::EMPTY, "you")
        .await
        .expect("pushed");
    assert_ne!(tag.parent, Digest::NULL);
    drop(second);
    let repository = open(&path);
    assert_eq!(
        repository
            .read_tag(&name("t"))
            .await
            .expect("a history")
            .len(),
        2
    );
    assert_eq!(payload(&repository, &digest, 0..9).await, "first");
}

#[tokio::test]
async fn what_a_crash_left_is_removed_and_never_packed() {
    let (_directory, path) = place();
    let work = path.with_file_name(".x.tar.work");
    let left = FsRepository::create(&work.join("repository"), FsOptions::default());
    let stale = put(&left.expect("a repository"), b"stale").await;
    fs::write(work.join("archive"), b"half an archive").expect("written");
    let repository = create(&path);
    let digest = put(&repository, b"new").await;
    drop(repository);
    let repository = open(&path);
    assert!(repository.has_object(&digest).await.expect("an answer"));
    assert!(!repository.has_object(&stale).await.expect("an answer"));
    assert_eq!(names_beside(&path), ["x.tar"]);
}

#[tokio::test]
async fn a_write_that_fails_leaves_the_archive_as_it_was() {
    let (_directory, path) = place();
    let repository = create(&path);
    let digest = put(&repository, b"hello").await;
    repository
        .push_tag(&name("t"), &digest, "me")
        .await
        .expect("pushed");
    let before = fs::read(&path).expect("bytes");
    // The place of the new archive is taken by something that no file can replace.
    fs::create_dir(path.with_file_name(".x.tar.work").join("archive")).expect("made");
    let error = repository.push_tag(&name("t"), &Digest::EMPTY, "me").await;
    assert!(matches!(error, Err(StoreError::Io { .. })), "{error:?}");
    assert_eq!(fs::read(&path).expect("bytes"), before);
    assert_eq!(
        repository
            .resolve(&"t".parse().expect("a name"))
            .await
            .expect("there"),
        digest
    );
}

#[tokio::test]
async fn namespaces_are_worlds_of_their_own() {
    let (_directory, path) = place();
    let inside = TarOptions {
        create: true,
        tag_namespace: Some("ns".parse().expect("a namespace")),
        ..TarOptions::default()
    };
    let repository = TarRepository::open(&path, inside.clone()).expect("a repository");
    repository
        .push_tag(&name("a/b"), &Digest::EMPTY, "me")
        .await
        .expect("pushed");
    drop(repository);
    let outside = open(&path);
    assert_eq!(outside.walk_tags("").await.expect("tags"), []);
    let namespace = TagEntry::Namespace("ns".parse().expect("a namespace"));
    assert_eq!(outside.list_tags("").await.expect("entries"), [namespace]);
    let inside = TarRepository::open(&path, inside).expect("a repository");
    assert_eq!(inside.walk_tags("").await.expect("tags"), [name("a/b")]);
}

#[tokio::test]
async fn other_programs_unpack_what_we_make() {
    let (directory, path) = place();
    let repository = create(&path);
    let long = format!("{}/{}", "o".repeat(90), "n".repeat(90));
    let digest = put(&repository, b"hello").await;
    repository
        .push_tag(&name(&long), &digest, "me")
        .await
        .expect("pushed");
    repository
        .push_tag(&name("a/b"), &digest, "me")
        .await
        .expect("pushed");
    let out = directory.path().join("out");
    fs::create_dir(&out).expect("made");
    let mut archive = tar::Archive::new(fs::File::open(&path).expect("a file"));
    archive.unpack(&out).expect("unpacked");
    let unpacked = FsRepository::open(&out, FsOptions::default()).expect("a repository");
    let tags = unpacked.walk_tags("").await.expect("tags");
    assert_eq!(tags, [name("a/b"), name(&long)]);
    assert_eq!(payload(&unpacked, &digest, 0..9).await, "hello");
    assert_eq!(
        fs::read_to_string(out.join("VERSION")).expect("a version"),
        "0.44.0"
    );
}

/// A repository on disk and the archive that GNU tar makes of it with `options`.
async fn packed_by_tar(options: &[&str]) -> (TempDir, PathBuf, Digest) {
    let (directory, path) = place();
    let root = directory.path().join("repository");
    let original = FsRepository::create(&root, FsOptions::default()).expect("a repository");
    let digest = put(&original, &random_bytes(100_000, 3)).await;
    let long = format!("{}/{}", "o".repeat(120), "n".repeat(120));
    original
        .push_tag(&name(&long), &digest, "me")
        .await
        .expect("pushed");
    // As a render has it: another name of the payload, which tar may meet first.
    let text = digest.to_string();
    let file = root.join("payloads").join(&text[..2]).join(&text[2..]);
    fs::create_dir_all(root.join("a-render")).expect("made");
    fs::hard_link(&file, root.join("a-render/file")).expect("linked");
    let status = Command::new("tar")
        .args(options)
        .args(["--sort=name", "-cf"])
        .arg(&path)
        .arg("-C")
        .arg(&root)
        .arg(".")
        .status();
    assert!(status.expect("tar is installed").success());
    (directory, path, digest)
}

#[tokio::test]
async fn archives_of_gnu_tar_in_every_format() {
    for format in ["--format=gnu", "--format=pax"] {
        let (_directory, path, digest) = packed_by_tar(&[format]).await;
        let repository = open(&path);
        let bytes = payload(&repository, &digest, 0..u64::MAX).await;
        assert_eq!(bytes, random_bytes(100_000, 3), "{format}");
        assert_eq!(
            repository.walk_tags("").await.expect("tags").len(),
            1,
            "{format}"
        );
        // Written again, the link to the render has become a file by itself.
        repository
            .push_tag(&name("new"), &digest, "me")
            .await
            .expect("pushed");
        drop(repository);
        let repository = open(&path);
        let bytes = payload(&repository, &digest, 0..u64::MAX).await;
        assert_eq!(bytes, random_bytes(100_000, 3), "{format}");
        assert_eq!(
            repository.walk_tags("").await.expect("tags").len(),
            2,
            "{format}"
        );
        let mut archive = tar::Archive::new(fs::File::open(&path).expect("a file"));
        let out = tempfile::tempdir().expect("a directory");
        archive.unpack(out.path()).expect("unpacked");
        assert_eq!(
            fs::read(out.path().join("a-render/file")).expect("bytes"),
            bytes
        );
    }
}

#[test]
fn a_sparse_file_is_refused_in_words() {
    for format in ["--format=gnu", "--format=pax"] {
        let (directory, path) = place();
        let file = fs::File::create(directory.path().join("hole")).expect("a file");
        file.set_len(1 << 20).expect("a hole");
        let status = Command::new("tar")
            .args(["-S", format, "-cf"])
            .arg(&path)
            .arg("-C")
            .arg(directory.path())
            .arg("hole")
            .status();
        assert!(status.expect("tar is installed").success());
        assert!(reason(&path).contains("--sparse"), "{}", reason(&path));
    }
}

/// An archive of entries with exactly these names.
fn archive(path: &Path, entries: &[(&[u8], EntryType, &[u8])]) {
    let mut builder = tar::Builder::new(fs::File::create(path).expect("a file"));
    for (name, kind, data) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(*kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        if kind.is_symlink() || kind.is_hard_link() {
            header.as_old_mut().linkname[..8].copy_from_slice(b"VERSION2");
        }
        header.set_cksum();
        builder.append(&header, *data).expect("appended");
    }
    builder.into_inner().expect("finished");
}

#[test]
fn hostile_archives_are_refused_in_words() {
    let (_directory, path) = place();
    let object = format!("objects/AA/{}====", "A".repeat(50));
    let object = object.as_bytes();
    let file = EntryType::Regular;
    for (name, kind, data, expected) in [
        (&b"../x"[..], file, &b""[..], "leads out of the archive"),
        (b"objects/../../x", file, b"", "leads out of the archive"),
        (b"/objects/x", file, b"", "leads out of the archive"),
        (object, EntryType::Symlink, b"", "not a regular file"),
        (object, EntryType::Fifo, b"", "not a regular file"),
        (object, EntryType::Directory, b"", "not a regular file"),
        (
            object,
            EntryType::Link,
            b"",
            "a link to a file that is not there",
        ),
        (object, EntryType::Link, b"data", "says that it has data"),
        (b"VERSION", file, b"1.0.0", "too new"),
        (b"src/main.c", file, b"", "it is not an SPFS repository"),
        (b"x", EntryType::GNUSparse, b"", "--sparse"),
        (b"x", EntryType::XHeader, b"nonsense", "damaged"),
        (
            b"x",
            EntryType::XHeader,
            b"13 size=1e99\n",
            "a size is not a number",
        ),
        (b"x", EntryType::GNULongName, b"name", "belongs to nothing"),
        (b"x", EntryType::XGlobalHeader, b"10 path=a\n", "one name"),
    ] {
        archive(&path, &[(name, kind, data)]);
        let said = reason(&path);
        assert!(
            said.contains(expected),
            "{}: {said}",
            String::from_utf8_lossy(name)
        );
    }
}

#[tokio::test]
async fn of_two_entries_of_one_name_the_last_counts() {
    let (_directory, path) = place();
    let digest = Digest::of(b"second");
    let text = digest.to_string();
    let name = format!("./payloads/{}/{}", &text[..2], &text[2..]);
    let file = EntryType::Regular;
    archive(
        &path,
        &[
            (name.as_bytes(), file, b"first"),
            (name.as_bytes(), file, b"second"),
        ],
    );
    assert_eq!(payload(&open(&path), &digest, 0..9).await, "second");
}

#[tokio::test]
async fn damage_is_found_wherever_it_is() {
    let (_directory, path) = place();
    let repository = create(&path);
    let digest = put(&repository, b"hello").await;
    repository
        .push_tag(&name("t"), &digest, "me")
        .await
        .expect("pushed");
    drop(repository);
    let good = fs::read(&path).expect("bytes");
    // Cut short anywhere but within the end mark's second half, it does not open.
    for length in (0..good.len() - 1024).step_by(256) {
        fs::write(&path, &good[..length]).expect("written");
        assert!(
            reason(&path).contains("cut short"),
            "{length}: {}",
            reason(&path)
        );
    }
    // A flip in a header is found at opening; in an object or a tag, when that is read.
    for at in (0..good.len() - 1024).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        fs::write(&path, &bad).expect("written");
        let Ok(repository) = TarRepository::open(&path, TarOptions::default()) else {
            continue;
        };
        match repository.get_object(&digest).await {
            Ok(object) => assert_eq!(object.digest(), digest, "{at}"),
            Err(StoreError::Undecodable { .. }) => {}
            Err(error) => panic!("{at}: {error:?}"),
        }
    }
    fs::write(&path, b"").expect("written");
    assert!(reason(&path).contains("cut short"));
    let mut compressed = fs::File::create(&path).expect("a file");
    compressed
        .write_all(&[0x1f, 0x8b].repeat(600))
        .expect("written");
    assert!(reason(&path).contains("compressed"), "{}", reason(&path));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_write_through_one_and_nothing_is_lost() {
    let (_directory, path) = place();
    let repository = Arc::new(create(&path));
    let writers: Vec<_> = (0..8_u8)
        .map(|writer| {
            let repository = Arc::clone(&repository);
            tokio::spawn(async move {
                for n in 0..5_u8 {
                    let digest = put(&*repository, &[writer, n]).await;
                    let pushed = repository.push_tag(&name("t"), &digest, "me").await;
                    pushed.expect("pushed");
                    assert_eq!(payload(&*repository, &digest, 0..9).await, &[writer, n][..]);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic");
    }
    drop(repository);
    let repository = open(&path);
    let history = repository.read_tag(&name("t")).await.expect("a history");
    assert_eq!(history.len(), 40);
    let versions: Vec<_> = history.newest_first().collect();
    for pair in versions.windows(2) {
        assert_eq!(pair[0].parent, pair[1].digest());
    }
    for tag in versions {
        assert_eq!(
            repository.payload_size(&tag.target).await.expect("a size"),
            Some(2)
        );
    }
}

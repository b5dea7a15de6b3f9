//! What the repositories on disk and in memory must do alike.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::ops::Range;

use bytes::Bytes;
use farseek_object::{Blob, Digest, Header, Object, Platform, Tag, TagName};
use farseek_store::{
    FsOptions, FsRepository, MemoryRepository, PutOptions, Repository, StoreError, TagEntry,
};
use futures::{StreamExt, TryStreamExt, stream};
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

/// Larger than two of the batches that payloads are read and written in.
const LARGE: usize = (2 << 20) + 12_345;

/// One empty repository of each kind.
fn each() -> (TempDir, Vec<Box<dyn Repository>>) {
    let directory = TempDir::new().unwrap();
    let fs = FsRepository::create(directory.path(), FsOptions::default()).unwrap();
    (
        directory,
        vec![Box::new(fs), Box::new(MemoryRepository::new())],
    )
}

fn blob(bytes: &[u8]) -> Object {
    let payload = Digest::of(bytes);
    Object::Blob(Blob {
        header: Header::default(),
        payload,
        size: bytes.len() as u64,
    })
}

fn platform(layers: &[&str]) -> Object {
    let layers = layers
        .iter()
        .map(|name| Digest::of(name.as_bytes()))
        .collect();
    Object::Platform(Platform {
        header: Header::default(),
        layers,
    })
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8)
        .collect()
}

async fn put(
    repository: &dyn Repository,
    bytes: &[u8],
    chunk: usize,
    options: PutOptions,
) -> Digest {
    let chunks: Vec<_> = bytes
        .chunks(chunk)
        .map(|c| Ok(Bytes::copy_from_slice(c)))
        .collect();
    let (digest, size) = repository
        .put_payload(stream::iter(chunks).boxed(), options)
        .await
        .unwrap();
    assert_eq!((digest, size), (Digest::of(bytes), bytes.len() as u64));
    digest
}

async fn get(repository: &dyn Repository, digest: &Digest, range: Range<u64>) -> Vec<u8> {
    let payload = repository.get_payload(digest, range.clone()).await.unwrap();
    assert_eq!(payload.range.start, range.start);
    let told = payload.range.end - payload.range.start;
    let chunks: Vec<Bytes> = payload.body.try_collect().await.unwrap();
    assert!(chunks.iter().all(|chunk| !chunk.is_empty()));
    let bytes = chunks.concat();
    assert_eq!(bytes.len() as u64, told);
    bytes
}

#[tokio::test]
async fn objects() {
    let (_directory, repositories) = each();
    for r in &repositories {
        let (one, two) = (platform(&["a", "b"]), platform(&["c"]));
        let digest = one.digest();
        assert!(!r.has_object(&digest).await.unwrap());
        let missing = r.get_object(&digest).await.unwrap_err();
        assert!(
            matches!(missing, StoreError::NotFound { what: "object", .. }),
            "{missing}"
        );
        assert_eq!(r.put_object(&one, NOW).await.unwrap(), digest);
        assert_eq!(r.put_object(&one, NOW).await.unwrap(), digest);
        r.put_object(&two, NOW).await.unwrap();
        assert!(r.has_object(&digest).await.unwrap());
        assert_eq!(r.get_object(&digest).await.unwrap(), one);

        let mut all: Vec<_> = r.list_objects(None).try_collect().await.unwrap();
        all.sort_unstable();
        let mut wanted = vec![digest, two.digest()];
        wanted.sort_unstable();
        assert_eq!(all, wanted);

        r.remove_object(&digest).await.unwrap();
        r.remove_object(&digest).await.unwrap();
        assert!(!r.has_object(&digest).await.unwrap());
        assert!(r.has_object(&two.digest()).await.unwrap());
    }
}

#[tokio::test]
async fn prefixes_of_any_length() {
    let (_directory, repositories) = each();
    for r in &repositories {
        let mut digests = Vec::new();
        for number in 0..60 {
            digests.push(
                r.put_object(&platform(&[&number.to_string()]), NOW)
                    .await
                    .unwrap(),
            );
        }
        for digest in &digests {
            let text = digest.to_string();
            for length in (2..=52).filter(|n| !matches!(n % 8, 1 | 3 | 6)) {
                let prefix = text[..length].parse().unwrap();
                let mut found: Vec<_> = r.list_objects(Some(&prefix)).try_collect().await.unwrap();
                found.sort_unstable();
                let mut wanted = digests.clone();
                wanted.retain(|d| d.to_string().starts_with(&text[..length]));
                wanted.sort_unstable();
                assert_eq!(found, wanted, "{prefix}");
                assert!(!found.is_empty());
            }
        }
    }
}

#[tokio::test]
async fn payloads_and_their_ranges() {
    let (_directory, repositories) = each();
    let max = u64::MAX;
    for r in &repositories {
        for length in [0, 1, 5, 4096, 1 << 20, (1 << 20) + 1, LARGE] {
            let bytes = pattern(length);
            assert_eq!(r.payload_size(&Digest::of(&bytes)).await.unwrap(), None);
            let digest = put(r.as_ref(), &bytes, 100_000, NOW).await;
            put(r.as_ref(), &bytes, 3_000_000, NOW).await;
            let size = length as u64;
            assert_eq!(r.payload_size(&digest).await.unwrap(), Some(size));
            let ranges = [
                0..size,
                0..max,
                0..size + 1,
                0..1,
                size / 2..size / 2 + 1,
                size / 3..size,
                size..max,
                size + 1..max,
                max..max,
                0..0,
            ];
            for range in ranges {
                let start = range.start.min(size) as usize;
                let end = range.end.min(size).max(range.start.min(size)) as usize;
                let found = get(r.as_ref(), &digest, range.clone()).await;
                assert!(found == bytes[start..end], "{range:?} of {length}");
            }
        }
        let listed: Vec<_> = r.list_payloads().try_collect().await.unwrap();
        assert_eq!(listed.len(), 7);
        let digest = Digest::of(&pattern(5));
        r.remove_payload(&digest).await.unwrap();
        r.remove_payload(&digest).await.unwrap();
        assert_eq!(r.payload_size(&digest).await.unwrap(), None);
        let missing = r.get_payload(&digest, 0..1).await.unwrap_err();
        assert!(
            matches!(
                missing,
                StoreError::NotFound {
                    what: "payload",
                    ..
                }
            ),
            "{missing}"
        );
    }
}

#[tokio::test]
async fn a_body_that_fails_stores_nothing() {
    let (directory, repositories) = each();
    for r in &repositories {
        for length in [10, LARGE] {
            let broken = StoreError::Unavailable {
                location: "there".into(),
                reason: "gone".into(),
                source: None,
            };
            let chunks = vec![Ok(pattern(length).into()), Err(broken)];
            let failed = r
                .put_payload(stream::iter(chunks).boxed(), NOW)
                .await
                .unwrap_err();
            assert!(failed.is_transient(), "{failed}");
        }
        assert_eq!(r.list_payloads().count().await, 0);
    }
    assert!(
        std::fs::read_dir(directory.path().join("payloads/work"))
            .unwrap()
            .next()
            .is_none()
    );
}

#[tokio::test]
async fn deferred_writes_wait_for_publish() {
    let (_directory, repositories) = each();
    for r in &repositories {
        let bytes = pattern(100);
        let digest = put(r.as_ref(), &bytes, 100, LATER).await;
        put(r.as_ref(), &bytes, 7, LATER).await;
        let large = put(r.as_ref(), &pattern(LARGE), LARGE, LATER).await;
        r.put_object(&blob(&bytes), LATER).await.unwrap();
        r.put_object(&blob(&bytes), LATER).await.unwrap();
        assert!(!r.has_object(&digest).await.unwrap());
        assert_eq!(r.payload_size(&digest).await.unwrap(), None);
        assert_eq!(r.list_objects(None).count().await, 0);

        r.publish().await.unwrap();
        assert_eq!(r.get_object(&digest).await.unwrap(), blob(&bytes));
        assert_eq!(get(r.as_ref(), &digest, 0..100).await, bytes);
        assert!(get(r.as_ref(), &large, 0..u64::MAX).await == pattern(LARGE));
        r.publish().await.unwrap();

        // What is there is there: deferring it again changes nothing.
        put(r.as_ref(), &bytes, 100, LATER).await;
        r.put_object(&blob(&bytes), LATER).await.unwrap();
        assert!(r.has_object(&digest).await.unwrap());
        assert_eq!(r.payload_size(&digest).await.unwrap(), Some(100));
    }
}

fn name(text: &str) -> TagName {
    text.parse().unwrap()
}

#[tokio::test]
async fn pushed_tags_form_a_chain() {
    let (_directory, repositories) = each();
    for r in &repositories {
        let tag = name("org/sub/tag");
        assert!(matches!(
            r.read_tag(&tag).await.unwrap_err(),
            StoreError::UnknownTag { .. }
        ));
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let first = r.push_tag(&tag, &one, "me@here").await.unwrap();
        let same = r.push_tag(&tag, &one, "you@there").await.unwrap();
        assert_eq!(first, same);
        let second = r.push_tag(&tag, &two, "me@here").await.unwrap();
        assert_eq!(second.parent, first.digest());
        assert_eq!(first.parent, Digest::NULL);
        let stream = r.read_tag(&tag).await.unwrap();
        assert_eq!(
            stream.newest_first().cloned().collect::<Vec<_>>(),
            [second, first]
        );
        let refused = r.push_tag(&tag, &one, "a\0b").await.unwrap_err();
        assert!(matches!(refused, StoreError::Invalid { .. }), "{refused}");
        assert_eq!(r.read_tag(&tag).await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn inserted_tags_go_to_their_place() {
    let (_directory, repositories) = each();
    for r in &repositories {
        let at = |target: &[u8], time: &str| Tag {
            name: name("t"),
            target: Digest::of(target),
            parent: Digest::NULL,
            user: "me@here".into(),
            time: time.parse().unwrap(),
        };
        let old = at(b"1", "2020-01-01T00:00:00Z");
        let middle = at(b"2", "2021-01-01T00:00:00.000000001Z");
        let new = at(b"3", "2022-01-01T00:00:00Z");
        for tag in [&new, &old, &middle, &old] {
            r.insert_tag(tag).await.unwrap();
        }
        let stream = r.read_tag(&name("t")).await.unwrap();
        assert_eq!(
            stream.newest_first().collect::<Vec<_>>(),
            [&new, &middle, &old]
        );

        r.remove_tag(&middle).await.unwrap();
        assert!(r.remove_tag(&middle).await.unwrap_err().is_not_found());
        let stream = r.read_tag(&name("t")).await.unwrap();
        assert_eq!(stream.newest_first().collect::<Vec<_>>(), [&new, &old]);
        r.remove_tag(&old).await.unwrap();
        r.remove_tag(&new).await.unwrap();
        assert!(r.read_tag(&name("t")).await.unwrap_err().is_not_found());
        assert_eq!(r.list_tags("").await.unwrap(), []);
    }
}

#[tokio::test]
async fn folders_list_what_is_directly_in_them() {
    let (_directory, repositories) = each();
    for r in &repositories {
        assert_eq!(r.list_tags("").await.unwrap(), []);
        for tag in ["z", "a/b/c", "a/b/d", "a/e", "ab/f", "a", "v1.tag", "v1"] {
            r.push_tag(&name(tag), &Digest::EMPTY, "me@here")
                .await
                .unwrap();
        }
        let folder = |name: &str| TagEntry::Folder(name.into());
        let tag = |name: &str| TagEntry::Tag(name.into());
        let top = r.list_tags("").await.unwrap();
        assert_eq!(
            top,
            [
                folder("a"),
                folder("ab"),
                tag("a"),
                tag("v1"),
                tag("v1.tag"),
                tag("z")
            ]
        );
        assert_eq!(r.list_tags("a").await.unwrap(), [folder("b"), tag("e")]);
        assert_eq!(r.list_tags("/a/b/").await.unwrap(), [tag("c"), tag("d")]);
        assert_eq!(r.list_tags("a/b/c").await.unwrap(), []);
        assert_eq!(r.list_tags("no/such").await.unwrap(), []);
        for bad in ["..", "a/../..", "a//b", "a/./b", "x#ns"] {
            let refused = r.list_tags(bad).await.unwrap_err();
            assert!(
                matches!(refused, StoreError::Invalid { .. }),
                "{bad}: {refused}"
            );
        }

        r.remove_tag_stream(&name("a/b/c")).await.unwrap();
        assert_eq!(r.list_tags("a/b").await.unwrap(), [tag("d")]);
        r.remove_tag_stream(&name("a/b/d")).await.unwrap();
        assert_eq!(r.list_tags("a").await.unwrap(), [tag("e")]);
        assert!(
            r.remove_tag_stream(&name("a/b/d"))
                .await
                .unwrap_err()
                .is_not_found()
        );
        r.remove_tag_stream(&name("a/e")).await.unwrap();
        let top = r.list_tags("").await.unwrap();
        assert_eq!(
            top,
            [folder("ab"), tag("a"), tag("v1"), tag("v1.tag"), tag("z")]
        );
    }
}

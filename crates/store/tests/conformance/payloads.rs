//! Payloads: the bytes put are the bytes got, from any position.

use std::collections::HashSet;
use std::io::Read;

use bytes::Bytes;
use farseek_object::Digest;
use farseek_store::{Body, PutOptions, Repository, StoreError};
use futures::{StreamExt, TryStreamExt, stream};

use super::Subject;
use super::sample::{payload, random_bytes};

pub(crate) async fn check(fresh: impl Fn() -> Subject) {
    comes_back(&*fresh().repository).await;
    absent_is_absent(&*fresh().repository).await;
    a_body_that_fails_leaves_nothing(&*fresh().repository).await;
    deferred_is_there_once_published(&*fresh().repository).await;
    is_listed_and_removed(&*fresh().repository).await;
}

/// What a repository does that makes every write visible at once.
pub(crate) async fn check_all_but_deferred(fresh: impl Fn() -> Subject) {
    comes_back(&*fresh().repository).await;
    absent_is_absent(&*fresh().repository).await;
    a_body_that_fails_leaves_nothing(&*fresh().repository).await;
    is_listed_and_removed(&*fresh().repository).await;
}

/// What is put comes back, where sizes cannot be told.
pub(crate) async fn check_but_sizes(repository: &dyn Repository) {
    for length in [0, 1, 65_537, 2_500_003] {
        let bytes = random_bytes(length, length as u64);
        let digest = put(repository, &bytes, PutOptions::default()).await;
        compare(repository, &digest, &bytes).await;
        let size = repository.payload_size(&digest).await;
        assert!(
            matches!(size, Err(StoreError::Unsupported { .. })),
            "{size:?}"
        );
    }
    absent_is_absent(repository).await;
}

pub(crate) fn body(bytes: &[u8], piece: usize) -> Body {
    let pieces: Vec<_> = bytes
        .chunks(piece)
        .map(|p| Ok(Bytes::copy_from_slice(p)))
        .collect();
    stream::iter(pieces).boxed()
}

async fn put(repository: &dyn Repository, bytes: &[u8], options: PutOptions) -> Digest {
    let put = repository.put_payload(body(bytes, 70_001), options).await;
    let (digest, size) = put.expect("stored");
    assert_eq!((digest, size), (Digest::of(bytes), bytes.len() as u64));
    digest
}

/// Ranges worth asking of a payload of `size` bytes, some beyond its end.
pub(crate) fn ranges(size: u64) -> Vec<std::ops::Range<u64>> {
    let edges = [
        0,
        1,
        4096,
        65_536,
        size / 2,
        size.saturating_sub(1),
        size,
        size + 1,
        1 << 40,
    ];
    let mut ranges = vec![0..u64::MAX, 7..7];
    for start in edges {
        for length in [1, 2, 4096, 300_000] {
            ranges.push(start..start + length);
        }
    }
    ranges
}

/// Asks for every range worth asking and compares with `bytes`.
pub(crate) async fn compare(repository: &dyn Repository, digest: &Digest, bytes: &[u8]) {
    let size = bytes.len() as u64;
    for range in ranges(size) {
        let (start, end) = (range.start.min(size) as usize, range.end.min(size) as usize);
        let answer = repository
            .get_payload(digest, range.clone())
            .await
            .expect("a payload");
        assert!(
            answer.size.is_none_or(|told| told == size),
            "{range:?}: {answer:?}"
        );
        assert!(answer.range.start <= range.start, "{range:?}: {answer:?}");
        assert!(!answer.source.is_empty());
        let found = payload(repository, digest, range.clone()).await;
        assert_eq!(found, bytes[start..end], "{range:?} of {size}");
    }
}

async fn comes_back(repository: &dyn Repository) {
    for length in [0, 1, 4095, 65_537, 1 << 20, 2_500_003] {
        let bytes = random_bytes(length, length as u64);
        for _ in 0..2 {
            let digest = put(repository, &bytes, PutOptions::default()).await;
            let size = repository.payload_size(&digest).await.expect("a size");
            assert_eq!(size, Some(length as u64));
            compare(repository, &digest, &bytes).await;
            if let Some(mut file) = repository.payload_file(&digest).await.expect("an answer") {
                let mut contents = Vec::new();
                file.read_to_end(&mut contents).expect("read");
                assert_eq!(contents, bytes);
            }
        }
        let mode = PutOptions {
            mode: Some(0o100_755),
            deferred: false,
            digest: None,
        };
        let digest = put(repository, &bytes, mode).await;
        assert!(
            !repository.has_object(&digest).await.expect("an answer"),
            "no blob is made"
        );
    }
}

async fn absent_is_absent(repository: &dyn Repository) {
    let digest = Digest::of(b"nowhere");
    assert_eq!(
        repository.payload_size(&digest).await.expect("an answer"),
        None
    );
    let file = repository.payload_file(&digest).await.expect("an answer");
    assert!(file.is_none(), "{file:?}");
    let error = repository
        .get_payload(&digest, 0..1)
        .await
        .expect_err("absent");
    assert!(
        matches!(
            error,
            StoreError::NotFound {
                what: "payload",
                ..
            }
        ),
        "{error:?}"
    );
    repository
        .remove_payload(&digest)
        .await
        .expect("nothing to remove is no error");
}

async fn a_body_that_fails_leaves_nothing(repository: &dyn Repository) {
    for length in [10, 3_000_000] {
        let bytes = random_bytes(length, 5);
        let failure = StoreError::Corrupt {
            location: "here".to_owned(),
            reason: "a test".to_owned(),
        };
        let failing = body(&bytes, 4096)
            .chain(stream::iter([Err(failure)]))
            .boxed();
        let error = repository.put_payload(failing, PutOptions::default()).await;
        assert!(error.expect_err("it failed").to_string().contains("a test"));
        repository.publish().await.expect("published");
        assert_eq!(
            repository
                .payload_size(&Digest::of(&bytes))
                .await
                .expect("an answer"),
            None
        );
    }
    assert_eq!(repository.list_payloads().count().await, 0);
}

async fn deferred_is_there_once_published(repository: &dyn Repository) {
    let deferred = PutOptions {
        mode: Some(0o100_644),
        deferred: true,
        digest: None,
    };
    let all: Vec<Vec<u8>> = (0..100).map(|n| random_bytes(n * 37, n as u64)).collect();
    for bytes in all.iter().chain(&all) {
        put(repository, bytes, deferred).await;
    }
    repository.publish().await.expect("published");
    for bytes in &all {
        assert_eq!(
            payload(repository, &Digest::of(bytes), 0..u64::MAX).await,
            bytes
        );
    }
    assert_eq!(repository.list_payloads().count().await, all.len());
}

async fn is_listed_and_removed(repository: &dyn Repository) {
    let mut all = HashSet::new();
    for n in 0..20 {
        all.insert(put(repository, &random_bytes(100, n), PutOptions::default()).await);
    }
    let listed: Vec<Digest> = repository
        .list_payloads()
        .try_collect()
        .await
        .expect("a listing");
    assert_eq!(listed.len(), all.len());
    assert_eq!(listed.into_iter().collect::<HashSet<_>>(), all);
    for digest in &all {
        repository.remove_payload(digest).await.expect("removed");
        assert_eq!(
            repository.payload_size(digest).await.expect("an answer"),
            None
        );
    }
    assert_eq!(repository.list_payloads().count().await, 0);
}

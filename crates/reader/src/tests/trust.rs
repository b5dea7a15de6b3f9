//! Sources that lie, in each mode of trust.

use std::fs;
use std::sync::Arc;

use futures::future::join_all;
use tempfile::TempDir;

use super::disk::{on_disk, read_all};
use super::source::{Act, BLOCK, Source, digest, options, pattern, reader};
use crate::block::PayloadId;
use crate::error::ReadError;
use crate::options::ReaderOptions;
use crate::trust::Verify;

const SIZE: u64 = 64 * BLOCK + 77;
const SMALL: u64 = 3000;

pub(super) fn id(size: u64) -> PayloadId {
    PayloadId {
        digest: digest(size),
        size,
    }
}

/// Lies about one byte in the middle of the payload.
fn liar() -> Arc<Source> {
    let source = Source::new(|_, _| Act::Flip(30 * BLOCK));
    source.add(SIZE);
    Arc::new(source)
}

fn with(verify: Verify, options: ReaderOptions) -> ReaderOptions {
    ReaderOptions { verify, ..options }
}

#[tokio::test]
async fn auto_condemns_a_false_payload_once_all_of_it_is_here() {
    let dir = TempDir::new().unwrap();
    let source = liar();
    let reader = reader(&source, with(Verify::Auto, on_disk(dir.path())));
    let blob = reader.open(digest(SIZE), SIZE);
    let begin = blob.read_at(0..30 * BLOCK).await.unwrap();
    assert_eq!(begin, pattern(0..30 * BLOCK), "provisional until then");
    // The hash may be done before the answer to the last read is: then that is refused, too.
    if let Err(error) = blob.read_at(30 * BLOCK..SIZE).await {
        assert!(matches!(error, ReadError::Corrupt { .. }), "{error}");
    }
    reader.settle().await;
    for read in [
        blob.read_at(0..1).await,
        reader.open(digest(SIZE), SIZE).read_at(0..1).await,
    ] {
        let Err(ReadError::Corrupt { location, .. }) = read else {
            panic!("{read:?}");
        };
        assert_eq!(location, "fake:payload");
    }
    assert_eq!(blob.try_read(0..1), None);
    let stats = reader.stats();
    assert_eq!((stats.condemned, stats.promotions), (1, 0));
    let quarantined = fs::read_dir(dir.path().join("quarantine")).unwrap();
    assert_eq!(quarantined.count(), 1);
    let asked = source.ranges().len();
    // Another process starts afresh: it may have a better source.
    let second = super::source::reader(&source, with(Verify::Auto, on_disk(dir.path())));
    second.open(digest(SIZE), SIZE).read_at(0..1).await.unwrap();
    assert_eq!(source.ranges().len(), asked + 1);
    second.settle().await;
}

#[tokio::test]
async fn strict_serves_nothing_of_a_false_payload() {
    let dir = TempDir::new().unwrap();
    for options in [options(), on_disk(dir.path())] {
        let source = liar();
        let reader = reader(&source, with(Verify::Strict, options));
        let blob = reader.open(digest(SIZE), SIZE);
        let reads = join_all((0..5).map(|i| blob.read_at(i * BLOCK..i * BLOCK + 1))).await;
        for read in reads {
            assert!(matches!(read, Err(ReadError::Corrupt { .. })), "{read:?}");
        }
        assert_eq!(blob.try_read(0..1), None);
        assert_eq!(reader.stats().bytes_cached, 0);
        assert_eq!(reader.stats().condemned, 1);
        assert!(reader.stats().bytes_fetched <= SIZE);
        reader.settle().await;
    }
}

#[tokio::test]
async fn strict_hashes_all_of_it_before_the_first_byte_and_once() {
    let dir = TempDir::new().unwrap();
    let source = Source::good();
    source.add(SIZE);
    let source = Arc::new(source);
    let reader = reader(&source, with(Verify::Strict, on_disk(dir.path())));
    let blob = reader.open(digest(SIZE), SIZE);
    assert!(!blob.where_served().verified);
    let reads = join_all((0..8).map(|i| blob.read_at(i * BLOCK..i * BLOCK + 1))).await;
    for (i, read) in (0..8).zip(reads) {
        assert_eq!(read.unwrap(), pattern(i * BLOCK..i * BLOCK + 1));
    }
    assert!(blob.where_served().verified);
    read_all(&reader, SIZE).await;
    assert_eq!(
        reader.stats().bytes_fetched,
        SIZE,
        "then it is read from the disk"
    );
}

#[tokio::test]
async fn strict_needs_no_disk_and_no_room() {
    let source = Source::good();
    source.add(SIZE);
    let source = Arc::new(source);
    let few = ReaderOptions {
        blob_cache_max_bytes: 4 * BLOCK,
        ..options()
    };
    let reader = reader(&source, with(Verify::Strict, few));
    let blob = reader.open(digest(SIZE), SIZE);
    let read = blob.read_at(40 * BLOCK..41 * BLOCK).await.unwrap();
    assert_eq!(read, pattern(40 * BLOCK..41 * BLOCK));
    assert_eq!(reader.stats().bytes_fetched, SIZE + BLOCK);
}

#[tokio::test]
async fn what_is_proven_is_checked_block_by_block_from_then_on() {
    // True for the pass, false after it.
    let source = Source::new(|nth, _| match nth {
        0..17 => Act::Serve,
        _ => Act::Flip(30 * BLOCK),
    });
    source.add(SIZE);
    let source = Arc::new(source);
    let none = ReaderOptions {
        blob_cache_max_bytes: 0,
        ..options()
    };
    let reader = reader(&source, with(Verify::Strict, none));
    let blob = reader.open(digest(SIZE), SIZE);
    assert_eq!(blob.read_at(0..BLOCK).await.unwrap(), pattern(0..BLOCK));
    let lie = blob.read_at(30 * BLOCK..30 * BLOCK + 1).await;
    assert!(matches!(lie, Err(ReadError::Corrupt { .. })), "{lie:?}");
    let near = 31 * BLOCK..32 * BLOCK;
    assert_eq!(blob.read_at(near.clone()).await.unwrap(), pattern(near));
}

#[tokio::test]
async fn strict_trusts_no_block_of_the_disk() {
    let dir = TempDir::new().unwrap();
    let source = Source::good();
    source.add(SIZE);
    let source = Arc::new(source);
    let reader = reader(&source, with(Verify::Strict, on_disk(dir.path())));
    read_all(&reader, SIZE).await;
    let disk = reader.shared().disk.clone().unwrap();
    let geometry = reader.shared().state(id(SIZE)).geometry();
    disk.write(geometry, 3, &[7; BLOCK as usize]);
    reader.shared().cache.remove_payload(&id(SIZE));
    read_all(&reader, SIZE).await;
    assert_eq!(reader.stats().disk.damaged, 1);
    assert_eq!(reader.stats().bytes_fetched, SIZE + BLOCK);
}

#[tokio::test]
async fn off_hashes_nothing_and_promotes_nothing() {
    let dir = TempDir::new().unwrap();
    let source = liar();
    source.add(SMALL);
    let local = Arc::new(farseek_store::MemoryRepository::new());
    let reader = reader(
        &source,
        ReaderOptions {
            promote: crate::options::Promote::Complete,
            local: Some(local),
            ..with(Verify::Off, on_disk(dir.path()))
        },
    );
    let blob = reader.open(digest(SIZE), SIZE);
    let read = blob.read_at(0..SIZE).await.unwrap();
    assert_ne!(read, pattern(0..SIZE));
    assert_eq!(read.len() as u64, SIZE);
    read_all(&reader, SMALL).await;
    let stats = reader.stats();
    assert_eq!((stats.condemned, stats.promotions, stats.errors), (0, 0, 0));
    assert!(!blob.where_served().verified);
}

#[tokio::test]
async fn sizes_are_checked_even_so() {
    let source = Source::new(|_, _| Act::Size(SIZE + 1));
    source.add(SIZE);
    let reader = reader(&Arc::new(source), with(Verify::Off, options()));
    let read = reader.open(digest(SIZE), SIZE).read_at(0..1).await;
    assert!(matches!(read, Err(ReadError::Corrupt { .. })));
}

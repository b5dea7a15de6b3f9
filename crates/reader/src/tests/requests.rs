//! What is asked for, on good days.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::source::{Asked, BLOCK, Source, digest, let_run, options, pattern, reader};
use crate::options::ReaderOptions;

const SIZE: u64 = 100 * BLOCK + 7;

fn good() -> Arc<Source> {
    let source = Source::good();
    source.add(SIZE);
    Arc::new(source)
}

#[tokio::test(start_paused = true)]
async fn many_readers_of_one_block_cost_one_request() {
    let source = good();
    let reader = reader(&source, options());
    let reads = (0..64u64).map(|i| {
        let blob = reader.open(digest(SIZE), SIZE);
        tokio::spawn(async move { (i, blob.read_at(BLOCK + i..BLOCK + i + 10).await.unwrap()) })
    });
    for read in join_all(reads).await {
        let (i, bytes) = read.unwrap();
        assert_eq!(bytes, pattern(BLOCK + i..BLOCK + i + 10));
    }
    assert_eq!(
        source.log(),
        [Asked {
            digest: digest(SIZE),
            range: BLOCK..2 * BLOCK
        }]
    );
    let stats = reader.stats();
    assert_eq!((stats.misses, stats.joined, stats.fetches), (1, 63, 1));
    assert_eq!((stats.bytes_requested, stats.bytes_fetched), (BLOCK, BLOCK));
    assert_eq!(reader.shared().flights.len(), 0);
    assert_eq!(stats.bytes_in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn neighbours_are_asked_for_at_once() {
    let source = good();
    let blob = reader(&source, options()).open(digest(SIZE), SIZE);
    let range = BLOCK / 2..9 * BLOCK + 1;
    assert_eq!(
        blob.read_at(range.clone()).await.unwrap(),
        pattern(range.clone())
    );
    assert_eq!(
        source.ranges(),
        [0..4 * BLOCK, 4 * BLOCK..8 * BLOCK, 8 * BLOCK..10 * BLOCK]
    );
    assert_eq!(blob.read_at(range.clone()).await.unwrap(), pattern(range));
    assert_eq!(source.ranges().len(), 3, "the second time it is in memory");
}

#[tokio::test(start_paused = true)]
async fn only_what_is_missing_is_asked_for() {
    let source = good();
    let blob = reader(&source, options()).open(digest(SIZE), SIZE);
    blob.read_at(2 * BLOCK..3 * BLOCK).await.unwrap();
    assert_eq!(
        blob.read_at(0..5 * BLOCK).await.unwrap(),
        pattern(0..5 * BLOCK)
    );
    let rest = [2 * BLOCK..3 * BLOCK, 0..2 * BLOCK, 3 * BLOCK..5 * BLOCK];
    assert_eq!(source.ranges(), rest);
}

#[tokio::test(start_paused = true)]
async fn overlapping_readers_share() {
    let source = good();
    let blob = reader(&source, options()).open(digest(SIZE), SIZE);
    let (one, two) = futures::join!(
        blob.read_at(0..3 * BLOCK),
        blob.read_at(2 * BLOCK - 1..5 * BLOCK)
    );
    assert_eq!(one.unwrap(), pattern(0..3 * BLOCK));
    assert_eq!(two.unwrap(), pattern(2 * BLOCK - 1..5 * BLOCK));
    assert_eq!(source.ranges(), [0..3 * BLOCK, 3 * BLOCK..5 * BLOCK]);
}

#[tokio::test(start_paused = true)]
async fn the_last_block_is_short() {
    let source = good();
    let blob = reader(&source, options()).open(digest(SIZE), SIZE);
    assert_eq!(
        blob.read_at(SIZE - 1..SIZE + 5).await.unwrap(),
        pattern(SIZE - 1..SIZE)
    );
    assert_eq!(source.only_range(), 100 * BLOCK..SIZE);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_not_asked_for() {
    let source = good();
    let reader = reader(&source, options());
    let blob = reader.open(digest(SIZE), SIZE);
    for range in [SIZE..SIZE + 1, u64::MAX - 1..u64::MAX, 5..5] {
        assert_eq!(blob.read_at(range.clone()).await.unwrap(), "");
        assert_eq!(blob.try_read(range).unwrap(), "");
    }
    let empty = reader.open(digest(0), 0);
    assert_eq!(empty.read_at(0..10).await.unwrap(), "");
    assert_eq!(source.log(), []);
}

#[tokio::test(start_paused = true)]
async fn one_byte_in_the_middle_of_a_huge_payload_costs_a_block() {
    let size = 100 << 30;
    let source = Arc::new(Source::good());
    source.add(size);
    let reader = reader(&source, ReaderOptions::default());
    let at = (50 << 30) + 123;
    let blob = reader.open(digest(size), size);
    let read = blob.read_at(at..at + 1).await.unwrap();
    assert_eq!(read, pattern(at..at + 1));
    let block = 50 << 30..(50 << 30) + (256 << 10);
    // The byte does not wait for the rest of its block, which comes all the same.
    assert_eq!(
        blob.read_at(block.clone()).await.unwrap(),
        pattern(block.clone())
    );
    assert_eq!(source.only_range(), block);
    assert_eq!(reader.stats().bytes_fetched, 256 << 10);
}

#[tokio::test(start_paused = true)]
async fn memory_is_read_without_waiting() {
    let source = good();
    let reader = reader(&source, options());
    let blob = reader.open(digest(SIZE), SIZE);
    assert_eq!(blob.try_read(0..1), None);
    blob.read_at(0..3 * BLOCK).await.unwrap();
    assert_eq!(blob.try_read(5..17).unwrap(), pattern(5..17));
    assert_eq!(
        blob.try_read(BLOCK - 1..2 * BLOCK + 1).unwrap(),
        pattern(BLOCK - 1..2 * BLOCK + 1)
    );
    assert_eq!(blob.try_read(3 * BLOCK - 1..3 * BLOCK + 1), None);
    assert_eq!(
        reader.open(digest(SIZE), SIZE).try_read(0..2).unwrap(),
        pattern(0..2)
    );
    assert_eq!(source.only_range(), 0..3 * BLOCK);
    assert_eq!(reader.stats().hits_memory, 5);
}

#[tokio::test(start_paused = true)]
async fn a_block_wakes_its_waiters_before_the_fetch_ends() {
    let source = Arc::new(Source::good().paced(BLOCK, Duration::from_secs(1)));
    source.add(SIZE);
    let reader = reader(&source, options());
    let blob = reader.open(digest(SIZE), SIZE);
    let begun = tokio::time::Instant::now();
    let other = blob.clone();
    let all = tokio::spawn(async move { other.read_at(0..4 * BLOCK).await });
    let_run().await;
    assert_eq!(blob.read_at(0..1).await.unwrap(), pattern(0..1));
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    assert_eq!(
        blob.read_at(BLOCK..BLOCK + 1).await.unwrap(),
        pattern(BLOCK..BLOCK + 1)
    );
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
    assert_eq!(all.await.unwrap().unwrap(), pattern(0..4 * BLOCK));
    assert_eq!(begun.elapsed(), Duration::from_secs(4));
    assert_eq!(source.only_range(), 0..4 * BLOCK);
}

#[tokio::test(start_paused = true)]
async fn a_small_payload_is_fetched_whole_once() {
    let size = 300_000;
    let source = Arc::new(Source::good());
    source.add(size);
    let reader = reader(&source, ReaderOptions::default());
    let blob = reader.open(digest(size), size);
    let (one, two) = futures::join!(blob.read_at(7..8), blob.read_at(290_000..size));
    assert_eq!(one.unwrap(), pattern(7..8));
    assert_eq!(two.unwrap(), pattern(290_000..size));
    assert_eq!(blob.try_read(0..size).unwrap(), pattern(0..size));
    assert_eq!(source.only_range(), 0..size);
}

#[tokio::test(start_paused = true)]
async fn without_a_cache_readers_still_share_a_fetch() {
    let source = good();
    let reader = reader(
        &source,
        ReaderOptions {
            blob_cache_max_bytes: 0,
            ..options()
        },
    );
    let blob = reader.open(digest(SIZE), SIZE);
    let reads = join_all((0..8).map(|i| blob.read_at(i..2 * BLOCK))).await;
    for (i, read) in (0..8).zip(reads) {
        assert_eq!(read.unwrap(), pattern(i..2 * BLOCK));
    }
    assert_eq!(source.only_range(), 0..2 * BLOCK);
    assert_eq!(reader.stats().bytes_cached, 0);
}

#[tokio::test(start_paused = true)]
async fn payloads_believed_to_differ_in_size_do_not_mix() {
    let source = good();
    let reader = reader(&source, options());
    let short = reader.open(digest(SIZE), BLOCK / 2);
    let long = reader.open(digest(SIZE), SIZE);
    let (right, wrong) = futures::join!(long.read_at(0..BLOCK), short.read_at(0..BLOCK));
    assert_eq!(right.unwrap(), pattern(0..BLOCK));
    assert!(
        wrong
            .unwrap_err()
            .to_string()
            .contains("bytes instead of 2048")
    );
    assert_eq!(short.try_read(0..1), None);
}

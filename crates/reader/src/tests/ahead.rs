//! What is fetched ahead of readers, by the requests that are made.

use std::sync::Arc;
use std::time::Duration;

use super::source::{Act, Random, Source, digest, let_run, options, pattern, reader};
use crate::block::BlockSize;
use crate::options::ReaderOptions;
use crate::reader::Reader;

const MIB: u64 = 1 << 20;
const PIECE: u64 = 128 << 10;
const BIG: u64 = 64 * MIB;

fn ahead() -> ReaderOptions {
    ReaderOptions {
        block_size: BlockSize::default(),
        whole_fetch_max_bytes: MIB,
        fetch_max_bytes: 4 * MIB,
        readahead_max_bytes: 32 * MIB,
        ..options()
    }
}

fn source_of(size: u64) -> Source {
    let source = Source::good().paced(256 << 10, Duration::from_millis(2));
    source.add(size);
    source.delayed(Duration::from_millis(20))
}

/// Reads as the kernel does for somebody who reads on and on.
async fn stream(reader: &Reader, size: u64, range: std::ops::Range<u64>) {
    let blob = reader.open(digest(size), size);
    for start in range.clone().step_by(PIECE as usize) {
        let piece = start..(start + PIECE).min(range.end);
        let read = match blob.try_read(piece.clone()) {
            Some(read) => read,
            None => blob.read_at(piece.clone()).await.unwrap(),
        };
        assert_eq!(read, pattern(piece));
    }
}

#[tokio::test(start_paused = true)]
async fn reading_on_and_on_makes_few_large_requests_side_by_side() {
    let source = Arc::new(source_of(BIG));
    let reader = reader(&source, ahead());
    let begun = tokio::time::Instant::now();
    stream(&reader, BIG, 0..BIG).await;
    let ranges = source.ranges();
    let asked: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    assert_eq!(asked, BIG, "every byte once");
    assert!(ranges.len() < 60, "{}", ranges.len());
    let stats = reader.stats();
    assert_eq!(stats.readahead_wasted, 0);
    assert!(stats.readahead_bytes >= BIG - MIB);
    // One request at a time would take as long as all of them together.
    let alone = Duration::from_millis(20) * ranges.len() as u32 + Duration::from_millis(2) * 256;
    assert!(
        begun.elapsed() < alone / 2,
        "{:?} of {alone:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn random_reads_make_no_request_more() {
    let source = Arc::new(source_of(BIG));
    let reader = reader(&source, ahead());
    let blob = reader.open(digest(BIG), BIG);
    let mut random = Random(3);
    for _ in 0..500 {
        let at = random.below(BIG / 4096) * 4096;
        blob.read_at(at..at + 4096).await.unwrap();
    }
    let_run().await;
    assert_eq!(reader.stats().readahead_bytes, 0);
    assert!(
        source
            .ranges()
            .iter()
            .all(|range| range.end - range.start == 256 << 10)
    );
}

#[tokio::test(start_paused = true)]
async fn the_first_read_asks_for_nothing_more() {
    let source = Arc::new(source_of(BIG));
    let reader = reader(&source, ahead());
    stream(&reader, BIG, 0..PIECE).await;
    let_run().await;
    assert_eq!(source.only_range(), 0..256 << 10);
}

#[tokio::test(start_paused = true)]
async fn many_streams_keep_to_one_budget_and_the_idle_give_theirs_up() {
    let source = Arc::new(Source::good());
    let budget = 3 * MIB;
    let sizes: Vec<u64> = (0..12).map(|n| BIG + n).collect();
    for &size in &sizes {
        source.add(size);
    }
    let reader = reader(
        &source,
        ReaderOptions {
            readahead_budget_bytes: budget,
            ..ahead()
        },
    );
    for round in 0..16 {
        for &size in &sizes {
            let start = round * 2 * PIECE;
            stream(&reader, size, start..start + 2 * PIECE).await;
            assert!(reader.shared().ledger.taken() <= budget);
        }
    }
    assert!(reader.shared().ledger.taken() > budget / 2, "it is used");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let late = 100 * MIB;
    source.add(late);
    let before = reader.stats().readahead_bytes;
    stream(&reader, late, 0..4 * PIECE).await;
    assert!(reader.stats().readahead_bytes > before);
    stream(&reader, sizes[0], 64 * PIECE..66 * PIECE).await;
    assert!(
        reader.stats().readahead_wasted > 0,
        "what the idle had is wasted"
    );
}

#[tokio::test(start_paused = true)]
async fn a_tiny_memory_is_not_driven_out_by_readahead() {
    let source = Arc::new(source_of(BIG));
    let reader = reader(
        &source,
        ReaderOptions {
            blob_cache_max_bytes: 4 * MIB,
            ..ahead()
        },
    );
    stream(&reader, BIG, 0..BIG).await;
    let asked: u64 = source
        .ranges()
        .iter()
        .map(|range| range.end - range.start)
        .sum();
    assert_eq!(asked, BIG);
    let off = super::source::reader(
        &source,
        ReaderOptions {
            blob_cache_max_bytes: 0,
            ..ahead()
        },
    );
    stream(&off, BIG, 0..MIB).await;
    assert_eq!(off.stats().readahead_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_waits_for_does_not_wait_behind_readahead() {
    let hang = |_, range: &std::ops::Range<u64>| match range.start >= MIB && range.start < 40 * MIB
    {
        true => Act::Hang,
        false => Act::Serve,
    };
    let source = Source::new(hang);
    source.add(BIG);
    let source = Arc::new(source);
    let reader = reader(&source, ahead());
    stream(&reader, BIG, 0..MIB).await;
    let blob = reader.open(digest(BIG), BIG);
    for piece in 0..32 {
        let hopeless = blob.clone();
        let start = MIB / 2 + piece * PIECE;
        tokio::spawn(async move { hopeless.read_at(start..start + PIECE).await });
    }
    let_run().await;
    let begun = tokio::time::Instant::now();
    let far = 50 * MIB;
    assert_eq!(
        blob.read_at(far..far + 1).await.unwrap(),
        pattern(far..far + 1)
    );
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_failed_ahead_of_anybody_is_asked_for_again() {
    let source = Source::new(|_, range| match range.start >= 256 << 10 {
        true => Act::Hang,
        false => Act::Serve,
    });
    source.add(BIG);
    let source = Arc::new(source);
    let reader = reader(
        &source,
        ReaderOptions {
            failure_memory: Duration::from_secs(2),
            ..ahead()
        },
    );
    stream(&reader, BIG, 0..2 * PIECE).await;
    let_run().await;
    let before = source.ranges().len();
    assert!(before > 1);
    tokio::time::sleep(Duration::from_secs(31)).await;
    let blob = reader.open(digest(BIG), BIG);
    let begun = tokio::time::Instant::now();
    blob.read_at(2 * PIECE..3 * PIECE).await.unwrap_err();
    assert_eq!(
        begun.elapsed(),
        Duration::from_secs(30),
        "it had its own chance"
    );
}

#[tokio::test(start_paused = true)]
async fn large_payloads_pass_through_memory() {
    let size = 100 * MIB;
    let source = Arc::new(source_of(size));
    let small = 2 * MIB;
    source.add(small);
    let reader = reader(&source, ahead());
    stream(&reader, small, 0..small).await;
    stream(&reader, size, 0..size).await;
    let stats = reader.stats();
    assert!(stats.bytes_cached < 20 * MIB, "{}", stats.bytes_cached);
    let blob = reader.open(digest(small), small);
    assert!(
        blob.try_read(0..small).is_some(),
        "what is small enough stays"
    );
    let asked: u64 = source
        .ranges()
        .iter()
        .map(|range| range.end - range.start)
        .sum();
    assert_eq!(asked, size + small, "every byte once");
}

//! Who waits for whom when requests and bytes are limited.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::source::{Act, BLOCK, Source, digest, let_run, options, pattern, reader};
use crate::error::ReadError;
use crate::options::ReaderOptions;

const LARGE: u64 = 1000 * BLOCK;
const SMALL: u64 = 30;
const STALL: Duration = Duration::from_secs(30);

/// One request for bulk data at a time.
fn one_at_a_time() -> ReaderOptions {
    ReaderOptions {
        max_fetches: 2,
        ..options()
    }
}

fn with_payloads(source: Source) -> Arc<Source> {
    source.add(LARGE);
    source.add(SMALL);
    Arc::new(source)
}

#[tokio::test(start_paused = true)]
async fn small_payloads_do_not_wait_behind_bulk_data() {
    let hang = |_, range: &std::ops::Range<u64>| {
        if range.end == SMALL {
            Act::Serve
        } else {
            Act::Hang
        }
    };
    let source = with_payloads(Source::new(hang));
    let reader = reader(&source, ReaderOptions::default());
    let large = reader.open(digest(LARGE), LARGE);
    let bulk = tokio::spawn(async move {
        let far = |i: u64| large.read_at(i * 1_000_000 % LARGE..i * 1_000_000 % LARGE + 1);
        join_all((0..200).map(far)).await
    });
    let_run().await;
    let begun = Instant::now();
    let small = reader.open(digest(SMALL), SMALL).read_at(0..SMALL).await;
    assert_eq!(small.unwrap(), pattern(0..SMALL));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    for read in bulk.await.unwrap() {
        assert!(matches!(read, Err(ReadError::Stalled { .. })));
    }
    assert_eq!(
        begun.elapsed(),
        STALL,
        "those that wait for a turn fail with those before them"
    );
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_waited_for_as_long_as_there_is_progress() {
    // Each block takes 20 s; four of them, one request at a time.
    let source = with_payloads(Source::good().paced(BLOCK, Duration::from_secs(20)));
    let reader = reader(&source, one_at_a_time());
    let blob = reader.open(digest(LARGE), LARGE);
    let begun = Instant::now();
    let reads = join_all((0..4).map(|i| blob.read_at(2 * i * BLOCK..(2 * i + 1) * BLOCK))).await;
    for (i, read) in (0..4).zip(reads) {
        assert_eq!(read.unwrap(), pattern(2 * i * BLOCK..(2 * i + 1) * BLOCK));
    }
    assert_eq!(begun.elapsed(), Duration::from_secs(80));
    assert_eq!(source.ranges().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_comes_late_starts_its_own_deadline() {
    let source = with_payloads(Source::first(&[Act::Hang]));
    let reader = reader(&source, one_at_a_time());
    let blob = reader.open(digest(LARGE), LARGE);
    let other = blob.clone();
    let first = tokio::spawn(async move { other.read_at(0..1).await });
    tokio::time::sleep(Duration::from_secs(20)).await;
    let read = blob.read_at(5 * BLOCK..5 * BLOCK + 1).await;
    assert_eq!(read.unwrap(), pattern(5 * BLOCK..5 * BLOCK + 1));
    assert!(matches!(
        first.await.unwrap(),
        Err(ReadError::Stalled { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_run_than_allowed() {
    let source = with_payloads(Source::good().paced(BLOCK, Duration::from_secs(1)));
    let reader = reader(
        &source,
        ReaderOptions {
            max_fetches: 8,
            ..options()
        },
    );
    let blob = reader.open(digest(LARGE), LARGE);
    let reads = tokio::spawn(async move {
        join_all((0..20).map(|i| blob.read_at(2 * i * BLOCK..2 * i * BLOCK + 1))).await
    });
    for second in 1..=5 {
        let_run().await;
        assert_eq!(source.ranges().len(), 4 * second);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(reads.await.unwrap().iter().all(Result::is_ok));
    assert_eq!(source.ranges().len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_budget_smaller_than_a_block_still_lets_one_pass() {
    let source = with_payloads(Source::good());
    let tiny = ReaderOptions {
        in_flight_max_bytes: 1,
        max_fetches: 1,
        ..options()
    };
    let reader = reader(&source, tiny);
    let blob = reader.open(digest(LARGE), LARGE);
    assert_eq!(
        blob.read_at(0..9 * BLOCK).await.unwrap(),
        pattern(0..9 * BLOCK)
    );
    let reads = join_all((10..60).map(|i| blob.read_at(2 * i * BLOCK..2 * i * BLOCK + 3))).await;
    assert!(reads.iter().all(Result::is_ok));
    assert_eq!(reader.stats().bytes_in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_failing_fetch_leaves_its_permit_to_others_while_it_pauses() {
    let refuse = Act::Refuse(super::source::unavailable);
    let source = with_payloads(Source::first(&[refuse]));
    let reader = reader(&source, one_at_a_time());
    let blob = reader.open(digest(LARGE), LARGE);
    let other = blob.clone();
    let failing = tokio::spawn(async move { other.read_at(0..1).await });
    let_run().await;
    let begun = Instant::now();
    blob.read_at(5 * BLOCK..5 * BLOCK + 1).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(failing.await.unwrap().unwrap(), pattern(0..1));
    assert_eq!(source.ranges(), [0..BLOCK, 5 * BLOCK..6 * BLOCK, 0..BLOCK]);
}

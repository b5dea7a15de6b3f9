//! Reads of a part of a block that is still on its way.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join;

use super::source::{Act, Source, digest, options, pattern, reader};
use crate::block::BlockSize;
use crate::error::ReadError;
use crate::options::ReaderOptions;
use crate::trust::Verify;

const LONG: u64 = 256 << 10;
const SIZE: u64 = 8 * LONG + 77;

fn long_blocks(verify: Verify) -> ReaderOptions {
    ReaderOptions {
        block_size: BlockSize::new(LONG).unwrap(),
        fetch_max_bytes: 4 * LONG,
        stall: Duration::from_secs(30),
        verify,
        ..options()
    }
}

/// Sends the first 100,000 bytes of what it is asked, and then nothing.
fn stalling() -> Arc<Source> {
    let source = Source::new(|_, _| Act::Stall(100_000));
    source.add(SIZE);
    Arc::new(source)
}

#[tokio::test(start_paused = true)]
async fn who_wants_no_more_than_what_has_come_does_not_wait_for_the_rest() {
    let source = stalling();
    let reader = reader(&source, long_blocks(Verify::Auto));
    let blob = reader.open(digest(SIZE), SIZE);
    let (early, late) = (LONG + 90_000..LONG + 99_000, LONG + 99_000..LONG + 101_000);
    let (early_read, late_read) = join(blob.read_at(early.clone()), blob.read_at(late)).await;
    assert_eq!(early_read.unwrap(), pattern(early.clone()));
    assert!(
        matches!(late_read, Err(ReadError::Stalled { .. })),
        "{late_read:?}"
    );
    assert_eq!(blob.try_read(early), None, "half a block is kept nowhere");
}

#[tokio::test(start_paused = true)]
async fn parts_before_the_end_of_a_block_that_comes_are_told_once_and_right() {
    let source = Source::good().paced(10_000, Duration::from_millis(10));
    source.add(SIZE);
    let source = Arc::new(source);
    let reader = reader(&source, long_blocks(Verify::Auto));
    let blob = reader.open(digest(SIZE), SIZE);
    let places = (0..60u64).map(|n| n * 4300..n * 4300 + 4096);
    let reads = places.clone().map(|place| {
        let blob = blob.clone();
        async move {
            let bytes = blob.read_at(place.clone()).await.unwrap();
            assert_eq!(bytes, pattern(place.clone()), "{place:?}");
            tokio::time::Instant::now()
        }
    });
    let begun = tokio::time::Instant::now();
    let when = futures::future::join_all(reads).await;
    assert!(when.is_sorted(), "the first bytes first");
    assert_eq!(
        when[0] - begun,
        Duration::from_millis(10),
        "with the first piece"
    );
    assert_eq!(
        when[59] - begun,
        Duration::from_millis(260),
        "with the last"
    );
    assert_eq!(blob.read_at(0..LONG).await.unwrap(), pattern(0..LONG));
    assert_eq!(source.only_range(), 0..LONG);
}

#[tokio::test(start_paused = true)]
async fn where_only_verified_bytes_are_served_no_part_is() {
    let source = stalling();
    let reader = reader(&source, long_blocks(Verify::Strict));
    let read = reader.open(digest(SIZE), SIZE).read_at(0..4096).await;
    assert!(matches!(read, Err(ReadError::Stalled { .. })), "{read:?}");
}

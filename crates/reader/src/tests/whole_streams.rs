//! Sources that ignore ranges: what they send is kept, and they are asked no more than needed.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::source::{Act, BLOCK, Source, digest, let_run, options, pattern, reader};
use crate::error::ReadError;
use crate::options::ReaderOptions;
use crate::reader::Reader;

const SIZE: u64 = 64 * BLOCK;
const TICK: Duration = Duration::from_secs(1);

/// A source that always sends everything, a block a second.
fn whole(act: Act, options: ReaderOptions) -> (Arc<Source>, Reader) {
    let source = Source::new(move |_, _| act.clone()).paced(BLOCK, TICK);
    source.add(SIZE);
    let source = Arc::new(source);
    let reader = reader(&source, options);
    (source, reader)
}

/// A cache that has no room for the whole payload.
fn small_cache() -> ReaderOptions {
    ReaderOptions {
        blob_cache_max_bytes: SIZE,
        ..options()
    }
}

#[tokio::test(start_paused = true)]
async fn one_transfer_serves_every_block() {
    for act in [Act::Whole, Act::Endless] {
        let (source, reader) = whole(act, options());
        let blob = reader.open(digest(SIZE), SIZE);
        let at = 5 * BLOCK + 9;
        assert_eq!(blob.read_at(at..at + 1).await.unwrap(), pattern(at..at + 1));
        assert_eq!(blob.try_read(0..6 * BLOCK).unwrap(), pattern(0..6 * BLOCK));
        assert_eq!(blob.try_read(7 * BLOCK..8 * BLOCK), None, "on its way");
        let later = 9 * BLOCK..20 * BLOCK;
        assert_eq!(blob.read_at(later.clone()).await.unwrap(), pattern(later));
        tokio::time::sleep(60 * TICK).await;
        assert_eq!(blob.try_read(0..SIZE).unwrap(), pattern(0..SIZE));
        // The second read asks before it knows that what it wants is coming, or it waits.
        assert_eq!(source.only_range(), 5 * BLOCK..6 * BLOCK);
        assert_eq!(reader.stats().bytes_fetched, SIZE);
        assert_eq!(reader.shared().flights.len(), 0);
        assert_eq!(reader.stats().bytes_in_flight, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_made_before_the_first_answer_give_way() {
    let source = Source::new(|_, _| Act::Whole)
        .paced(BLOCK, TICK)
        .delayed(TICK);
    source.add(SIZE);
    let source = Arc::new(source);
    let reader = reader(&source, options());
    let blob = reader.open(digest(SIZE), SIZE);
    let reads = join_all((0..16).map(|i| blob.read_at(4 * i * BLOCK..4 * i * BLOCK + 1))).await;
    for (i, read) in (0..16).zip(reads) {
        assert_eq!(read.unwrap(), pattern(4 * i * BLOCK..4 * i * BLOCK + 1));
    }
    tokio::time::sleep(10 * TICK).await;
    assert_eq!(source.ranges().len(), 16);
    assert_eq!(
        reader.stats().bytes_fetched,
        SIZE,
        "only one of them was let run"
    );
    assert_eq!(reader.shared().flights.len(), 0);
    assert_eq!(reader.stats().bytes_in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_passed_over_and_stopped() {
    let (source, reader) = whole(Act::Whole, small_cache());
    let blob = reader.open(digest(SIZE), SIZE);
    let at = 5 * BLOCK + 9;
    assert_eq!(blob.read_at(at..at + 1).await.unwrap(), pattern(at..at + 1));
    tokio::time::sleep(100 * TICK).await;
    assert_eq!(reader.stats().bytes_fetched, 6 * BLOCK);
    assert_eq!(blob.try_read(0..1), None);
    assert_eq!(blob.read_at(0..1).await.unwrap(), pattern(0..1));
    assert_eq!(source.ranges(), [5 * BLOCK..6 * BLOCK, 0..BLOCK]);
}

#[tokio::test(start_paused = true)]
async fn reading_on_is_one_transfer_where_nothing_can_be_kept() {
    for act in [Act::Whole, Act::Endless] {
        // Pieces that end within blocks, and blocks that end within pieces.
        let source = Source::new(move |_, _| act.clone()).paced(BLOCK * 3 / 2, TICK);
        source.add(SIZE);
        let source = Arc::new(source);
        let options = ReaderOptions {
            blob_cache_max_bytes: 2 * BLOCK,
            ..small_cache()
        };
        let reader = reader(&source, options);
        let blob = reader.open(digest(SIZE), SIZE);
        for start in (0..SIZE).step_by(1000).filter(|start| start % 3000 != 0) {
            let range = start..(start + 1000).min(SIZE);
            assert_eq!(blob.read_at(range.clone()).await.unwrap(), pattern(range));
        }
        assert_eq!(source.ranges().len(), 1);
        assert_eq!(reader.stats().bytes_fetched, SIZE);
    }
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_nobody_goes_on_with_is_let_go() {
    let (source, reader) = whole(Act::Whole, small_cache());
    let blob = reader.open(digest(SIZE), SIZE);
    blob.read_at(0..1).await.unwrap();
    tokio::time::sleep(40 * TICK).await;
    blob.read_at(9 * BLOCK..9 * BLOCK + 1).await.unwrap();
    assert_eq!(source.ranges(), [0..BLOCK, 9 * BLOCK..10 * BLOCK]);
}

#[tokio::test(start_paused = true)]
async fn one_at_a_time_where_it_does_not_fit_either() {
    let (source, reader) = whole(Act::Whole, small_cache());
    let blob = reader.open(digest(SIZE), SIZE);
    blob.read_at(0..1).await.unwrap();
    let other = blob.clone();
    let far = tokio::spawn(async move { other.read_at(30 * BLOCK..30 * BLOCK + 1).await });
    tokio::time::sleep(10 * TICK + TICK / 2).await;
    // One block the running transfer will pass, one it has passed.
    let (ahead, behind) = futures::join!(
        blob.read_at(20 * BLOCK..20 * BLOCK + 1),
        blob.read_at(3 * BLOCK..3 * BLOCK + 1)
    );
    assert_eq!(ahead.unwrap(), pattern(20 * BLOCK..20 * BLOCK + 1));
    assert_eq!(behind.unwrap(), pattern(3 * BLOCK..3 * BLOCK + 1));
    assert_eq!(
        far.await.unwrap().unwrap(),
        pattern(30 * BLOCK..30 * BLOCK + 1)
    );
    let_run().await;
    // The first transfer went on for all but the block that it had passed.
    assert_eq!(source.ranges(), [0..BLOCK, 3 * BLOCK..4 * BLOCK]);
    assert_eq!(reader.shared().flights.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_small_payload_that_starts_again_is_taken_from_the_start() {
    let size = 3000;
    let acts = [Act::Break(1000), Act::Whole];
    let source = Source::first(&acts);
    source.add(size);
    let source = Arc::new(source);
    let reader = reader(&source, options());
    let read = reader.open(digest(size), size).read_at(0..size).await;
    assert_eq!(read.unwrap(), pattern(0..size));
    assert_eq!(source.ranges(), [0..size, 1000..size]);
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_always_breaks_off_ends() {
    let (source, reader) = whole(Act::WholeBreak(10 * BLOCK), options());
    let blob = reader.open(digest(SIZE), SIZE);
    let read = blob.read_at(20 * BLOCK..20 * BLOCK + 1).await;
    assert!(matches!(read, Err(ReadError::Unavailable { .. })));
    assert_eq!(source.ranges(), vec![20 * BLOCK..21 * BLOCK; 4]);
    let near = 5 * BLOCK..6 * BLOCK;
    assert_eq!(
        blob.try_read(near.clone()).unwrap(),
        pattern(near),
        "what came is kept"
    );
    assert_eq!(reader.shared().flights.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_learns_ranges_is_asked_for_them() {
    let source = Source::first(&[Act::Whole]);
    source.add(SIZE);
    let source = Arc::new(source);
    let reader = reader(&source, small_cache());
    let blob = reader.open(digest(SIZE), SIZE);
    for i in [15, 12, 11, 10] {
        blob.read_at(2 * i * BLOCK..2 * i * BLOCK + 1)
            .await
            .unwrap();
    }
    let fetched = reader.stats().bytes_fetched;
    assert_eq!(source.ranges().len(), 4);
    assert!(fetched < (31 + 4) * BLOCK, "{fetched}");
    assert!(
        reader
            .shared()
            .lanes
            .turn(&crate::block::PayloadId {
                digest: digest(SIZE),
                size: SIZE
            })
            .is_none()
    );
}

#[tokio::test(start_paused = true)]
async fn a_parked_transfer_that_has_died_is_not_the_end() {
    // What came is read; then the connection is dead, and the source is not.
    let source = Source::new(|nth, _| match nth {
        0 => Act::WholeStall(2 * BLOCK),
        _ => Act::Whole,
    });
    source.add(SIZE);
    let source = Arc::new(source);
    let reader = reader(&source, small_cache());
    let blob = reader.open(digest(SIZE), SIZE);
    blob.read_at(0..1).await.unwrap();
    let range = 5 * BLOCK..5 * BLOCK + 1;
    assert_eq!(blob.read_at(range.clone()).await.unwrap(), pattern(range));
    assert_eq!(source.ranges().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn waiting_in_a_lane_is_no_latency() {
    let source = Source::new(|_, _| Act::Whole)
        .paced(BLOCK, TICK)
        .delayed(TICK);
    source.add(SIZE);
    let source = Arc::new(source);
    let reader = reader(&source, small_cache());
    let blob = reader.open(digest(SIZE), SIZE);
    let (first, second) = tokio::join!(
        blob.read_at(30 * BLOCK..30 * BLOCK + 1),
        blob.read_at(62 * BLOCK..62 * BLOCK + 1),
    );
    first.unwrap();
    second.unwrap();
    let latency = reader.shared().link().latency;
    assert!(latency < 2 * TICK, "{latency:?}");
}

#[tokio::test(start_paused = true)]
async fn a_parked_transfer_that_ends_before_what_is_wanted_is_no_use() {
    let source = Source::new(|_, _| Act::Aligned(8 * BLOCK));
    source.add(SIZE);
    let source = Arc::new(source);
    let reader = reader(&source, small_cache());
    let blob = reader.open(digest(SIZE), SIZE);
    blob.read_at(0..1).await.unwrap();
    let range = 24 * BLOCK..24 * BLOCK + 1;
    assert_eq!(blob.read_at(range.clone()).await.unwrap(), pattern(range));
    assert_eq!(reader.stats().retries, 0);
    assert!(reader.stats().bytes_fetched <= 3 * BLOCK);
}

#[tokio::test(start_paused = true)]
async fn what_is_parked_keeps_no_reader_alive() {
    let (source, reader) = whole(Act::Whole, small_cache());
    let blob = reader.open(digest(SIZE), SIZE);
    blob.read_at(0..1).await.unwrap();
    let_run().await;
    assert_eq!(reader.stats().bytes_in_flight, 0);
    let (trips, repository) = (
        Arc::downgrade(&reader.shared().trips),
        Arc::downgrade(&source),
    );
    drop((blob, reader, source));
    let_run().await;
    assert!(trips.upgrade().is_none(), "nor the reader");
    assert!(repository.upgrade().is_none());
}

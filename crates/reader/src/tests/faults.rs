//! Sources that fail, lie, break off, hang or panic.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use farseek_store::StoreError;
use tokio::runtime::Builder;
use tokio::time::Instant;

use super::source::{
    Act, BLOCK, SOURCE, Source, digest, let_run, options, pattern, reader, unavailable,
};
use crate::error::ReadError;
use crate::options::ReaderOptions;
use crate::reader::Reader;

const SIZE: u64 = 10 * BLOCK;
const SMALL: u64 = 3000;
const STALL: Duration = Duration::from_secs(30);

fn scripted(acts: &[Act]) -> (Arc<Source>, Reader) {
    of(Source::first(acts))
}

fn always(act: Act) -> (Arc<Source>, Reader) {
    of(Source::new(move |_, _| act.clone()))
}

fn of(source: Source) -> (Arc<Source>, Reader) {
    source.add(SIZE);
    source.add(SMALL);
    let source = Arc::new(source);
    let reader = reader(&source, options());
    (source, reader)
}

/// Reads `range`, expects it to fail, and that nothing is left behind.
async fn fails(reader: &Reader, size: u64, range: Range<u64>) -> ReadError {
    let error = reader
        .open(digest(size), size)
        .read_at(range)
        .await
        .unwrap_err();
    let_run().await;
    assert_eq!(reader.shared().flights.len(), 0);
    assert_eq!(reader.stats().bytes_in_flight, 0);
    error
}

async fn gives(reader: &Reader, size: u64, range: Range<u64>) {
    let read = reader.open(digest(size), size).read_at(range.clone()).await;
    assert_eq!(read.unwrap(), pattern(range));
    let_run().await;
    assert_eq!(reader.shared().flights.len(), 0);
    assert_eq!(reader.stats().bytes_in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_cut_body_is_asked_only_for_the_rest() {
    let (source, reader) = scripted(&[Act::Break(5000), Act::End(10), Act::Break(0)]);
    gives(&reader, SIZE, 0..4 * BLOCK).await;
    let end = 4 * BLOCK;
    assert_eq!(source.ranges(), [0..end, 5000..end, 5010..end, 5010..end]);
    let stats = reader.stats();
    assert_eq!(
        (stats.retries, stats.errors, stats.bytes_fetched),
        (3, 0, end)
    );
}

#[tokio::test(start_paused = true)]
async fn a_cut_small_payload_is_completed_and_verified() {
    let (source, reader) = scripted(&[Act::Break(1000), Act::End(1)]);
    gives(&reader, SMALL, 0..SMALL).await;
    assert_eq!(source.ranges(), [0..SMALL, 1000..SMALL, 1001..SMALL]);
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_four_times_with_pauses() {
    let (source, reader) = always(Act::Refuse(unavailable));
    let begun = Instant::now();
    let error = fails(&reader, SIZE, 0..1).await;
    assert!(matches!(error, ReadError::Unavailable { .. }), "{error}");
    assert_eq!(source.ranges(), vec![0..BLOCK; 4]);
    assert!(
        begun.elapsed() >= Duration::from_millis(700),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        begun.elapsed() <= Duration::from_millis(1500),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!((reader.stats().retries, reader.stats().errors), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn failures_that_stop_in_time_are_not_seen() {
    let acts = vec![Act::Refuse(unavailable); 3];
    let (source, reader) = scripted(&acts);
    gives(&reader, SIZE, 0..1).await;
    assert_eq!(source.ranges().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn every_block_starts_the_count_of_failures_again() {
    let (source, reader) = always(Act::Break(BLOCK));
    gives(&reader, SIZE, 0..SIZE).await;
    // Ten blocks: every run but the last block of each is broken off after a block.
    assert_eq!(source.ranges().len(), 10);
    let (source, reader) = always(Act::Break(100));
    fails(&reader, SIZE, 0..1).await;
    assert_eq!(
        source.ranges(),
        [0..BLOCK, 100..BLOCK, 200..BLOCK, 300..BLOCK]
    );
}

#[tokio::test(start_paused = true)]
async fn the_pauses_end_with_the_deadline() {
    let source = Arc::new(Source::new(|_, _| Act::Refuse(unavailable)));
    source.add(SIZE);
    let stall = Duration::from_millis(250);
    let reader = reader(&source, ReaderOptions { stall, ..options() });
    let begun = Instant::now();
    fails(&reader, SIZE, 0..1).await;
    assert!(begun.elapsed() <= stall, "{:?}", begun.elapsed());
    assert!(source.ranges().len() < 4);
}

#[tokio::test(start_paused = true)]
async fn what_asking_again_does_not_mend_is_not_asked_again() {
    let denied: fn() -> StoreError = || StoreError::Denied {
        location: SOURCE.to_owned(),
        reason: "no".to_owned(),
    };
    let (source, reader) = always(Act::Refuse(denied));
    assert!(matches!(
        fails(&reader, SIZE, 0..1).await,
        ReadError::Denied { .. }
    ));
    assert_eq!(source.ranges().len(), 1);

    let corrupt: fn() -> StoreError = || StoreError::Corrupt {
        location: SOURCE.to_owned(),
        reason: "bad".to_owned(),
    };
    let (source, reader) = always(Act::Refuse(corrupt));
    assert!(matches!(
        fails(&reader, SIZE, 0..1).await,
        ReadError::Corrupt { .. }
    ));
    assert_eq!(source.ranges().len(), 1);

    let io: fn() -> StoreError =
        || StoreError::io("read", SOURCE)(std::io::ErrorKind::PermissionDenied.into());
    let (source, reader) = always(Act::Refuse(io));
    assert!(matches!(
        fails(&reader, SIZE, 0..1).await,
        ReadError::Failed { .. }
    ));
    assert_eq!(source.ranges().len(), 1);

    let (source, reader) = scripted(&[]);
    assert!(matches!(
        fails(&reader, SIZE + 1, 0..1).await,
        ReadError::NotFound { .. }
    ));
    assert_eq!(source.ranges().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn all_waiters_get_the_error_and_the_next_read_asks_again() {
    let (source, reader) = scripted(&[Act::Hang]);
    let blob = reader.open(digest(SIZE), SIZE);
    let (one, two) = futures::join!(blob.read_at(0..1), blob.read_at(2..3));
    assert!(matches!(one, Err(ReadError::Stalled { .. })));
    assert!(matches!(two, Err(ReadError::Stalled { .. })));
    assert_eq!(reader.stats().errors, 1);
    gives(&reader, SIZE, 0..1).await;
    assert_eq!(source.ranges().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_not_waited_for_again_until_it_is_forgotten() {
    let source = Arc::new(Source::first(&[Act::Hang]));
    source.add(SIZE);
    let memory = Duration::from_secs(2);
    let reader = reader(
        &source,
        ReaderOptions {
            failure_memory: memory,
            ..options()
        },
    );
    fails(&reader, SIZE, 0..1).await;
    let begun = Instant::now();
    let error = fails(&reader, SIZE, 100..200).await;
    assert!(matches!(error, ReadError::Stalled { .. }), "{error}");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    gives(&reader, SIZE, BLOCK..BLOCK + 1).await;
    assert_eq!(source.ranges().len(), 2, "another block is asked for");
    tokio::time::sleep(memory).await;
    gives(&reader, SIZE, 0..1).await;
    assert_eq!(source.ranges(), [0..BLOCK, BLOCK..2 * BLOCK, 0..BLOCK]);
}

#[tokio::test(start_paused = true)]
async fn what_asking_again_might_not_mend_is_asked_each_time() {
    let source = Arc::new(Source::new(|_, _| Act::Flip(2999)));
    source.add(SMALL);
    let defaults = ReaderOptions::default();
    let reader = reader(&source, defaults);
    fails(&reader, SMALL, 0..1).await;
    fails(&reader, SMALL, 0..1).await;
    assert_eq!(source.ranges().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_at_the_deadline() {
    for act in [
        Act::Hang,
        Act::Stall(0),
        Act::Late(STALL + Duration::from_millis(1)),
    ] {
        let (source, reader) = always(act);
        let begun = Instant::now();
        let error = fails(&reader, SIZE, 0..1).await;
        assert!(matches!(error, ReadError::Stalled { .. }), "{error}");
        assert_eq!(begun.elapsed(), STALL);
        assert_eq!(source.only_range(), 0..BLOCK);
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_on_progress() {
    let pace = Duration::from_secs(29);
    let source = Arc::new(Source::good().paced(500, pace));
    source.add(SMALL);
    let reader = reader(&source, options());
    let begun = Instant::now();
    gives(&reader, SMALL, 0..1).await;
    assert_eq!(begun.elapsed(), 6 * pace);
}

#[tokio::test(start_paused = true)]
async fn blocks_that_came_before_the_silence_are_served() {
    let (source, reader) = scripted(&[Act::Stall(BLOCK + 1)]);
    let blob = reader.open(digest(SIZE), SIZE);
    let begun = Instant::now();
    let (one, two) = futures::join!(blob.read_at(0..2 * BLOCK), blob.read_at(0..BLOCK));
    assert!(matches!(one, Err(ReadError::Stalled { .. })));
    assert_eq!(two.unwrap(), pattern(0..BLOCK));
    assert_eq!(begun.elapsed(), STALL);
    gives(&reader, SIZE, 0..2 * BLOCK).await;
    assert_eq!(source.ranges(), [0..2 * BLOCK, BLOCK..2 * BLOCK]);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_holds_across_attempts() {
    // Each attempt fails late, but soon enough to be tried again: together they take too long.
    let late: Vec<Act> = vec![Act::Break(0); 2];
    let source = Arc::new(Source::new(move |nth, _| {
        late.get(nth).cloned().unwrap_or(Act::Hang)
    }));
    source.add(SIZE);
    let reader = reader(&source, options());
    let begun = Instant::now();
    let error = fails(&reader, SIZE, 0..1).await;
    assert!(matches!(error, ReadError::Stalled { .. }), "{error}");
    assert_eq!(begun.elapsed(), STALL);
    assert_eq!(source.ranges().len(), 3);
}

#[tokio::test]
async fn empty_pieces_are_no_progress() {
    let source = Arc::new(Source::new(|_, _| Act::Empty));
    source.add(SIZE);
    let stall = Duration::from_millis(50);
    let reader = reader(&source, ReaderOptions { stall, ..options() });
    let error = fails(&reader, SIZE, 0..1).await;
    assert!(matches!(error, ReadError::Stalled { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_in_transit_is_mended() {
    let (source, reader) = scripted(&[Act::Flip(2999)]);
    gives(&reader, SMALL, 0..10).await;
    assert_eq!(source.ranges(), [0..SMALL, 0..SMALL]);
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_small_payload_is_never_served() {
    let (source, reader) = always(Act::Flip(2999));
    let error = fails(&reader, SMALL, 0..10).await;
    let ReadError::Corrupt {
        digest: named,
        location,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((*named, location.as_str()), (digest(SMALL), SOURCE));
    assert_eq!(source.ranges().len(), 2);
    assert_eq!(reader.open(digest(SMALL), SMALL).try_read(0..10), None);
    assert_eq!(reader.stats().bytes_cached, 0);
    fails(&reader, SMALL, 0..10).await;
    assert_eq!(source.ranges().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_payload_too_large_to_hash_here_is_found_too() {
    let size = 1 << 20;
    let source = Arc::new(Source::new(|_, _| Act::Flip(77)));
    source.add(size);
    let reader = reader(&source, ReaderOptions::default());
    let error = fails(&reader, size, 0..1).await;
    assert!(matches!(error, ReadError::Corrupt { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn another_size_is_corruption() {
    let (source, reader) = always(Act::Size(SIZE + 1));
    let error = fails(&reader, SIZE, 0..1).await;
    let text = format!("it has {} bytes instead of {SIZE}", SIZE + 1);
    assert!(
        matches!(&error, ReadError::Corrupt { reason, .. } if *reason == text),
        "{error}"
    );
    assert_eq!(source.ranges().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_range_is_corruption() {
    let (source, reader) = always(Act::Range(BLOCK + 1..2 * BLOCK));
    let error = fails(&reader, SIZE, BLOCK..BLOCK + 1).await;
    assert!(matches!(error, ReadError::Corrupt { .. }), "{error}");
    assert_eq!(source.ranges().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_longer_than_promised_is_an_error() {
    let (source, reader) = always(Act::Overrun(1));
    let error = fails(&reader, SIZE, 0..1).await;
    assert!(matches!(error, ReadError::Unavailable { .. }), "{error}");
    assert_eq!(source.ranges().len(), 4);
    assert_eq!(reader.stats().bytes_cached, 0);
    let (_, reader) = scripted(&[Act::Overrun(9000)]);
    gives(&reader, SIZE, 0..2 * BLOCK).await;
}

#[tokio::test(start_paused = true)]
async fn a_payload_of_unknown_length_must_end_where_it_should() {
    let (source, reader) = always(Act::Longer(1));
    let error = fails(&reader, SIZE, SIZE - 1..SIZE).await;
    assert!(matches!(error, ReadError::Corrupt { .. }), "{error}");
    assert_eq!(source.ranges().len(), 4);
    let (_, reader) = always(Act::Longer(0));
    gives(&reader, SIZE, SIZE - 1..SIZE).await;

    let (_, reader) = always(Act::Endless);
    gives(&reader, SIZE, SIZE - 1..SIZE).await;
    let source = Source::new(|_, _| Act::Endless);
    source.add(SIZE);
    source.shorten(SIZE, SIZE - 1);
    let reader = super::source::reader(&Arc::new(source), options());
    let error = fails(&reader, SIZE, SIZE - 1..SIZE).await;
    assert!(matches!(error, ReadError::Corrupt { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_fails_the_waiters_and_nobody_else() {
    let (source, reader) = scripted(&[Act::Panic(BLOCK)]);
    let blob = reader.open(digest(SIZE), SIZE);
    let (one, two) = futures::join!(blob.read_at(0..2 * BLOCK), blob.read_at(0..BLOCK));
    assert!(matches!(one, Err(ReadError::Aborted { .. })));
    assert_eq!(two.unwrap(), pattern(0..BLOCK));
    gives(&reader, SIZE, 0..2 * BLOCK).await;
    assert_eq!(source.ranges(), [0..2 * BLOCK, BLOCK..2 * BLOCK]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_goes_away_takes_nothing_from_others() {
    let late = Act::Late(Duration::from_secs(1));
    let (source, reader) = always(late);
    let blob = reader.open(digest(SIZE), SIZE);
    let other = blob.clone();
    let first = tokio::spawn(async move { other.read_at(0..2 * BLOCK).await });
    let_run().await;
    let other = blob.clone();
    let second = tokio::spawn(async move { other.read_at(BLOCK..3 * BLOCK).await });
    let_run().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(second.await.unwrap().unwrap(), pattern(BLOCK..3 * BLOCK));
    assert_eq!(source.ranges(), [0..2 * BLOCK, 2 * BLOCK..3 * BLOCK]);
    assert_eq!(
        blob.try_read(0..1).unwrap(),
        pattern(0..1),
        "what was begun is kept"
    );
}

#[test]
fn the_end_of_the_runtime_ends_reads() {
    let fetching = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let source = Source::new(|_, _| Act::Hang);
    source.add(SIZE);
    let reader = Reader::new(Arc::new(source), options(), fetching.handle().clone());
    let blob = reader.open(digest(SIZE), SIZE);
    let other = blob.clone();
    let reading = || Builder::new_current_thread().build().unwrap();
    let waiting = std::thread::spawn(move || reading().block_on(other.read_at(0..1)));
    while reader.shared().flights.len() == 0 {
        std::thread::yield_now();
    }
    drop(fetching);
    assert!(matches!(
        waiting.join().unwrap(),
        Err(ReadError::Aborted { .. })
    ));
    let after = reading().block_on(blob.read_at(0..1));
    assert!(matches!(after, Err(ReadError::Aborted { .. })));
    assert_eq!(reader.shared().flights.len(), 0);
}

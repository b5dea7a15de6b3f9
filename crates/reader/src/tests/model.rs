//! Random reads by many tasks under random faults, against the bytes there should be.

use std::sync::Arc;
use std::time::Duration;

use farseek_store::{FsOptions, FsRepository};
use proptest::prelude::*;
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep, timeout};

use super::source::{
    Act, BLOCK, Random, Source, digest, let_run, options, pattern, reader, unavailable,
};
use crate::disk::DiskOptions;
use crate::error::ReadError;
use crate::options::{Promote, ReaderOptions};
use crate::trust::Verify;

const SIZES: [u64; 8] = [0, 1, 700, 4096, 4097, 20_000, 37 * BLOCK + 11, 150 * BLOCK];
const STALL: Duration = Duration::from_secs(30);

/// What happens to a request: mostly nothing, and never anything that gives wrong bytes of
/// payloads that nobody can verify.
fn act(seed: u64, nth: usize) -> Act {
    let mut random = Random(seed ^ (nth as u64) << 32);
    let bytes = random.below(3 * BLOCK);
    match random.below(24) {
        0 => Act::Break(bytes),
        1 => Act::End(bytes),
        2 => Act::Whole,
        3 => Act::Endless,
        4 => Act::WholeBreak(bytes * 8),
        5 => Act::Late(Duration::from_millis(bytes)),
        6 => Act::Refuse(unavailable),
        7 => Act::Stall(bytes),
        8 => Act::Hang,
        9 => Act::Panic(bytes),
        10 => Act::Overrun(bytes as usize),
        _ => Act::Serve,
    }
}

/// One task's reads: right, or a fault that was injected; never late.
async fn read_some(reader: crate::reader::Reader, seed: u64) -> usize {
    let mut random = Random(seed);
    let mut served = 0;
    for _ in 0..30 {
        let size = SIZES[random.below(SIZES.len() as u64) as usize];
        let blob = reader.open(digest(size), size);
        let start = random.below(size + 10);
        let end = start + random.below(12 * BLOCK);
        let expected = pattern(start.min(size)..end.min(size));
        if let Some(read) = blob.try_read(start..end) {
            assert_eq!(read, expected);
        }
        let patience = Duration::from_millis(random.below(4) * 50);
        if !patience.is_zero() && random.below(4) == 0 {
            // A reader that is killed.
            if let Ok(Ok(read)) = timeout(patience, blob.read_at(start..end)).await {
                assert_eq!(read, expected);
            }
            continue;
        }
        let begun = Instant::now();
        match blob.read_at(start..end).await {
            Ok(read) => {
                assert_eq!(read, expected);
                served += 1;
            }
            Err(
                ReadError::Stalled { .. }
                | ReadError::Unavailable { .. }
                | ReadError::Aborted { .. }
                | ReadError::Corrupt { .. },
            ) => {}
            Err(error) => panic!("{error}"),
        }
        // One request at a time, and some before it hang: each of them for a whole deadline.
        assert!(begun.elapsed() <= 40 * STALL, "{:?}", begun.elapsed());
        sleep(Duration::from_millis(random.below(100))).await;
    }
    served
}

async fn run(seed: u64, options: ReaderOptions) {
    let source = Source::new(move |nth, _| act(seed, nth));
    for size in SIZES {
        source.add(size);
    }
    let reader = reader(
        &Arc::new(source.paced(2500, Duration::from_millis(2))),
        ReaderOptions {
            in_flight_max_bytes: 40 * BLOCK,
            ..options
        },
    );
    let tasks: Vec<_> = (0..12)
        .map(|task| tokio::spawn(read_some(reader.clone(), seed ^ task)))
        .collect();
    let mut served = 0;
    for task in tasks {
        served += task.await.unwrap();
    }
    assert!(served > 100, "most reads are served: {served}");
    // What was begun for readers that are gone has its deadline, too.
    sleep(40 * STALL).await;
    reader.settle().await;
    let_run().await;
    assert_eq!(reader.stats().condemned, 0);
    assert_eq!(reader.shared().flights.len(), 0);
    assert_eq!(reader.stats().bytes_in_flight, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn reads_are_right_under_any_faults(
        seed: u64, cache_blocks in prop_oneof![Just(0u64), 1u64..40, Just(1000)],
        max_fetches in 1usize..20,
    ) {
        let runtime =
            Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let options = ReaderOptions {
            blob_cache_max_bytes: cache_blocks * BLOCK,
            max_fetches,
            ..options()
        };
        runtime.block_on(run(seed, options));
    }

    /// With a disk that is too small for all, readahead, and a local repository.
    #[test]
    fn reads_are_right_with_every_tier(
        seed: u64, cache_blocks in 0u64..100, disk_blocks in 20u64..300, ahead: bool,
        promote in prop_oneof![Just(Promote::Complete), Just(Promote::OnSeek), Just(Promote::Never)],
        verify in prop_oneof![Just(Verify::Auto), Just(Verify::Strict), Just(Verify::Off)],
    ) {
        let dir = tempfile::TempDir::new().unwrap();
        let local = FsRepository::create(&dir.path().join("local"), FsOptions::default()).unwrap();
        let disk = DiskOptions {
            max_bytes: disk_blocks * BLOCK,
            keep_free_percent: 0,
            max_open: 3,
            ..DiskOptions::new(dir.path().join("cache"))
        };
        let options = ReaderOptions {
            blob_cache_max_bytes: cache_blocks * BLOCK,
            blob_cache_max_single_bytes: 100 * BLOCK,
            readahead_max_bytes: if ahead { 64 * BLOCK } else { 0 },
            max_fetches: 8,
            disk: Some(disk),
            local: Some(Arc::new(local)),
            promote,
            verify,
            ..options()
        };
        let runtime =
            Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(seed, options));
    }
}

/// The same with threads and real time, for what only they show.
#[test]
fn many_threads_read_right() {
    let source = Source::new(|nth, _| match nth % 7 {
        3 => Act::Break(5000),
        5 => Act::Whole,
        _ => Act::Serve,
    });
    for size in SIZES {
        source.add(size);
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    let options = ReaderOptions {
        blob_cache_max_bytes: 60 * BLOCK,
        retry: farseek_store::Backoff {
            first: Duration::from_millis(1),
            attempts: 50,
            ..farseek_store::Backoff::default()
        },
        ..options()
    };
    let (reader, tasks) = runtime.block_on(async {
        let reader = reader(&Arc::new(source), options);
        let tasks = (0..16u64).map(|seed| {
            let reader = reader.clone();
            tokio::spawn(async move {
                let mut random = Random(seed);
                for _ in 0..150 {
                    let size = SIZES[random.below(SIZES.len() as u64) as usize];
                    let start = random.below(size);
                    let end = (start + random.below(9 * BLOCK)).min(size);
                    let read = reader.open(digest(size), size).read_at(start..end).await;
                    assert_eq!(read.unwrap(), pattern(start..end));
                }
            })
        });
        (
            reader.clone(),
            futures::future::join_all(tasks.collect::<Vec<_>>()).await,
        )
    });
    for task in tasks {
        task.unwrap();
    }
    drop(runtime);
    assert_eq!(reader.shared().flights.len(), 0);
}

/// The race between a look into the cache, a claim, and the end of the fetch before it.
#[test]
fn no_block_is_fetched_twice() {
    let size = 150 * BLOCK;
    let runtime = Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    for seed in 0..20u64 {
        let source = Source::good();
        source.add(size);
        let source = Arc::new(source);
        let reader = runtime.block_on(async { reader(&source, options()) });
        let tasks = (0..16u64).map(|task| {
            let blob = reader.open(digest(size), size);
            runtime.spawn(async move {
                let mut random = Random(seed);
                for _ in 0..200 {
                    let start = random.below(size - 1);
                    let end = start + 1 + (random.below(2 * BLOCK) ^ task);
                    blob.read_at(start..end).await.unwrap();
                }
            })
        });
        let tasks: Vec<_> = tasks.collect();
        runtime
            .block_on(futures::future::join_all(tasks))
            .into_iter()
            .for_each(Result::unwrap);
        let mut asked: Vec<_> = source.ranges();
        asked.sort_by_key(|range| range.start);
        assert!(
            asked.windows(2).all(|pair| pair[0].end <= pair[1].start),
            "{asked:?}"
        );
        assert!(asked.len() > 10);
    }
}

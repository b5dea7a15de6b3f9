//! Memory stays inside its limits, whatever is read.

use std::sync::Arc;
use std::time::Duration;

use super::source::{BLOCK, Random, Source, digest, options, pattern, reader};
use crate::options::ReaderOptions;

const CACHE: u64 = 40 * BLOCK;
const IN_FLIGHT: u64 = 32 * BLOCK;

#[tokio::test(start_paused = true)]
async fn cache_and_flight_stay_inside_their_budgets() {
    let sizes = [1, 100, 4096, 5000, 40 * BLOCK, 999 * BLOCK + 1, 30_000_000];
    let source = Source::good().paced(3000, Duration::from_millis(3));
    for size in sizes {
        source.add(size);
    }
    let reader = reader(
        &Arc::new(source),
        ReaderOptions {
            blob_cache_max_bytes: CACHE,
            in_flight_max_bytes: IN_FLIGHT,
            max_fetches: 32,
            ..options()
        },
    );
    let tasks: Vec<_> = (0..16u64)
        .map(|seed| {
            let reader = reader.clone();
            tokio::spawn(async move {
                let mut random = Random(seed);
                for _ in 0..25 {
                    let size = sizes[random.below(sizes.len() as u64) as usize];
                    let start = random.below(size);
                    let end = (start + random.below(20 * BLOCK)).min(size);
                    let read = reader.open(digest(size), size).read_at(start..end).await;
                    assert_eq!(read.unwrap(), pattern(start..end));
                }
            })
        })
        .collect();
    let mut most = (0, 0);
    while !tasks.iter().all(|task| task.is_finished()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let stats = reader.stats();
        most = (
            most.0.max(stats.bytes_cached),
            most.1.max(stats.bytes_in_flight),
        );
        assert!(stats.bytes_cached <= CACHE, "{}", stats.bytes_cached);
        assert!(
            stats.bytes_in_flight <= IN_FLIGHT,
            "{}",
            stats.bytes_in_flight
        );
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert!(
        most.0 > CACHE * 3 / 4 && most.1 > IN_FLIGHT / 2,
        "the limits were reached: {most:?}"
    );
    assert_eq!(reader.stats().bytes_in_flight, 0);
    assert_eq!(reader.shared().flights.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_long_transfer_holds_no_more_than_the_cache() {
    let size = 1000 * BLOCK;
    let source = Source::new(|_, _| super::source::Act::Whole).paced(10 * BLOCK, Duration::ZERO);
    source.add(size);
    let options = ReaderOptions {
        blob_cache_max_bytes: CACHE,
        ..options()
    };
    let reader = reader(&Arc::new(source), options);
    let blob = reader.open(digest(size), size);
    for at in [size - 1, 0, size / 2] {
        assert_eq!(blob.read_at(at..at + 1).await.unwrap(), pattern(at..at + 1));
        assert!(reader.stats().bytes_cached <= 3 * (BLOCK + 256));
    }
}

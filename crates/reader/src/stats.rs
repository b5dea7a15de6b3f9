//! Plain counters of what a reader did.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farseek_object::Digest;

use crate::disk::DiskStats;

/// The slowest fetches that are remembered.
const SLOWEST: usize = 8;

/// The sources whose errors are counted apart; those of further ones are counted together.
const SOURCES: usize = 16;

/// The name under which the errors of further sources are counted.
const OTHER_SOURCES: &str = "others";

/// What a reader has done since it was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Blocks answered from memory.
    pub hits_memory: u64,
    /// Blocks that were read from the disk tier for whoever asked first.
    pub hits_disk: u64,
    /// Blocks that were neither in memory nor under way when somebody asked for them.
    pub misses: u64,
    /// Blocks that somebody else was fetching already.
    pub joined: u64,
    /// Requests made of sources, repeated ones included.
    pub fetches: u64,
    /// Bytes that readers asked for.
    pub bytes_asked: u64,
    /// Bytes that the requests asked for.
    pub bytes_requested: u64,
    /// Bytes that came, wanted or not.
    pub bytes_fetched: u64,
    /// Requests that repeat a failed one.
    pub retries: u64,
    /// Fetches that failed for good.
    pub errors: u64,
    /// Of those, how many by each source.
    pub errors_by_source: Vec<(String, u64)>,
    /// Bytes that were asked for ahead of any reader.
    pub readahead_bytes: u64,
    /// Of those, bytes that nobody has read when their reader went elsewhere.
    pub readahead_wasted: u64,
    /// Payloads that became local ones.
    pub promotions: u64,
    /// Payloads that could not become local ones.
    pub promotion_failures: u64,
    /// Payloads that turned out to be false as a whole.
    pub condemned: u64,
    /// Blocks that the disk tier was too slow to be given.
    pub writes_dropped: u64,
    /// Bytes of the budget for fetches in flight that are taken now.
    pub bytes_in_flight: u64,
    /// Bytes of blocks in memory now.
    pub bytes_cached: u64,
    /// Bytes of blocks that wait to be written to the disk now.
    pub bytes_unwritten: u64,
    /// What the disk tier did.
    pub disk: DiskStats,
    /// The slowest fetches, slowest first.
    pub slowest: Vec<SlowFetch>,
}

/// A fetch that took long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowFetch {
    /// The payload.
    pub digest: Digest,
    /// The file or URL.
    pub location: String,
    /// How long it took, from the request to the last byte.
    pub millis: u64,
    /// The bytes that came.
    pub bytes: u64,
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits_memory: Counter,
    pub(crate) hits_disk: Counter,
    pub(crate) misses: Counter,
    pub(crate) joined: Counter,
    pub(crate) fetches: Counter,
    pub(crate) bytes_asked: Counter,
    pub(crate) bytes_requested: Counter,
    pub(crate) bytes_fetched: Counter,
    pub(crate) retries: Counter,
    pub(crate) errors: Counter,
    pub(crate) readahead_bytes: Counter,
    pub(crate) readahead_wasted: Counter,
    pub(crate) promotions: Counter,
    pub(crate) promotion_failures: Counter,
    pub(crate) condemned: Counter,
    pub(crate) writes_dropped: Counter,
    /// Taken alone, as is the next.
    by_source: Mutex<BTreeMap<String, u64>>,
    slowest: Mutex<Vec<SlowFetch>>,
}

impl Counters {
    /// The counts now; what is a level and no count is zero.
    pub(crate) fn snapshot(&self) -> Stats {
        Stats {
            hits_memory: self.hits_memory.get(),
            hits_disk: self.hits_disk.get(),
            misses: self.misses.get(),
            joined: self.joined.get(),
            fetches: self.fetches.get(),
            bytes_asked: self.bytes_asked.get(),
            bytes_requested: self.bytes_requested.get(),
            bytes_fetched: self.bytes_fetched.get(),
            retries: self.retries.get(),
            errors: self.errors.get(),
            errors_by_source: lock(&self.by_source).clone().into_iter().collect(),
            readahead_bytes: self.readahead_bytes.get(),
            readahead_wasted: self.readahead_wasted.get(),
            promotions: self.promotions.get(),
            promotion_failures: self.promotion_failures.get(),
            condemned: self.condemned.get(),
            writes_dropped: self.writes_dropped.get(),
            slowest: lock(&self.slowest).clone(),
            ..Stats::default()
        }
    }

    /// Counts a fetch that failed for good.
    pub(crate) fn count_error(&self, location: &str) {
        self.errors.add(1);
        let mut by_source = lock(&self.by_source);
        let full = by_source.len() >= SOURCES && !by_source.contains_key(location);
        let location = if full { OTHER_SOURCES } else { location };
        *by_source.entry(location.to_owned()).or_default() += 1;
    }

    /// Notes how long a fetch took, if it is one of the slowest.
    pub(crate) fn note_fetch(&self, digest: Digest, location: &str, took: Duration, bytes: u64) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let mut slowest = lock(&self.slowest);
        let place = slowest.partition_point(|known| known.millis >= millis);
        if place >= SLOWEST {
            return;
        }
        let fetch = SlowFetch {
            digest,
            location: location.to_owned(),
            millis,
            bytes,
        };
        slowest.insert(place, fetch);
        slowest.truncate(SLOWEST);
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_few_are_kept_in_order() {
        let counters = Counters::default();
        for millis in (0..100).map(|n| n * 37 % 100) {
            counters.note_fetch(Digest::EMPTY, "there", Duration::from_millis(millis), 1);
        }
        let millis: Vec<_> = counters
            .snapshot()
            .slowest
            .iter()
            .map(|f| f.millis)
            .collect();
        assert_eq!(millis, [99, 98, 97, 96, 95, 94, 93, 92]);
    }

    #[test]
    fn errors_of_many_sources_are_bounded() {
        let counters = Counters::default();
        for n in 0..100 {
            counters.count_error(&format!("source {n}"));
            counters.count_error("source 0");
        }
        let stats = counters.snapshot();
        assert_eq!(stats.errors, 200);
        assert_eq!(stats.errors_by_source.len(), SOURCES + 1);
        assert!(
            stats
                .errors_by_source
                .contains(&("source 0".to_owned(), 101))
        );
        assert!(
            stats
                .errors_by_source
                .contains(&(OTHER_SOURCES.to_owned(), 84))
        );
    }
}

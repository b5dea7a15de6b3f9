//! Plain counters of what a reader did.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a reader has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Blocks answered from memory.
    pub hits: u64,
    /// Blocks that were fetched for whoever asked first.
    pub misses: u64,
    /// Blocks that somebody else was fetching already.
    pub joined: u64,
    /// Requests made, repeated ones included.
    pub fetches: u64,
    /// Bytes those requests asked for.
    pub bytes_asked: u64,
    /// Bytes that came, wanted or not.
    pub bytes_fetched: u64,
    /// Requests that repeat a failed one.
    pub retries: u64,
    /// Fetches that failed for good.
    pub errors: u64,
    /// Bytes of the budget for fetches in flight that are taken now.
    pub bytes_in_flight: u64,
    /// Bytes of blocks in memory now.
    pub bytes_cached: u64,
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) joined: Counter,
    pub(crate) fetches: Counter,
    pub(crate) bytes_asked: Counter,
    pub(crate) bytes_fetched: Counter,
    pub(crate) retries: Counter,
    pub(crate) errors: Counter,
}

impl Counters {
    /// The counts now; what is a level and no count is zero.
    pub(crate) fn snapshot(&self) -> Stats {
        Stats {
            hits: self.hits.get(),
            misses: self.misses.get(),
            joined: self.joined.get(),
            fetches: self.fetches.get(),
            bytes_asked: self.bytes_asked.get(),
            bytes_fetched: self.bytes_fetched.get(),
            retries: self.retries.get(),
            errors: self.errors.get(),
            bytes_in_flight: 0,
            bytes_cached: 0,
        }
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

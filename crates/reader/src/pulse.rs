//! When the last byte came, over all fetches of a reader.
//!
//! A fetch that waits for its turn has no progress of its own; it waits as long as those before
//! it have some.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The time of the last progress.
#[derive(Debug)]
pub(crate) struct Pulse {
    epoch: Instant,
    /// Nanoseconds since `epoch`: 584 years of them.
    last: AtomicU64,
}

impl Pulse {
    /// Starts with progress now.
    pub(crate) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    /// Bytes have come: the time of it.
    pub(crate) fn beat(&self) -> Instant {
        let now = Instant::now();
        let nanos = u64::try_from((now - self.epoch).as_nanos()).unwrap_or(u64::MAX);
        self.last.fetch_max(nanos, Ordering::Relaxed);
        now
    }

    /// When bytes came last.
    pub(crate) fn last(&self) -> Instant {
        self.epoch + Duration::from_nanos(self.last.load(Ordering::Relaxed))
    }
}

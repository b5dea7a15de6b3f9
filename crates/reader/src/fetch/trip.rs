//! One request, as time goes by: what there is to learn from it.

use std::sync::Arc;

use farseek_object::Digest;
use tokio::time::Instant;

use crate::shared::Shared;

/// Shorter answers say little about how fast bytes come.
const TELLING: u64 = 64 << 10;

/// A request and its answer.
pub(super) struct Trip {
    begun: Instant,
    /// When its first byte came.
    first: Option<Instant>,
    bytes: u64,
    /// One of those that every trip holds while it is under way.
    under_way: Arc<()>,
}

impl Trip {
    /// The request is made now.
    pub(super) fn begin(shared: &Shared) -> Self {
        Self {
            begun: Instant::now(),
            first: None,
            bytes: 0,
            under_way: Arc::clone(&shared.trips),
        }
    }

    /// Bytes have come.
    pub(super) fn note(&mut self, now: Instant, bytes: usize) {
        self.first.get_or_insert(now);
        self.bytes += bytes as u64;
    }

    /// The last of them has come: tells how long it took, and how fast they came.
    pub(super) fn end(&self, shared: &Shared, digest: Digest, location: &str) {
        let took = self.begun.elapsed();
        shared
            .counters
            .note_fetch(digest, location, took, self.bytes);
        if let Some(first) = self.first.filter(|_| self.bytes >= TELLING) {
            // Those under way share the link, about evenly, and each of them sees its part alone.
            let at_once = Arc::strong_count(&self.under_way).saturating_sub(1) as u64;
            let carried = self.bytes.saturating_mul(at_once.max(1));
            shared.observe(first - self.begun, carried, first.elapsed());
        }
    }
}

//! One request, as time goes by: what there is to learn from it.

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
}

impl Trip {
    /// The request is made now.
    pub(super) fn begin() -> Self {
        Self {
            begun: Instant::now(),
            first: None,
            bytes: 0,
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
            shared.observe(first - self.begun, self.bytes, first.elapsed());
        }
    }
}

//! What can be set on a reader.

use std::time::Duration;

use farseek_store::Backoff;

use crate::block::BlockSize;

/// The longest deadline: longer ones would overflow clocks, and nobody waits for them.
const STALL_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// The limits of a [`Reader`](crate::Reader).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderOptions {
    /// Bytes in a block: the least that is fetched of a payload that is not whole.
    pub block_size: BlockSize,
    /// Payloads of at most so many bytes (or of one block) are fetched whole and verified
    /// before their first byte is served.
    pub whole_fetch_max_bytes: u64,
    /// Bytes of blocks kept in memory.
    pub blob_cache_max_bytes: u64,
    /// Bytes that fetches may hold besides.
    pub in_flight_max_bytes: u64,
    /// Requests at once; half of them are kept for small payloads.
    pub max_fetches: usize,
    /// Bytes one request asks for at most, unless a block or a whole payload is larger.
    pub fetch_max_bytes: u64,
    /// How long to wait for the next byte before a read fails.
    pub stall: Duration,
    /// How long a block that could not be fetched fails at once for whoever asks again. The
    /// kernel asks a second time for what its readahead did not get, and would wait twice.
    pub failure_memory: Duration,
    /// How failures are retried. A block that has come whole starts the count of attempts again;
    /// the deadline is [`stall`](Self::stall), whatever this says.
    pub retry: Backoff,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self {
            block_size: BlockSize::default(),
            whole_fetch_max_bytes: 1 << 20,
            blob_cache_max_bytes: 256 << 20,
            in_flight_max_bytes: 64 << 20,
            max_fetches: 64,
            fetch_max_bytes: 4 << 20,
            stall: Duration::from_secs(30),
            failure_memory: Duration::from_secs(2),
            retry: Backoff::default(),
        }
    }
}

impl ReaderOptions {
    /// Bounds what would overflow or could never be met.
    pub(crate) fn normalised(self) -> Self {
        let stall = self.stall.min(STALL_MAX);
        Self {
            stall,
            retry: Backoff {
                deadline: stall,
                ..self.retry
            },
            fetch_max_bytes: self.fetch_max_bytes.min(self.in_flight_max_bytes),
            ..self
        }
    }
}

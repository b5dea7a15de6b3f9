//! What can be set on a reader.

use std::sync::Arc;
use std::time::Duration;

use farseek_store::{Backoff, Repository, STALL_MAX};

use crate::block::BlockSize;
use crate::disk::DiskOptions;
use crate::trust::Verify;

/// When a payload becomes one of the local repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Promote {
    /// As soon as all of it is here.
    #[default]
    Complete,
    /// Who streams it from its start does so through memory alone, and nothing is written to the
    /// disk. At the first real seek the rest is fetched in the background, and it becomes local.
    /// So does, at once, what does not fit in memory of a source that sends all whatever is asked.
    OnSeek,
    /// Never.
    Never,
}

/// The limits of a [`Reader`](crate::Reader).
#[derive(Debug, Clone)]
pub struct ReaderOptions {
    /// Bytes in a block: the least that is fetched of a payload that is not whole.
    pub block_size: BlockSize,
    /// Payloads of at most so many bytes (or of one block) are fetched whole and verified
    /// before their first byte is served.
    pub whole_fetch_max_bytes: u64,
    /// Bytes of blocks kept in memory.
    pub blob_cache_max_bytes: u64,
    /// Blocks of larger payloads than this stay in memory only until they have been read.
    pub blob_cache_max_single_bytes: u64,
    /// Bytes that fetches may hold besides.
    pub in_flight_max_bytes: u64,
    /// Requests at once; half of them are kept for small payloads.
    pub max_fetches: usize,
    /// Bytes one request asks for at most, unless a block or a whole payload is larger.
    pub fetch_max_bytes: u64,
    /// How far ahead of a reader that reads on and on is fetched, at most. 0 turns that off.
    pub readahead_max_bytes: u64,
    /// Bytes that are fetched ahead and not yet read, of all payloads together; at most half of
    /// what is kept in memory.
    pub readahead_budget_bytes: u64,
    /// What is hashed before it is served.
    pub verify: Verify,
    /// When a payload becomes one of [`local`](Self::local).
    pub promote: Promote,
    /// Where blocks are kept on the disk; `None` means nowhere.
    pub disk: Option<DiskOptions>,
    /// Threads that may wait in [`try_read`](crate::BlobReader::try_read) for a disk of this machine at
    /// a time: fewer than ask, so that one of them is always there for what waits for nothing.
    pub reads_here: usize,
    /// The repository that complete, verified payloads become part of; `None` means that none
    /// do. What it has is read from it, before any other.
    pub local: Option<Arc<dyn Repository>>,
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
            blob_cache_max_single_bytes: 64 << 20,
            in_flight_max_bytes: 64 << 20,
            max_fetches: 64,
            fetch_max_bytes: 4 << 20,
            readahead_max_bytes: 32 << 20,
            readahead_budget_bytes: 64 << 20,
            verify: Verify::default(),
            promote: Promote::default(),
            disk: None,
            reads_here: 0,
            local: None,
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
        let kept = self.blob_cache_max_bytes / 2;
        Self {
            stall,
            retry: Backoff {
                deadline: stall,
                ..self.retry
            },
            fetch_max_bytes: self.fetch_max_bytes.min(self.in_flight_max_bytes),
            readahead_budget_bytes: self.readahead_budget_bytes.min(kept),
            ..self
        }
    }

    /// Whether anything is fetched ahead of readers.
    pub(crate) fn reads_ahead(&self) -> bool {
        self.readahead_max_bytes.min(self.readahead_budget_bytes) > 0
    }
}

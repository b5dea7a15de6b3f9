//! What all readers, handles and fetches of one process share.

use std::sync::Arc;

use bytes::Bytes;
use farseek_store::Repository;
use tokio::runtime::Handle;

use crate::block::{BlockKey, Layout};
use crate::cache::BlockCache;
use crate::flight::Flights;
use crate::gate::Gates;
use crate::lane::Lanes;
use crate::options::ReaderOptions;
use crate::pulse::Pulse;
use crate::stats::{Counters, Stats};

/// The state behind a [`Reader`](crate::Reader).
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) repository: Arc<dyn Repository>,
    pub(crate) options: ReaderOptions,
    pub(crate) runtime: Handle,
    pub(crate) cache: BlockCache,
    pub(crate) flights: Arc<Flights>,
    pub(crate) gates: Gates,
    pub(crate) lanes: Lanes,
    pub(crate) pulse: Pulse,
    pub(crate) counters: Counters,
}

impl Shared {
    pub(crate) fn new(
        repository: Arc<dyn Repository>,
        options: ReaderOptions,
        runtime: Handle,
    ) -> Self {
        let options = options.normalised();
        Self {
            cache: BlockCache::new(options.blob_cache_max_bytes),
            flights: Arc::new(Flights::new(options.failure_memory)),
            gates: Gates::new(&options),
            lanes: Lanes::default(),
            pulse: Pulse::new(),
            counters: Counters::default(),
            repository,
            options,
            runtime,
        }
    }

    /// How a payload of `size` bytes is cut here.
    pub(crate) fn layout(&self, size: u64) -> Layout {
        Layout::new(
            size,
            self.options.block_size,
            self.options.whole_fetch_max_bytes,
        )
    }

    /// Gives a block to whoever waits for it, and keeps it. The cache comes first: see
    /// [`flight`](crate::flight).
    pub(crate) fn deliver(&self, key: BlockKey, block: Bytes) {
        self.cache.insert(key, block.clone());
        self.flights.land(&key, block);
    }

    /// The counters and levels now.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            bytes_in_flight: self.gates.taken(),
            bytes_cached: self.cache.bytes(),
            ..self.counters.snapshot()
        }
    }
}

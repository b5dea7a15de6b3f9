//! What all readers, handles and fetches of one process share.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::mem::Discriminant;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farseek_store::{Repository, StoreError};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use crate::background::Background;
use crate::block::{BlockKey, Layout, PayloadId};
use crate::cache::BlockCache;
use crate::disk::DiskTier;
use crate::error::ReadError;
use crate::flight::Flights;
use crate::gate::{Gate, Gates};
use crate::lane::Lanes;
use crate::ledger::Ledger;
use crate::options::{Promote, ReaderOptions};
use crate::payload::PayloadState;
use crate::pulse::Pulse;
use crate::queue::{PromotionQueue, WriteQueue};
use crate::readahead::Link;
use crate::recent::Recent;
use crate::stats::{Counters, Stats};
use crate::trust::Block;

/// Payloads whose state is kept. That of others is found out again.
const STATES: u64 = 4096;

/// Bytes of large payloads' blocks that count as just read.
const RECENT_BYTES: u64 = 16 << 20;

/// Blocks of them at least: the kernel's requests for one reader come a few at a time.
const RECENT_BLOCKS: usize = 8;

/// How long the disk tier may take to answer. A source is faster than a disk that takes longer.
const DISK_PATIENCE: Duration = Duration::from_secs(5);

/// Payloads hashed as a whole at a time.
const FINISHING: usize = 2;

/// The state behind a [`Reader`](crate::Reader).
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) repository: Arc<dyn Repository>,
    pub(crate) options: ReaderOptions,
    pub(crate) runtime: Handle,
    pub(crate) cache: BlockCache,
    pub(crate) recent: Recent,
    pub(crate) disk: Option<Arc<DiskTier>>,
    pub(crate) unwritten: WriteQueue,
    pub(crate) flights: Arc<Flights>,
    pub(crate) gates: Gates,
    pub(crate) lanes: Lanes,
    pub(crate) ledger: Ledger,
    /// Taken alone.
    link: Mutex<Link>,
    /// Held by every request under way, so that they can be counted.
    pub(crate) trips: Arc<()>,
    pub(crate) pulse: Pulse,
    pub(crate) background: Background,
    pub(crate) finishing: Arc<Semaphore>,
    /// Held by those who wait for the disk on the thread that was asked.
    pub(crate) reading_here: Semaphore,
    /// What passes over whole payloads may hold in memory.
    pub(crate) passing: Gate,
    pub(crate) promoting: PromotionQueue,
    pub(crate) counters: Counters,
    states: Cache<PayloadId, Arc<PayloadState>>,
    /// Payloads that turned out to be false, and why. Taken alone.
    condemned: Mutex<HashMap<PayloadId, ReadError>>,
    /// The kinds of failed promotions that were warned of. Taken alone.
    warned: Mutex<HashSet<Discriminant<StoreError>>>,
}

impl Shared {
    pub(crate) fn new(
        repository: Arc<dyn Repository>,
        options: ReaderOptions,
        runtime: Handle,
    ) -> Self {
        let options = options.normalised();
        let recent = usize::try_from(RECENT_BYTES / options.block_size.bytes()).unwrap_or(0);
        let states = Cache::builder()
            .max_capacity(STATES)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self {
            cache: BlockCache::new(options.blob_cache_max_bytes),
            recent: Recent::new(recent.max(RECENT_BLOCKS)),
            disk: options.disk.clone().map(DiskTier::new).map(Arc::new),
            unwritten: WriteQueue::default(),
            flights: Arc::new(Flights::new(options.failure_memory)),
            gates: Gates::new(&options),
            lanes: Lanes::default(),
            ledger: Ledger::new(options.readahead_budget_bytes),
            link: Mutex::default(),
            trips: Arc::default(),
            pulse: Pulse::new(),
            background: Background::new(),
            passing: Gate::new(1, options.in_flight_max_bytes / 2),
            finishing: Arc::new(Semaphore::new(FINISHING)),
            reading_here: Semaphore::new(options.reads_here),
            promoting: PromotionQueue::default(),
            counters: Counters::default(),
            states,
            condemned: Mutex::default(),
            warned: Mutex::default(),
            repository,
            options,
            runtime,
        }
    }

    /// The state of a payload.
    pub(crate) fn state(&self, id: PayloadId) -> Arc<PayloadState> {
        if let Some(state) = self.states.get(&id) {
            return state;
        }
        self.states.get_with(id, || {
            let condemned = lock(&self.condemned).contains_key(&id);
            Arc::new(PayloadState::new(id, self.layout(id.size), condemned))
        })
    }

    /// How a payload of `size` bytes is cut here.
    fn layout(&self, size: u64) -> Layout {
        Layout::new(
            size,
            self.options.block_size,
            self.options.whole_fetch_max_bytes,
        )
    }

    /// Gives a block to whoever waits for it, and keeps it in memory where it may be served. The
    /// cache comes first: see [`flight`](crate::flight).
    pub(crate) fn deliver(&self, key: BlockKey, block: Block) {
        if let Some(servable) = self.options.verify.admit(block.clone()) {
            self.cache.insert(key, servable);
        }
        self.flights.land(&key, block);
    }

    /// Whether blocks of this payload stay in memory after they have been read.
    pub(crate) fn stays_in_memory(&self, state: &PayloadState) -> bool {
        state.layout.size() <= self.options.blob_cache_max_single_bytes
    }

    /// Whether all of this payload may stay in memory.
    pub(crate) fn fits_in_memory(&self, state: &PayloadState) -> bool {
        self.stays_in_memory(state) && self.cache.has_room_for(state.layout.size())
    }

    /// Notes that a block was read, so that those of large payloads go in time.
    pub(crate) fn note_read(&self, state: &PayloadState, key: BlockKey) {
        if !self.stays_in_memory(state)
            && let Some(old) = self.recent.note(key)
        {
            self.cache.remove(&old);
        }
    }

    /// The disk tier, where blocks of this payload are looked for in it.
    pub(crate) fn disk_of(&self, state: &PayloadState) -> Option<&Arc<DiskTier>> {
        let disk = self.disk.as_ref()?;
        (!state.is_local() && state.layout.size() > 0 && !disk.is_off()).then_some(disk)
    }

    /// The disk tier, where blocks of this payload are written to it.
    pub(crate) fn disk_for(&self, state: &PayloadState) -> Option<&Arc<DiskTier>> {
        let streamed = self.options.promote == Promote::OnSeek && !state.is_seeked();
        let wanted = !streamed && !state.is_condemned();
        self.disk_of(state).filter(|_| wanted)
    }

    /// Does `work` where blocking is allowed. `None` where the disk does not answer in time, or
    /// the runtime ends; the disk is then left alone.
    pub(crate) async fn on_disk<T: Send + 'static>(
        disk: &Arc<DiskTier>,
        work: impl FnOnce(&DiskTier) -> T + Send + 'static,
    ) -> Option<T> {
        let working = Arc::clone(disk);
        match timeout(DISK_PATIENCE, spawn_blocking(move || work(&working))).await {
            Ok(done) => done.ok(),
            Err(_) => {
                let disk = Arc::clone(disk);
                spawn_blocking(move || disk.give_up());
                None
            }
        }
    }

    /// Finds out whether the local repository has the payload.
    pub(crate) async fn look_for_local(&self, state: &PayloadState) {
        let Some(local) = self.options.local.as_ref().filter(|_| !state.is_local()) else {
            return;
        };
        if !state.is_due_in_local(Instant::now()) {
            return;
        }
        let size = timeout(DISK_PATIENCE, local.payload_size(&state.id.digest)).await;
        if let Ok(Ok(Some(size))) = size
            && size == state.id.size
        {
            state.set_local(true);
        }
    }

    /// Takes out of reach what turned out to be false. Says so once.
    pub(crate) fn condemn(&self, state: &PayloadState, location: &str, reason: String) {
        let error = ReadError::Corrupt {
            digest: state.id.digest,
            location: location.to_owned(),
            reason,
        };
        lock(&self.condemned).insert(state.id, error.clone());
        if !state.condemn() {
            return;
        }
        self.counters.condemned.add(1);
        tracing::error!(digest = %state.id.digest, location, "condemned: {error}");
        self.cache.remove_payload(&state.id);
        if let Some(disk) = &self.disk {
            disk.quarantine(state.geometry());
        }
    }

    /// Why a condemned payload is refused.
    ///
    /// # Errors
    /// The reason, where it is condemned.
    pub(crate) fn refuse_condemned(&self, state: &PayloadState) -> Result<(), ReadError> {
        if !state.is_condemned() {
            return Ok(());
        }
        match lock(&self.condemned).get(&state.id) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Counts a payload that could not be made local, and warns of each kind of reason once.
    pub(crate) fn note_promotion_failure(&self, state: &PayloadState, error: &StoreError) {
        self.counters.promotion_failures.add(1);
        let (digest, cause) = (state.id.digest, error.source().map(ToString::to_string));
        if lock(&self.warned).insert(std::mem::discriminant(error)) {
            tracing::warn!(%digest, cause, "cannot keep payloads in the local repository: {error}");
        } else {
            tracing::debug!(%digest, cause, "cannot keep a payload: {error}");
        }
    }

    /// What is known of the way to the source.
    pub(crate) fn link(&self) -> Link {
        *lock(&self.link)
    }

    /// Takes a fetch into account: while its body flowed for `flow`, after `latency`, the link
    /// carried `bytes`.
    pub(crate) fn observe(&self, latency: Duration, bytes: u64, flow: Duration) {
        let mut link = lock(&self.link);
        *link = link.observe(latency, bytes, flow);
    }

    /// The counters and levels now.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            bytes_in_flight: self.gates.taken(),
            bytes_cached: self.cache.bytes(),
            bytes_unwritten: self.unwritten.taken(),
            disk: self.disk.as_ref().map(|d| d.stats()).unwrap_or_default(),
            ..self.counters.snapshot()
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

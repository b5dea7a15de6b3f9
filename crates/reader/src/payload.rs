//! What is known of one payload, shared by all its handles.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;

use crate::block::{BlockIndex, BlockKey, Layout, PayloadId};
use crate::disk::Geometry;
use crate::error::ReadError;
use crate::once::Once;
use crate::readahead::Readahead;
use crate::seek::Places;
use crate::trust::{Block, Proof, Provisional, Verify};

/// How long it is taken for granted that the local repository still lacks a payload: another
/// process may make it local at any time, but asking costs as much as a short fetch.
const LOCAL_PAUSE: Duration = Duration::from_secs(1);

/// Work that several wait for, and that fails for all of them alike.
pub(crate) type Errand = Shared<BoxFuture<'static, Result<(), ReadError>>>;

/// One payload.
#[derive(Debug)]
pub(crate) struct PayloadState {
    pub(crate) id: PayloadId,
    pub(crate) layout: Layout,
    /// The end of it: hashed as a whole, promoted or condemned.
    pub(crate) finish: Arc<Once>,
    /// Being fetched as a whole in the background.
    pub(crate) localising: Arc<Once>,
    /// Guards the machine; the ledger's lock may be taken under it.
    pub(crate) readahead: Mutex<Readahead>,
    /// Taken alone.
    pub(crate) places: Mutex<Places>,
    /// Whether somebody has seeked in it, so that it is to become local.
    seeked: AtomicBool,
    /// Whether most of it is on the disk, so that the rest is worth fetching.
    mostly_here: AtomicBool,
    /// Whether the local repository has it.
    local: AtomicBool,
    /// When the local repository was last asked for it. Taken alone.
    local_asked: Mutex<Option<Instant>>,
    /// Whether the disk tier has been asked for it.
    on_disk_asked: AtomicBool,
    condemned: AtomicBool,
    /// Taken alone.
    proof: Mutex<Option<Arc<Proof>>>,
    /// Where its bytes came from last, for messages. Taken alone.
    source: Mutex<Option<Arc<str>>>,
    /// The errand that proves it, while it runs. Taken alone.
    proving: Mutex<Option<Errand>>,
}

impl PayloadState {
    /// A payload nothing is known of, or that is known to be false.
    pub(crate) fn new(id: PayloadId, layout: Layout, condemned: bool) -> Self {
        Self {
            id,
            layout,
            finish: Arc::default(),
            localising: Arc::default(),
            readahead: Mutex::default(),
            places: Mutex::default(),
            seeked: AtomicBool::new(false),
            mostly_here: AtomicBool::new(false),
            local: AtomicBool::new(false),
            local_asked: Mutex::default(),
            on_disk_asked: AtomicBool::new(false),
            condemned: AtomicBool::new(condemned),
            proof: Mutex::default(),
            source: Mutex::default(),
            proving: Mutex::default(),
        }
    }

    /// One of its blocks.
    pub(crate) fn key(&self, index: BlockIndex) -> BlockKey {
        BlockKey {
            payload: self.id,
            index,
        }
    }

    /// How its files in the disk tier are laid out.
    pub(crate) fn geometry(&self) -> Geometry {
        Geometry {
            digest: self.id.digest,
            block_size: self.layout.block_bytes(),
            payload_size: self.layout.size(),
        }
    }

    /// Judges a block that the local repository has not vouched for: hashes it where that can be.
    ///
    /// # Errors
    /// The bytes, where they are known to be false.
    pub(crate) fn judge(
        &self,
        verify: Verify,
        index: BlockIndex,
        block: Provisional,
    ) -> Result<Block, Provisional> {
        if verify == Verify::Off {
            return Ok(Block::Provisional(block));
        }
        if self.layout.is_whole() {
            return block.verify_whole(&self.id.digest).map(Block::Verified);
        }
        match self.proof() {
            Some(proof) => proof.check(index.number(), block).map(Block::Verified),
            None => Ok(Block::Provisional(block)),
        }
    }

    /// Whether [`judge`](Self::judge) has to hash.
    pub(crate) fn is_hashed(&self, verify: Verify) -> bool {
        verify != Verify::Off && (self.layout.is_whole() || self.proof().is_some())
    }

    /// What its blocks hash to, once the whole has been hashed.
    pub(crate) fn proof(&self) -> Option<Arc<Proof>> {
        lock(&self.proof).clone()
    }

    /// The whole has been hashed, and is right.
    pub(crate) fn prove(&self, proof: Proof) {
        *lock(&self.proof) = Some(Arc::new(proof));
    }

    /// Joins the errand that proves it; `start` makes one where none is under way.
    pub(crate) fn join_proving(&self, start: impl FnOnce() -> Errand) -> Errand {
        let mut proving = lock(&self.proving);
        match &*proving {
            Some(errand) => errand.clone(),
            None => proving.insert(start()).clone(),
        }
    }

    /// The errand that proves it has ended: who comes later may start another.
    pub(crate) fn end_proving(&self) {
        *lock(&self.proving) = None;
    }

    /// Whether the local repository has it, as far as is known.
    pub(crate) fn is_local(&self) -> bool {
        self.local.load(Ordering::Relaxed)
    }

    /// The local repository has it, or has it no more.
    pub(crate) fn set_local(&self, local: bool) {
        self.local.store(local, Ordering::Relaxed);
    }

    /// Whether it is time to ask the local repository for it again; notes that it is asked.
    pub(crate) fn is_due_in_local(&self, now: Instant) -> bool {
        let mut asked = lock(&self.local_asked);
        let due = asked.is_none_or(|asked| now - asked >= LOCAL_PAUSE);
        if due {
            *asked = Some(now);
        }
        due
    }

    /// It is time to ask the local repository again, however short a while ago it was asked.
    pub(crate) fn ask_local_again(&self) {
        *lock(&self.local_asked) = None;
    }

    /// Whether somebody has seeked in it.
    pub(crate) fn is_seeked(&self) -> bool {
        self.seeked.load(Ordering::Relaxed)
    }

    /// Somebody has seeked in it.
    pub(crate) fn set_seeked(&self) {
        self.seeked.store(true, Ordering::Relaxed);
    }

    /// Whether most of it is on the disk, and nobody reads on and on: who does gets the rest anyway.
    pub(crate) fn wants_the_rest(&self) -> bool {
        self.mostly_here.load(Ordering::Relaxed) && lock(&self.readahead).outstanding() == 0
    }

    /// Whether most of it is on the disk.
    pub(crate) fn set_mostly_here(&self, mostly: bool) {
        self.mostly_here.store(mostly, Ordering::Relaxed);
    }

    /// Whether this is the first time that the disk tier gave something of it.
    pub(crate) fn is_first_on_disk(&self) -> bool {
        !self.on_disk_asked.swap(true, Ordering::Relaxed)
    }

    /// Whether it has turned out to be false.
    pub(crate) fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::Acquire)
    }

    /// It has turned out to be false: whether that is news.
    pub(crate) fn condemn(&self) -> bool {
        !self.condemned.swap(true, Ordering::AcqRel)
    }

    /// Where its bytes came from last.
    pub(crate) fn source(&self) -> Option<Arc<str>> {
        lock(&self.source).clone()
    }

    /// Notes where its bytes come from.
    pub(crate) fn set_source(&self, location: &str) {
        let mut source = lock(&self.source);
        if source.as_deref() != Some(location) {
            *source = Some(location.into());
        }
    }
}

/// Makes an errand of a task.
pub(crate) fn errand(task: impl Future<Output = Result<(), ReadError>> + Send + 'static) -> Errand {
    task.boxed().shared()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! One payload, readable anywhere.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError};

use bytes::{Bytes, BytesMut};
use farseek_object::Digest;

use crate::ahead;
use crate::block::as_len;
use crate::bring::{Part, part, start};
use crate::disk::DiskTier;
use crate::error::ReadError;
use crate::fetch::Purpose;
use crate::finish;
use crate::flight::Came;
use crate::options::Promote;
use crate::pass::{self, Scope};
use crate::payload::PayloadState;
use crate::shared::Shared;
use crate::trust::{Block, Provisional, Servable, Verify};
use crate::whereabouts::{Whereabouts, whereabouts};

/// Times that a read is begun again because what vouched for a block went away meanwhile.
const TRIES: usize = 3;

/// What is read of the disk tier on the thread that asked is at most this share of a block.
const HERE_DIVISOR: u64 = 4;

/// Positional reads of one payload. Cheap to clone; holds no connection and no buffer.
#[derive(Clone)]
pub struct BlobReader {
    shared: Arc<Shared>,
    state: Arc<PayloadState>,
}

impl BlobReader {
    pub(crate) fn new(shared: Arc<Shared>, state: Arc<PayloadState>) -> Self {
        Self { shared, state }
    }

    /// The digest of the payload.
    pub fn digest(&self) -> Digest {
        self.state.id.digest
    }

    /// Bytes of the payload.
    pub fn size(&self) -> u64 {
        self.state.id.size
    }

    /// Where its bytes would come from now. Looks at the disk tier, and asks no source.
    pub fn where_served(&self) -> Whereabouts {
        whereabouts(&self.shared, &self.state)
    }

    /// The bytes of `range`, clamped to the size, if all of them are in memory, or are few and in the
    /// page cache, or on a disk of this machine; never waits for anything else. Copies only where more
    /// than one block is touched.
    pub fn try_read(&self, range: Range<u64>) -> Option<Bytes> {
        if self.state.is_condemned() {
            return None;
        }
        let range = self.state.layout.clamp(range);
        let bytes = self
            .in_memory(&range)
            .or_else(|| self.parts_on_disk_now(&range))
            .or_else(|| self.parts_on_disk_here(&range))?;
        self.shared.counters.bytes_asked.add(bytes.len() as u64);
        self.note(&range);
        Some(bytes)
    }

    fn in_memory(&self, range: &Range<u64>) -> Option<Bytes> {
        let (layout, cache) = (&self.state.layout, &self.shared.cache);
        let get = |index| {
            cache
                .get(&self.state.key(index))
                .map(|block| block.into_bytes())
        };
        let hits = &self.shared.counters.hits_memory;
        let mut touched = layout.blocks(range);
        let Some(first) = touched.next() else {
            return Some(Bytes::new());
        };
        let first = get(first)?;
        let Some(second) = touched.next() else {
            hits.add(1);
            return Some(layout.join(range, &[first]));
        };
        let mut blocks = vec![first, get(second)?];
        for index in touched {
            blocks.push(get(index)?);
        }
        hits.add(blocks.len() as u64);
        Some(layout.join(range, &blocks))
    }

    /// The bytes of `range`, clamped to the size. Fetches what is not in memory; what this call
    /// has begun goes on for others when it is dropped.
    ///
    /// The answer is held in memory as one piece, so ask for large ranges in parts.
    ///
    /// # Errors
    /// [`ReadError`]; no part of the range is returned then.
    pub async fn read_at(&self, range: Range<u64>) -> Result<Bytes, ReadError> {
        let range = self.state.layout.clamp(range);
        self.shared
            .counters
            .bytes_asked
            .add(range.end - range.start);
        for _ in 0..TRIES {
            self.shared.refuse_condemned(&self.state)?;
            self.vouch(&range).await?;
            if let Some(part) = self.parts_on_disk(&range).await {
                self.shared.refuse_condemned(&self.state)?;
                return Ok(part);
            }
            if self.may_come_in_parts(&range) {
                if let Some(part) = self.part_coming(&range).await? {
                    self.shared.refuse_condemned(&self.state)?;
                    return Ok(part);
                }
                continue;
            }
            if let Some(blocks) = self.blocks(&range).await? {
                self.shared.refuse_condemned(&self.state)?;
                return Ok(self.state.layout.join(&range, &blocks));
            }
        }
        let digest = self.digest();
        Err(ReadError::Aborted { digest })
    }

    /// Where only verified bytes are served: sees to it that they can be.
    async fn vouch(&self, range: &Range<u64>) -> Result<(), ReadError> {
        let (shared, state) = (&self.shared, &self.state);
        let hashed_anyway = state.layout.is_whole() || range.is_empty();
        if shared.options.verify != Verify::Strict || hashed_anyway {
            return Ok(());
        }
        if state.is_local() || state.proof().is_some() {
            return Ok(());
        }
        pass::prove(shared, state).await
    }

    /// The blocks of `range`; `None` where one of them may not be served.
    async fn blocks(&self, range: &Range<u64>) -> Result<Option<Vec<Bytes>>, ReadError> {
        let (shared, state) = (&self.shared, &self.state);
        let mut claims = Vec::new();
        let parts: Vec<Part> = state
            .layout
            .blocks(range)
            .map(|index| part(shared, state, index, &mut claims))
            .collect();
        start(shared, state, Purpose::Demand, claims);
        self.note(range);
        let mut blocks = Vec::with_capacity(parts.len());
        for part in parts {
            match shared.options.verify.admit(part.block().await?) {
                Some(block) => blocks.push(block.into_bytes()),
                None => return Ok(None),
            }
        }
        Ok(Some(blocks))
    }

    /// Whether a read can be answered with a part of one block, before the rest of it is there.
    fn may_come_in_parts(&self, range: &Range<u64>) -> bool {
        let (layout, verify) = (&self.state.layout, self.shared.options.verify);
        layout.comes_in_parts()
            && layout.is_in_one_block(range)
            && verify != Verify::Strict
            && !self.state.is_hashed(verify)
    }

    /// The bytes of `range`, which lies in one block; `None` where that may not be served.
    async fn part_coming(&self, range: &Range<u64>) -> Result<Option<Bytes>, ReadError> {
        let (shared, state) = (&self.shared, &self.state);
        let (verify, layout) = (shared.options.verify, &state.layout);
        let index = layout.index_of(range.start);
        let mut claims = Vec::new();
        let part = part(shared, state, index, &mut claims);
        start(shared, state, Purpose::Demand, claims);
        self.note(range);
        let first = layout.range_of(index).start;
        let place = as_len(range.start - first)..as_len(range.end - first);
        let admitted = match part.part(place).await? {
            Came::Part(bytes) => verify.admit(Block::Provisional(Provisional::new(bytes))),
            Came::Block(block) => {
                let block = verify.admit(block).map(Servable::into_bytes);
                return Ok(block.map(|block| layout.join(range, &[block])));
            }
        };
        Ok(admitted.map(Servable::into_bytes))
    }

    /// The disk tier, where it is asked for parts of blocks by themselves: the rest of these need
    /// not be read from the disk for it, nor kept in memory. Not where only whole blocks can be
    /// verified.
    fn disk_for_parts(&self, range: &Range<u64>) -> Option<&Arc<DiskTier>> {
        let (shared, state) = (&self.shared, &self.state);
        let layout = &state.layout;
        let whole = layout.is_whole() || state.is_hashed(shared.options.verify);
        let disk = shared.disk_of(state)?;
        (!whole && !range.is_empty() && !layout.covers_a_block(range)).then_some(disk)
    }

    fn parts_on_disk_now(&self, range: &Range<u64>) -> Option<Bytes> {
        let (disk, geometry) = (self.disk_for_parts(range)?, self.state.geometry());
        let bytes = self.join_parts(range, |part| disk.read_part_now(geometry, part))?;
        self.admit_parts(range, bytes)
    }

    /// The same from a disk of this machine, where they are small, and for as many as may wait for
    /// that at a time.
    fn parts_on_disk_here(&self, range: &Range<u64>) -> Option<Bytes> {
        let (shared, state) = (&self.shared, &self.state);
        if range.end - range.start > state.layout.block_bytes() / HERE_DIVISOR {
            return None;
        }
        let (disk, geometry) = (self.disk_for_parts(range)?, state.geometry());
        let _place = shared.reading_here.try_acquire().ok()?;
        let bytes = self.join_parts(range, |part| disk.read_part_here(geometry, part))?;
        self.admit_parts(range, bytes)
    }

    async fn parts_on_disk(&self, range: &Range<u64>) -> Option<Bytes> {
        let (shared, state) = (&self.shared, &self.state);
        let disk = self.disk_for_parts(range)?;
        let geometry = state.geometry();
        let is_elsewhere = |index| {
            let key = state.key(index);
            disk.is_surely_absent(geometry, index.number())
                || shared.cache.has(&key)
                || shared.flights.has(&key)
        };
        if state.layout.blocks(range).any(is_elsewhere) {
            return None;
        }
        let (this, wanted) = (self.clone(), range.clone());
        let read = Shared::on_disk(disk, move |disk| {
            let read = this.join_parts(&wanted, |part| disk.read_part(geometry, part.clone()));
            if read.is_some() && this.state.is_first_on_disk() {
                finish::resume(&this.shared, &this.state, disk);
            }
            read
        });
        let bytes = self.admit_parts(range, read.await??)?;
        self.note(range);
        Some(bytes)
    }

    /// The bytes of `range`, each block's part of it read by `read`. One part is not copied.
    fn join_parts(
        &self,
        range: &Range<u64>,
        read: impl Fn(&Range<u64>) -> Option<Bytes>,
    ) -> Option<Bytes> {
        let mut parts = self.state.layout.parts(range);
        let first = read(&parts.next()?)?;
        if first.len() == as_len(range.end - range.start) {
            return Some(first);
        }
        let mut joined = BytesMut::with_capacity(as_len(range.end - range.start));
        joined.extend_from_slice(&first);
        for part in parts {
            joined.extend_from_slice(&read(&part)?);
        }
        Some(joined.freeze())
    }

    /// Parts of blocks, as they came from the disk, if it may be served.
    fn admit_parts(&self, range: &Range<u64>, bytes: Bytes) -> Option<Bytes> {
        let (shared, state) = (&self.shared, &self.state);
        let parts = Block::Provisional(Provisional::new(bytes));
        let parts = shared.options.verify.admit(parts)?;
        let count = state.layout.blocks(range).count();
        shared.counters.hits_disk.add(count as u64);
        Some(parts.into_bytes())
    }

    /// Takes a read into account, now that what it waits for is under way.
    fn note(&self, range: &Range<u64>) {
        for index in self.state.layout.blocks(range) {
            self.shared.note_read(&self.state, self.state.key(index));
        }
        ahead::follow(&self.shared, &self.state, range);
        // Many requests one by one cost more than what little of the rest may not be wanted.
        if self.has_seeked(range) || self.wants_the_rest() {
            pass::localise(&self.shared, &self.state);
        }
    }

    /// Whether most of the payload is on the disk, there is room for the rest, and it is wanted whole.
    fn wants_the_rest(&self) -> bool {
        if self.shared.options.promote == Promote::Never {
            return false;
        }
        let has_room = || {
            let disk = self.shared.disk_for(&self.state);
            disk.is_some_and(|disk| disk.has_room_for(self.state.layout.size()))
        };
        self.state.wants_the_rest() && has_room()
    }

    /// Whether the payload is to become local because somebody has seeked in it.
    fn has_seeked(&self, range: &Range<u64>) -> bool {
        let state = &self.state;
        if self.shared.options.promote != Promote::OnSeek || state.layout.is_whole() {
            return false;
        }
        let mut places = state.places.lock().unwrap_or_else(PoisonError::into_inner);
        if !range.is_empty() && places.is_seek(range) {
            state.set_seeked();
        }
        state.is_seeked()
    }

    /// Fetches all of it, and keeps it where blocks are kept, without reading it.
    ///
    /// # Errors
    /// [`ReadError`]; what has come is kept.
    pub async fn warm(&self) -> Result<(), ReadError> {
        self.shared.refuse_condemned(&self.state)?;
        if self.state.layout.is_whole() {
            return self.read_at(0..1).await.map(drop);
        }
        self.state.set_seeked();
        pass::run(&self.shared, &self.state, Scope::All, |_| ()).await
    }
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader")
            .field("payload", &self.state.id)
            .finish_non_exhaustive()
    }
}

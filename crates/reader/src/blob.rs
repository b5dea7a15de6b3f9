//! One payload, readable anywhere.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use farseek_object::Digest;

use crate::ahead;
use crate::bring::{Part, part, start};
use crate::error::ReadError;
use crate::fetch::Purpose;
use crate::options::Promote;
use crate::pass;
use crate::payload::PayloadState;
use crate::shared::Shared;
use crate::trust::Verify;
use crate::whereabouts::{Whereabouts, whereabouts};

/// Times that a read is begun again because what vouched for a block went away meanwhile.
const TRIES: usize = 3;

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

    /// The bytes of `range`, clamped to the size, if all of them are in memory; never waits.
    /// Copies only where more than one block is touched.
    pub fn try_read(&self, range: Range<u64>) -> Option<Bytes> {
        if self.state.is_condemned() {
            return None;
        }
        let range = self.state.layout.clamp(range);
        let bytes = self.in_memory(&range)?;
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

    /// Takes a read into account, now that what it waits for is under way.
    fn note(&self, range: &Range<u64>) {
        for index in self.state.layout.blocks(range) {
            self.shared.note_read(&self.state, self.state.key(index));
        }
        ahead::follow(&self.shared, &self.state, range);
        // Many requests one by one cost more than what little of the rest may not be wanted.
        if self.has_seeked(range) || self.state.wants_the_rest() {
            pass::localise(&self.shared, &self.state);
        }
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
        pass::run(&self.shared, &self.state, |_| ()).await
    }
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader")
            .field("payload", &self.state.id)
            .finish_non_exhaustive()
    }
}

//! One payload, readable anywhere.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use farseek_object::Digest;

use crate::block::{BlockIndex, BlockKey, Layout, PayloadId};
use crate::error::ReadError;
use crate::fetch::Fetch;
use crate::flight::{Claim, Joined, Waiter};
use crate::plan::coalesce;
use crate::shared::Shared;

/// Positional reads of one payload. Cheap to clone; holds no connection and no buffer.
#[derive(Clone)]
pub struct BlobReader {
    shared: Arc<Shared>,
    payload: PayloadId,
    layout: Layout,
}

impl BlobReader {
    pub(crate) fn new(shared: Arc<Shared>, digest: Digest, size: u64) -> Self {
        let layout = shared.layout(size);
        Self {
            shared,
            payload: PayloadId { digest, size },
            layout,
        }
    }

    /// The digest of the payload.
    pub fn digest(&self) -> Digest {
        self.payload.digest
    }

    /// Bytes of the payload.
    pub fn size(&self) -> u64 {
        self.payload.size
    }

    /// The bytes of `range`, clamped to the size, if all of them are in memory; never waits.
    /// Copies only where more than one block is touched.
    pub fn try_read(&self, range: Range<u64>) -> Option<Bytes> {
        let range = self.layout.clamp(range);
        let mut touched = self.layout.blocks(&range);
        let Some(first) = touched.next() else {
            return Some(Bytes::new());
        };
        let first = self.shared.cache.get(&self.key(first))?;
        let Some(second) = touched.next() else {
            self.shared.counters.hits.add(1);
            return Some(self.layout.join(&range, &[first]));
        };
        let mut blocks = vec![first, self.shared.cache.get(&self.key(second))?];
        for index in touched {
            blocks.push(self.shared.cache.get(&self.key(index))?);
        }
        self.shared.counters.hits.add(blocks.len() as u64);
        Some(self.layout.join(&range, &blocks))
    }

    /// The bytes of `range`, clamped to the size. Fetches what is not in memory; what this call
    /// has begun goes on for others when it is dropped.
    ///
    /// The answer is held in memory as one piece, so ask for large ranges in parts.
    ///
    /// # Errors
    /// [`ReadError`]; no part of the range is returned then.
    pub async fn read_at(&self, range: Range<u64>) -> Result<Bytes, ReadError> {
        let range = self.layout.clamp(range);
        let mut claims = Vec::new();
        let parts: Vec<Part> = self
            .layout
            .blocks(&range)
            .map(|index| self.part(index, &mut claims))
            .collect();
        self.start(claims);
        let mut blocks = Vec::with_capacity(parts.len());
        for part in parts {
            blocks.push(part.block().await?);
        }
        Ok(self.layout.join(&range, &blocks))
    }

    fn key(&self, index: BlockIndex) -> BlockKey {
        BlockKey {
            payload: self.payload,
            index,
        }
    }

    /// Finds a block, or who brings it: this call itself where a claim is added.
    fn part(&self, index: BlockIndex, claims: &mut Vec<Claim>) -> Part {
        let key = self.key(index);
        let counters = &self.shared.counters;
        if let Some(block) = self.shared.cache.get(&key) {
            counters.hits.add(1);
            return Part::Here(block);
        }
        let (waiter, claim) = match self.shared.flights.join(key) {
            Joined::Claimed(waiter, claim) => (waiter, claim),
            Joined::Coming(waiter) => {
                counters.joined.add(1);
                return Part::Coming(waiter);
            }
            Joined::Failed(error) => return Part::Failed(error),
        };
        // Between the look and the claim another fetch may have brought it and ended.
        if let Some(block) = self.shared.cache.get(&key) {
            counters.hits.add(1);
            self.shared.flights.land(&key, block.clone());
            return Part::Here(block);
        }
        counters.misses.add(1);
        claims.push(claim);
        Part::Coming(waiter)
    }

    /// Starts the fetches that meet the claims, each in a task of its own.
    fn start(&self, claims: Vec<Claim>) {
        let missing: Vec<BlockIndex> = claims.iter().map(|claim| claim.key().index).collect();
        let mut claims = claims.into_iter();
        for run in coalesce(&self.layout, &missing, self.shared.options.fetch_max_bytes) {
            let run = claims.by_ref().take(run.blocks).collect();
            let fetch = Fetch::new(Arc::clone(&self.shared), self.payload, self.layout, run);
            self.shared.runtime.spawn(fetch.run());
        }
    }
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader")
            .field("payload", &self.payload)
            .finish_non_exhaustive()
    }
}

/// One block of a read.
enum Part {
    Here(Bytes),
    Coming(Waiter),
    Failed(ReadError),
}

impl Part {
    async fn block(self) -> Result<Bytes, ReadError> {
        match self {
            Self::Here(block) => Ok(block),
            Self::Coming(waiter) => waiter.wait().await,
            Self::Failed(error) => Err(error),
        }
    }
}

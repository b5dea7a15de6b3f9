//! The memory tier: blocks by key, bounded in bytes.
//!
//! Evicts the least recently used. A policy that refuses newcomers (the library's default) would
//! have us fetch a block a second time for the second half of it: the kernel asks for less than
//! a block at once. Only what may be served is ever put in.

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::block::{BlockKey, PayloadId};
use crate::trust::Servable;

/// What an entry costs besides its bytes: key, counters, links and hash slots, rounded up.
const ENTRY_OVERHEAD: u64 = 256;

/// Blocks in memory.
#[derive(Debug)]
pub(crate) struct BlockCache {
    blocks: Cache<BlockKey, Servable>,
    max_bytes: u64,
}

impl BlockCache {
    /// A cache of at most `max_bytes`.
    pub(crate) fn new(max_bytes: u64) -> Self {
        let blocks = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|_, block: &Servable| weight(block))
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { blocks, max_bytes }
    }

    /// A block, if it is in memory.
    pub(crate) fn get(&self, key: &BlockKey) -> Option<Servable> {
        self.blocks.get(key)
    }

    /// Keeps a block, whose allocation must be no larger than the block. Others may go for it,
    /// and it is seen by every later [`get`](Self::get) until it goes itself.
    pub(crate) fn insert(&self, key: BlockKey, block: Servable) {
        self.blocks.insert(key, block);
        // The library evicts some time later, after up to 64 inserts: by then many times the
        // bound could be in memory.
        self.blocks.run_pending_tasks();
    }

    /// Whether a block is in memory; that is no use of it.
    pub(crate) fn has(&self, key: &BlockKey) -> bool {
        self.blocks.contains_key(key)
    }

    /// Forgets a block.
    pub(crate) fn remove(&self, key: &BlockKey) {
        self.blocks.invalidate(key);
    }

    /// Forgets all blocks of a payload.
    pub(crate) fn remove_payload(&self, payload: &PayloadId) {
        for (key, _) in &self.blocks {
            if key.payload == *payload {
                self.blocks.invalidate(&*key);
            }
        }
    }

    /// Bytes of a payload that are in memory.
    pub(crate) fn bytes_of(&self, payload: &PayloadId) -> u64 {
        let blocks = self
            .blocks
            .iter()
            .filter(|(key, _)| key.payload == *payload);
        blocks.map(|(_, block)| block.bytes().len() as u64).sum()
    }

    /// Whether all of a payload of `size` bytes may be kept without driving out most else.
    pub(crate) fn has_room_for(&self, size: u64) -> bool {
        size <= self.max_bytes / 2
    }

    /// Bytes it holds, its own overhead included.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks.weighted_size()
    }
}

fn weight(block: &Servable) -> u32 {
    u32::try_from(block.bytes().len() as u64 + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use farseek_object::Digest;

    use super::*;
    use crate::block::{BlockSize, Layout};
    use crate::trust::{Block, Provisional, Verify};

    fn servable(bytes: impl Into<Bytes>) -> Servable {
        let block = Block::Provisional(Provisional::new(bytes.into()));
        Verify::Auto.admit(block).unwrap()
    }

    const BLOCK: u64 = 4096;

    fn key(index: u64) -> BlockKey {
        let layout = Layout::new(u64::MAX, BlockSize::MIN, 0);
        let payload = PayloadId {
            digest: Digest::EMPTY,
            size: u64::MAX,
        };
        BlockKey {
            payload,
            index: layout.index_of(index * BLOCK),
        }
    }

    #[test]
    fn it_never_holds_more_than_its_bound_and_always_takes_the_newest() {
        let max = 10 * (BLOCK + ENTRY_OVERHEAD);
        let cache = BlockCache::new(max);
        for i in 0..1000 {
            cache.insert(key(i), servable(vec![i as u8; BLOCK as usize]));
            assert!(cache.bytes() <= max, "{} > {max}", cache.bytes());
            assert_eq!(cache.get(&key(i)).unwrap().bytes()[0], i as u8);
            cache.get(&key(0));
        }
        assert_eq!(cache.bytes(), max);
        assert_eq!(cache.blocks.iter().count(), 10);
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let cache = BlockCache::new(0);
        cache.insert(key(0), servable("block"));
        assert_eq!(cache.bytes(), 0);
        assert_eq!(cache.get(&key(0)), None);
        assert!(!cache.has_room_for(1));
    }
}

//! Cuts a stream of bytes into blocks. Pure: bytes in, blocks out.
//!
//! Every block is a fresh allocation of just its length, so that what the cache weighs is what
//! memory holds: a slice of a chunk would keep the whole chunk alive.

use bytes::{Buf, Bytes, BytesMut};

use crate::block::{BlockIndex, Layout, as_len};

/// The block that is being filled.
#[derive(Debug)]
pub(crate) struct Assembly {
    layout: Layout,
    index: BlockIndex,
    /// The beginning of block `index`.
    buffer: BytesMut,
}

impl Assembly {
    /// Starts with an empty block `index`.
    pub(crate) fn new(layout: Layout, index: BlockIndex) -> Self {
        Self {
            layout,
            index,
            buffer: BytesMut::new(),
        }
    }

    /// The block being filled.
    pub(crate) fn index(&self) -> BlockIndex {
        self.index
    }

    /// The offset of the byte it needs next.
    pub(crate) fn position(&self) -> u64 {
        self.layout.range_of(self.index).start + self.buffer.len() as u64
    }

    /// What there is of the block being filled: its beginning.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.buffer
    }

    /// Forgets what it holds and starts again with block `index`.
    pub(crate) fn restart(&mut self, index: BlockIndex) {
        *self = Self::new(self.layout, index);
    }

    /// Takes bytes from the front of `chunk`, which continues at [`position`](Self::position):
    /// a block that is now full, or `None` once the chunk is used up.
    pub(crate) fn feed(&mut self, chunk: &mut Bytes) -> Option<(BlockIndex, Bytes)> {
        let range = self.layout.range_of(self.index);
        let full = as_len(range.end - range.start);
        if self.buffer.is_empty() && !chunk.is_empty() {
            self.buffer = BytesMut::with_capacity(full);
        }
        let take = chunk.len().min(full - self.buffer.len());
        self.buffer.extend_from_slice(&chunk[..take]);
        chunk.advance(take);
        if full == 0 || self.buffer.len() < full {
            return None;
        }
        let index = self.index;
        self.index = index.next();
        Some((index, std::mem::take(&mut self.buffer).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::BlockSize;

    proptest! {
        #[test]
        fn any_chunks_give_the_same_blocks(
            size in 4097u64..40_000, cuts in proptest::collection::vec(0usize..9000, 1..20),
            first in 0u64..3,
        ) {
            let layout = Layout::new(size, BlockSize::MIN, 0);
            let bytes: Bytes = (0..size).map(|i| (i * 31 % 251) as u8).collect();
            let start = (first * 4096).min(size - 1) / 4096 * 4096;
            let mut assembly = Assembly::new(layout, layout.index_of(start));
            let mut rest = bytes.slice(start as usize..);
            let mut at = start;
            let mut cuts = cuts.into_iter().cycle();
            let mut empties = 0;
            while !rest.is_empty() {
                let cut = cuts.next().unwrap().min(rest.len());
                empties += usize::from(cut == 0);
                let cut = if empties > 20 { rest.len() } else { cut };
                let mut chunk = rest.split_to(cut);
                while let Some((index, block)) = assembly.feed(&mut chunk) {
                    let range = layout.range_of(index);
                    prop_assert_eq!(range.start, at);
                    prop_assert_eq!(&block, &bytes[range.start as usize..range.end as usize]);
                    at = range.end;
                }
                prop_assert!(chunk.is_empty());
                prop_assert_eq!(assembly.position(), size - rest.len() as u64);
            }
            prop_assert_eq!(at, size);
        }
    }
}

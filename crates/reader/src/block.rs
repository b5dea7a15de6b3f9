//! Blocks: how a payload is divided. Pure arithmetic on offsets.
//!
//! A payload's blocks are aligned and all of one size but the last. A *whole* payload, a small
//! one, is a single block as large as it is: it is fetched in one request and verified.
//! Nothing here is proportional to a payload's size, and no offset can overflow: every function
//! takes offsets that [`Layout::clamp`] has bounded by the size.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use farseek_object::Digest;

/// Blocks that are shorter come in a piece or two anyway.
const PARTS_FROM: u64 = 64 << 10;

/// Bytes in a block: a power of two from 4 KiB to 16 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSize(u32);

impl BlockSize {
    /// The smallest: a page.
    pub const MIN: Self = Self(4 << 10);
    /// The largest: more would make one byte too dear.
    pub const MAX: Self = Self(16 << 20);

    /// A block size, or `None` where `bytes` is no power of two or out of bounds.
    pub fn new(bytes: u64) -> Option<Self> {
        let size = Self(u32::try_from(bytes).ok()?);
        (bytes.is_power_of_two() && (Self::MIN..=Self::MAX).contains(&size)).then_some(size)
    }

    /// Its bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }
}

impl Default for BlockSize {
    /// 256 KiB: two of the kernel's largest default readahead requests.
    fn default() -> Self {
        Self(256 << 10)
    }
}

/// The position of a block among its payload's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockIndex(u64);

impl BlockIndex {
    /// How many blocks come before it.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// The block of this number.
    pub(crate) fn of(number: u64) -> Self {
        Self(number)
    }

    /// The block after this one.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A payload as its reader believes it to be.
///
/// The size is part of the identity: two manifests may disagree about it, and blocks cut by one
/// must not be served to a reader of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PayloadId {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// One block of one payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BlockKey {
    pub(crate) payload: PayloadId,
    pub(crate) index: BlockIndex,
}

/// How a payload of a given size is cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    size: u64,
    /// Bytes of every block but the last; never zero.
    block: u64,
    whole: bool,
}

impl Layout {
    /// Cuts `size` bytes. Payloads of at most `whole_max` bytes are whole, and so are those of
    /// at most one block, for which it costs nothing.
    pub(crate) fn new(size: u64, block: BlockSize, whole_max: u64) -> Self {
        let whole = size <= whole_max.max(block.bytes());
        let block = if whole { size.max(1) } else { block.bytes() };
        Self { size, block, whole }
    }

    /// Bytes of the payload.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of its largest block.
    pub(crate) fn block_bytes(&self) -> u64 {
        self.block
    }

    /// Whether it is one block that is verified before it is served.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether its blocks are long enough on their way for a part of one to be worth telling before
    /// the rest has come, and nothing forbids it.
    pub(crate) fn comes_in_parts(&self) -> bool {
        !self.whole && self.block >= PARTS_FROM
    }

    /// Whether `range` holds bytes, all of one block.
    pub(crate) fn is_in_one_block(&self, range: &Range<u64>) -> bool {
        range.start < range.end && self.index_of(range.start) == self.index_of(range.end - 1)
    }

    /// Whether a clamped range holds all the bytes of some block.
    pub(crate) fn covers_a_block(&self, range: &Range<u64>) -> bool {
        self.blocks(range).any(|index| {
            let block = self.range_of(index);
            range.start <= block.start && block.end <= range.end
        })
    }

    /// What a clamped range has of each block, in order.
    pub(crate) fn parts(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
        let (layout, range) = (*self, range.clone());
        self.blocks(&range).map(move |index| {
            let block = layout.range_of(index);
            block.start.max(range.start)..block.end.min(range.end)
        })
    }

    /// The part of `range` that exists; empty ranges are `0..0`.
    pub(crate) fn clamp(&self, range: Range<u64>) -> Range<u64> {
        let end = range.end.min(self.size);
        if range.start < end {
            range.start..end
        } else {
            0..0
        }
    }

    /// The block that holds `offset`.
    pub(crate) fn index_of(&self, offset: u64) -> BlockIndex {
        BlockIndex(offset / self.block)
    }

    /// The blocks that hold bytes of a clamped range, in order.
    pub(crate) fn blocks(&self, range: &Range<u64>) -> impl Iterator<Item = BlockIndex> + use<> {
        let first = range.start / self.block;
        let end = if range.is_empty() {
            first
        } else {
            (range.end - 1) / self.block + 1
        };
        (first..end).map(BlockIndex)
    }

    /// The bytes of a block.
    pub(crate) fn range_of(&self, index: BlockIndex) -> Range<u64> {
        let start = index.0.saturating_mul(self.block).min(self.size);
        start..start.saturating_add(self.block).min(self.size)
    }

    /// The first start of a block at or after `offset`, or the end of the payload.
    pub(crate) fn align_up(&self, offset: u64) -> u64 {
        offset
            .checked_next_multiple_of(self.block)
            .map_or(self.size, |up| up.min(self.size))
    }

    /// The bytes of a clamped range out of the blocks that hold it. One block is not copied.
    pub(crate) fn join(&self, range: &Range<u64>, blocks: &[Bytes]) -> Bytes {
        let skip = range.start % self.block;
        match blocks {
            [] => Bytes::new(),
            [block] => slice(block, skip, range.end - range.start),
            [first, rest @ ..] => {
                let mut left = range.end - range.start;
                let mut joined = BytesMut::with_capacity(as_len(left));
                joined.extend_from_slice(&first[as_len(skip)..]);
                for block in rest {
                    left = range.end - range.start - joined.len() as u64;
                    joined.extend_from_slice(&slice(block, 0, left.min(block.len() as u64)));
                }
                joined.freeze()
            }
        }
    }
}

fn slice(block: &Bytes, start: u64, len: u64) -> Bytes {
    block.slice(as_len(start)..as_len(start + len))
}

/// Lengths of things in memory fit; the name says why the cast is fine.
pub(crate) fn as_len(bytes: u64) -> usize {
    usize::try_from(bytes).expect("what is held in memory has a length that fits in memory")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(size: u64, block: u64, whole_max: u64) -> Layout {
        Layout::new(size, BlockSize::new(block).unwrap(), whole_max)
    }

    fn indices(layout: &Layout, range: Range<u64>) -> Vec<u64> {
        layout
            .blocks(&layout.clamp(range))
            .map(|index| index.0)
            .collect()
    }

    #[test]
    fn block_sizes_are_powers_of_two_in_bounds() {
        for good in [4096, 8192, 262_144, 16 << 20] {
            assert_eq!(BlockSize::new(good).unwrap().bytes(), good);
        }
        for bad in [0, 1, 2048, 4097, 12288, 32 << 20, 1 << 32, u64::MAX] {
            assert_eq!(BlockSize::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn ranges_are_clamped() {
        let layout = layout(10_000, 4096, 0);
        assert_eq!(layout.clamp(5..7), 5..7);
        assert_eq!(layout.clamp(9_999..u64::MAX), 9_999..10_000);
        assert_eq!(layout.clamp(10_000..10_001), 0..0);
        assert_eq!(layout.clamp(u64::MAX - 1..u64::MAX), 0..0);
        #[expect(clippy::reversed_empty_ranges, reason = "that is what is tested")]
        let reversed = 9..3;
        assert_eq!(layout.clamp(reversed), 0..0);
    }

    #[test]
    fn ranges_touch_the_blocks_that_hold_them() {
        let layout = layout(10_000, 4096, 0);
        assert_eq!(indices(&layout, 0..1), [0]);
        assert_eq!(indices(&layout, 4095..4096), [0]);
        assert_eq!(indices(&layout, 4095..4097), [0, 1]);
        assert_eq!(indices(&layout, 4096..8192), [1]);
        assert_eq!(indices(&layout, 0..u64::MAX), [0, 1, 2]);
        assert_eq!(indices(&layout, 7..7), [0u64; 0]);
        assert_eq!(layout.range_of(BlockIndex(2)), 8192..10_000);
        assert_eq!(layout.range_of(BlockIndex(u64::MAX)), 10_000..10_000);
        assert_eq!(layout.align_up(4095), 4096);
        assert_eq!(layout.align_up(4096), 4096);
        assert_eq!(layout.align_up(8193), 10_000);
        assert_eq!(layout.align_up(u64::MAX), 10_000);
    }

    #[test]
    fn small_payloads_are_one_block() {
        assert!(layout(5000, 4096, 5000).is_whole());
        assert_eq!(indices(&layout(5000, 4096, 5000), 4999..5000), [0]);
        assert!(!layout(5001, 4096, 5000).is_whole());
        assert!(layout(4096, 4096, 0).is_whole());
        assert!(layout(0, 4096, 0).is_whole());
        assert_eq!(indices(&layout(0, 4096, 0), 0..1), [0u64; 0]);
    }

    #[test]
    fn huge_payloads_cost_nothing_here() {
        let layout = layout(u64::MAX, 4096, 0);
        assert_eq!(indices(&layout, u64::MAX - 1..u64::MAX).len(), 1);
        assert_eq!(layout.range_of(layout.index_of(u64::MAX - 1)).end, u64::MAX);
        assert_eq!(layout.align_up(u64::MAX - 1), u64::MAX);
    }

    proptest! {
        #[test]
        fn blocks_tile_the_payload_and_join_to_the_range(
            size in 0u64..200_000, whole_max in 0u64..20_000, a in 0u64..220_000, b in 0u64..220_000,
        ) {
            let layout = layout(size, 4096, whole_max);
            let bytes: Bytes = (0..size).map(|i| (i * 31 % 251) as u8).collect();
            let mut at = 0;
            for index in layout.blocks(&layout.clamp(0..size)) {
                let range = layout.range_of(index);
                prop_assert_eq!(range.start, at);
                prop_assert!(range.end > at);
                prop_assert_eq!(layout.index_of(at), index);
                prop_assert_eq!(layout.align_up(at), at);
                at = range.end;
            }
            prop_assert_eq!(at, size);
            let range = layout.clamp(a.min(b)..a.max(b));
            let blocks: Vec<Bytes> = layout
                .blocks(&range)
                .map(|index| layout.range_of(index))
                .map(|block| bytes.slice(block.start as usize..block.end as usize))
                .collect();
            let expected = bytes.slice(range.start as usize..range.end as usize);
            prop_assert_eq!(layout.join(&range, &blocks), expected);
            let mut at = range.start;
            for (index, part) in layout.blocks(&range).zip(layout.parts(&range)) {
                prop_assert_eq!(part.start, at);
                prop_assert!(part.end > at && layout.is_in_one_block(&part));
                prop_assert_eq!(layout.index_of(at), index);
                at = part.end;
            }
            prop_assert_eq!(at, range.end);
            let whole = layout.parts(&range).zip(layout.blocks(&range));
            let covers = whole.into_iter().any(|(part, index)| part == layout.range_of(index));
            prop_assert_eq!(layout.covers_a_block(&range), covers);
        }
    }
}

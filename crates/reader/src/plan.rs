//! What to ask for: missing blocks to ranged fetches. Pure.

use crate::block::{BlockIndex, Layout};

/// Neighbouring blocks that one request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: BlockIndex,
    /// How many blocks; at least one.
    pub(crate) blocks: usize,
}

/// Coalesces `missing` (ascending, distinct) into runs of at most `fetch_max_bytes`, or of one
/// block where that is larger.
pub(crate) fn coalesce(layout: &Layout, missing: &[BlockIndex], fetch_max_bytes: u64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut last: Option<BlockIndex> = None;
    for &index in missing {
        let adjacent = last.is_some_and(|last| last.next() == index);
        match runs.last_mut() {
            Some(run) if adjacent && fits(layout, *run, index, fetch_max_bytes) => run.blocks += 1,
            _ => runs.push(Run {
                first: index,
                blocks: 1,
            }),
        }
        last = Some(index);
    }
    runs
}

fn fits(layout: &Layout, run: Run, next: BlockIndex, fetch_max_bytes: u64) -> bool {
    layout.range_of(next).end - layout.range_of(run.first).start <= fetch_max_bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::BlockSize;

    const BLOCK: u64 = 4096;

    fn layout(size: u64) -> Layout {
        Layout::new(size, BlockSize::MIN, 0)
    }

    fn runs(missing: &[u64], max: u64) -> Vec<(u64, usize)> {
        let layout = layout(100 * BLOCK + 1);
        let missing: Vec<_> = missing.iter().map(|i| layout.index_of(i * BLOCK)).collect();
        let start = |run: &Run| layout.range_of(run.first).start / BLOCK;
        coalesce(&layout, &missing, max)
            .iter()
            .map(|run| (start(run), run.blocks))
            .collect()
    }

    #[test]
    fn neighbours_are_coalesced_up_to_the_limit() {
        let none: [(u64, usize); 0] = [];
        assert_eq!(runs(&[], 4 * BLOCK), none);
        assert_eq!(runs(&[7], 4 * BLOCK), [(7, 1)]);
        assert_eq!(runs(&[0, 1, 2], 4 * BLOCK), [(0, 3)]);
        assert_eq!(runs(&[0, 1, 3, 4], 4 * BLOCK), [(0, 2), (3, 2)]);
        assert_eq!(runs(&[0, 1, 2, 3, 4, 5], 4 * BLOCK), [(0, 4), (4, 2)]);
        assert_eq!(runs(&[98, 99, 100], 2 * BLOCK + 1), [(98, 3)]);
        assert_eq!(runs(&[0, 1], BLOCK - 1), [(0, 1), (1, 1)]);
        assert_eq!(runs(&[0, 1], 0), [(0, 1), (1, 1)]);
    }

    proptest! {
        #[test]
        fn runs_hold_just_the_missing_blocks(
            missing in proptest::collection::btree_set(0u64..60, 0..60), max in 0u64..10,
        ) {
            let layout = layout(60 * BLOCK - 5);
            let missing: Vec<_> = missing.iter().map(|i| layout.index_of(i * BLOCK)).collect();
            let runs = coalesce(&layout, &missing, max * BLOCK);
            let mut covered = Vec::new();
            for run in &runs {
                prop_assert!(run.blocks >= 1 && run.blocks as u64 <= max.max(1));
                let mut index = run.first;
                for _ in 0..run.blocks {
                    covered.push(index);
                    index = index.next();
                }
            }
            prop_assert_eq!(covered, missing);
        }
    }
}

//! Which small files to load together with the one that is read.
//!
//! A small file is one request, so a program that reads a tree file by file (`tar`, `cp -r`,
//! `grep -r`) would wait for one round trip after the other. Such programs read in the order of
//! the names, and go into a directory where they meet it: depth first. In that order all small
//! files of the mount are one line of ranks, and a walk over the tree is a run along it, over the
//! ends of directories too.
//!
//! The policy is that of readahead. A few reads in a row prove a walk; from then on as much is
//! loaded ahead as several times what it has read, up to a limit in files and in bytes. A reader
//! that jumps starts a new walk, and proves it again. Several walks are followed at once. Readers
//! that run in parallel come in slightly another order: a rank a little back is no jump.
//!
//! Deliberately absent: whether a file is in memory already. Who loads it finds out.

use std::ops::Range;

use farseek_object::{MergedTree, NodeKind};

use crate::attr::NodeId;

/// Reads in a row that prove a walk.
const PROOF: u32 = 3;

/// Files loaded ahead for each one read.
const EAGERNESS: u32 = 4;

/// How many files a walk may leave out at once. The kernel may have them; more is a jump.
const FORWARD: u32 = 8;

/// How far back a read may be that is only late.
const BACK: u32 = 16;

/// Walks followed at once.
const WALKS_MAX: usize = 16;

/// How much is loaded ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalkOptions {
    /// Files of at most so many bytes are small: the reader fetches them whole.
    pub small_max_bytes: u64,
    /// Files that are ahead of one walk at most; 0 turns it off.
    pub files_max: u32,
    /// Bytes of files that are ahead of one walk at most. The memory of the reader has to have
    /// room for several walks.
    pub bytes_max: u64,
}

impl Default for WalkOptions {
    /// For a reader with its own defaults.
    fn default() -> Self {
        Self {
            small_max_bytes: 1 << 20,
            files_max: 256,
            bytes_max: 8 << 20,
        }
    }
}

/// The small files of a tree in the order in which it is walked.
#[derive(Debug)]
pub(crate) struct WalkOrder {
    /// Positions in the tree's table, by rank.
    positions: Box<[u32]>,
    /// Ranks, by position in the table.
    ranks: Box<[u32]>,
}

/// The rank of what has none.
const NONE: u32 = u32::MAX;

impl WalkOrder {
    pub(crate) fn new(tree: &MergedTree, small_max_bytes: u64) -> Self {
        let mut positions = Vec::new();
        let mut ranks = vec![NONE; tree.nodes().len()];
        // The rest of every directory on the way down, the deepest last.
        let root = 0..1;
        let mut rest = vec![root];
        while let Some(siblings) = rest.last_mut() {
            let Some(position) = siblings.next() else {
                rest.pop();
                continue;
            };
            let node = &tree.nodes()[position as usize];
            let is_small = (1..=small_max_bytes).contains(&node.size);
            match node.kind() {
                NodeKind::Directory => rest.push(node.children()),
                NodeKind::File if is_small => {
                    ranks[position as usize] = positions.len() as u32;
                    positions.push(position);
                }
                NodeKind::File | NodeKind::Symlink => {}
            }
        }
        Self {
            positions: positions.into(),
            ranks: ranks.into(),
        }
    }

    /// The rank of a small file.
    pub(crate) fn rank(&self, node: NodeId) -> Option<u32> {
        let rank = self.ranks.get(node.position() as usize)?;
        (*rank != NONE).then_some(*rank)
    }

    /// The positions in the table of a range of ranks.
    pub(crate) fn positions(&self, ranks: Range<u32>) -> &[u32] {
        &self.positions[ranks.start as usize..ranks.end as usize]
    }

    /// The number of ranks.
    pub(crate) fn len(&self) -> u32 {
        self.positions.len() as u32
    }
}

/// The walks under way.
#[derive(Debug, Default)]
pub(crate) struct Walks {
    /// The one that was heard of last is the last.
    walks: Vec<Walk>,
    /// Files loaded ahead.
    loaded: u64,
    /// Of these, files that the walk passed over, or that it ended before.
    wasted: u64,
}

#[derive(Debug, Clone, Copy)]
struct Walk {
    /// The furthest rank that was read.
    at: u32,
    /// Reads in a row.
    run: u32,
    /// The end of the ranks that were loaded.
    ahead: u32,
}

impl Walk {
    fn new(rank: u32) -> Self {
        Self {
            at: rank,
            run: 1,
            ahead: rank + 1,
        }
    }

    fn is_near(&self, rank: u32) -> bool {
        rank.saturating_add(BACK) >= self.at && rank <= self.at.saturating_add(FORWARD)
    }

    /// Files that were loaded, and not read.
    fn unread(&self) -> u64 {
        u64::from(self.ahead.saturating_sub(self.at + 1))
    }

    /// Takes note of a read, and returns how many loaded files were passed over.
    fn step(&mut self, rank: u32) -> u64 {
        if rank <= self.at {
            return 0;
        }
        let passed = rank.min(self.ahead).saturating_sub(self.at + 1);
        self.at = rank;
        self.run = self.run.saturating_add(1);
        self.ahead = self.ahead.max(rank + 1);
        u64::from(passed)
    }

    /// The end of what should be loaded now. `size` tells the size of the file of a rank below
    /// `end`.
    fn target(&self, options: &WalkOptions, end: u32, size: impl Fn(u32) -> u64) -> u32 {
        if self.run < PROOF {
            return self.ahead;
        }
        let files = self.run.saturating_mul(EAGERNESS).min(options.files_max);
        let until = self.at.saturating_add(files).saturating_add(1).min(end);
        let mut room = options.bytes_max;
        for rank in self.at + 1..until {
            match room.checked_sub(size(rank)) {
                Some(left) => room = left,
                None => return rank,
            }
        }
        until
    }
}

impl Walks {
    /// The ranks to load now that the file of `rank` is read. `size` tells the size of the file of
    /// a rank below `end`.
    pub(crate) fn read(
        &mut self,
        rank: u32,
        options: &WalkOptions,
        end: u32,
        size: impl Fn(u32) -> u64,
    ) -> Range<u32> {
        let mut walk = self.take(rank);
        self.wasted += walk.step(rank);
        let target = walk.target(options, end, size).max(walk.ahead);
        let range = walk.ahead..target;
        self.loaded += u64::from(target - walk.ahead);
        walk.ahead = target;
        self.walks.push(walk);
        range
    }

    /// Takes the walk out that `rank` belongs to, or starts one in place of the oldest.
    fn take(&mut self, rank: u32) -> Walk {
        if let Some(found) = self.walks.iter().rposition(|walk| walk.is_near(rank)) {
            return self.walks.remove(found);
        }
        if self.walks.len() == WALKS_MAX {
            self.wasted += self.walks.remove(0).unread();
        }
        Walk::new(rank)
    }

    /// Files loaded ahead, and those of them that nobody read as far as is known.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.loaded, self.wasted)
    }
}

#[cfg(test)]
mod tests;

//! Nodes, their attributes, and the file system's totals: plain values.

use std::fmt;
use std::time::SystemTime;

use farseek_object::NodeKind;

/// The block size reported for files: a read of this many bytes is one reader block, so programs
/// that size their buffers by `st_blksize` ask for whole ones.
pub(crate) const PREFERRED_READ: u32 = 256 * 1024;

/// The unit of `statfs` counts.
pub(crate) const STATFS_UNIT: u32 = 4096;

/// The bytes names usually have at most, told by `statfs`. Longer ones, if a manifest has them,
/// still work.
pub(crate) const USUAL_NAME_MAX: u32 = 255;

/// A node: its position in the merged tree's table. The root is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The root directory.
    pub const ROOT: Self = Self(0);

    /// The node at `position` of the table.
    pub fn new(position: u32) -> Self {
        Self(position)
    }

    /// The node with the inode number `inode`: one more than its position, for 0 means none.
    pub fn from_inode(inode: u64) -> Option<Self> {
        inode
            .checked_sub(1)
            .and_then(|position| u32::try_from(position).ok())
            .map(Self)
    }

    /// The inode number.
    pub fn inode(self) -> u64 {
        u64::from(self.0) + 1
    }

    /// The position in the table.
    pub fn position(self) -> u32 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inode {}", self.inode())
    }
}

/// What `stat` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// The node.
    pub node: NodeId,
    /// What it is.
    pub kind: NodeKind,
    /// The permission bits, with set-uid and the like.
    pub permissions: u16,
    /// Bytes; for a directory, the number of its children.
    pub size: u64,
    /// Units of 512 bytes.
    pub blocks: u64,
    /// 1; for a directory, 2 and one for every directory in it.
    pub links: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Every time a file has.
    pub time: SystemTime,
    /// The read size to prefer.
    pub block_size: u32,
}

/// What `statfs` shows. Nothing is ever free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of all files and links, as if nothing were shared.
    pub bytes: u64,
    /// Files, links and directories.
    pub nodes: u64,
}

impl Totals {
    /// Units of `f_frsize`.
    pub fn blocks(&self) -> u64 {
        self.bytes.div_ceil(u64::from(STATFS_UNIT))
    }

    /// `f_frsize`.
    pub fn block_size(&self) -> u32 {
        STATFS_UNIT
    }
}

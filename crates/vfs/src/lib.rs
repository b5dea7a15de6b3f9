//! A merged environment as a read-only POSIX file system.
//!
//! [`Vfs`] is the core: questions in newtypes, answers as plain values, no FUSE. [`fuse`] is the
//! only code that knows FUSE, and mounts one. Deliberately absent: kinds of repository, blocks,
//! caches and retries (all in the reader), and policy about where to mount (in the runtime).

mod attr;
mod dir;
mod link_ahead;
mod walk_ahead;
mod opens;
mod local;
mod stats;
mod options;
mod error;
mod errno;
mod reading;
mod xattr;
mod vfs;
pub mod fuse;

pub use attr::{Attr, NodeId, Totals};
pub use dir::{DirCookie, DirEntries, DirEntry};
pub use errno::errno;
pub use error::{Result, VfsError};
pub use local::LocalOptions;
pub use options::{StatsText, VfsOptions};
pub use reading::{PendingRead, Reading};
pub use stats::VfsStats;
pub use vfs::{Handle, Seek, Vfs};
pub use walk_ahead::WalkOptions;
pub use xattr::{
    Attribute, CACHED_XATTR, DIGEST_XATTR, Inquiry, KernelReads, SERVED_FROM_XATTR, STATS_XATTR,
    VERIFIED_XATTR,
};

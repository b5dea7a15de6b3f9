//! A merged environment as a read-only POSIX file system.
//!
//! [`Vfs`] is the core: questions in newtypes, answers as plain values, no FUSE. [`fuse`] is the
//! only code that knows FUSE, and mounts one. Deliberately absent: kinds of repository, blocks,
//! caches and retries (all in the reader), and policy about where to mount (in the runtime).

mod attr;
mod dir;
mod errno;
mod error;
pub mod fuse;
mod link_ahead;
mod reading;
mod vfs;

pub use attr::{Attr, NodeId, Totals, VfsOptions};
pub use dir::{DirCookie, DirEntries, DirEntry};
pub use errno::errno;
pub use error::{Result, VfsError};
pub use reading::{PendingRead, Reading};
pub use vfs::{DIGEST_XATTR, Handle, Seek, Vfs};

//! The disk tier of the block cache: what was fetched stays, across mounts and restarts.
//!
//! One sparse data file a payload, holding its bytes at their own offsets, and beside it a map
//! with a CRC32C for each block. No write is ordered before another and nothing is ever synced:
//! a block whose checksum does not match is a miss, so a crash, a power cut, a flipped bit, a
//! torn write or a hole punched by another process costs a fetch and never a wrong byte.
//!
//! Files are found by name from the payload's digest and its shape, so opening the tier costs
//! nothing, and processes share it without speaking to each other: two writers of one block
//! write the same bytes. Eviction is by least recent use, in whole payloads or, for large ones,
//! in segments, decided purely in [`plan`](evict::plan) by one process at a time.
//!
//! A complete data file may be [sealed](DiskTier::seal): nobody writes to it any more, so that it
//! can be hashed and become a payload of a repository by rename.
//!
//! A disk that is full, read-only or failing switches the tier off for a while, with one warning;
//! reads go on without it. Nothing here returns an error.
//!
//! Deliberately absent: repositories, fetching, any idea of whether a block is true. The checksum
//! says that a block is what was written, not that it is what was committed.

mod evict;
mod health;
mod map;
mod open_files;
mod payload_file;
mod quarantine;
mod scan;
mod room;
mod sealed;
mod tier;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

pub(crate) use map::Geometry;
pub(crate) use payload_file::{Found, Gathered};
pub(crate) use sealed::Sealed;
pub(crate) use tier::Written;
pub use tier::{DiskOptions, DiskStats, DiskTier};

/// Makes `directory` and what is missing above it for this user alone: what was fetched with the
/// rights of one user is not for the others.
fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

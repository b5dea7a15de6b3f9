//! Lazy reads of payloads, however far away: a read is positional and costs what it touches.
//!
//! [`Reader`] opens payloads of a [`Repository`](farseek_store::Repository); [`BlobReader`] reads
//! ranges of one. Memory, disk, bytes in flight and requests at once are bounded; every block is
//! fetched once however many wait for it, and kept for later readers, in other processes too;
//! what is complete and verified becomes a payload of the local repository; nothing waits for a
//! source that makes no progress.
//! Deliberately absent: inodes, errno, and any file that is not the disk tier's.

mod sync;
mod block;
mod error;
mod plan;
mod answer;
mod assembly;
mod pulse;
mod trust;
mod once;
mod seek;
mod readahead;
mod ledger;
mod failures;
mod flight;
mod cache;
mod recent;
mod background;
mod disk;
mod options;
mod stats;
mod gate;
mod lane;
mod payload;
mod queue;
mod shared;
mod finish;
mod write_behind;
mod promote_small;
mod look;
mod fetch;
mod bring;
mod ahead;
mod pass;
mod whereabouts;
mod blob;
mod reader;
#[cfg(test)]
mod tests;

pub use blob::BlobReader;
pub use block::BlockSize;
pub use disk::{DiskOptions, DiskStats, DiskTier};
pub use error::ReadError;
pub use options::{Promote, ReaderOptions};
pub use reader::Reader;
pub use stats::{SlowFetch, Stats};
pub use trust::Verify;
pub use whereabouts::{Tier, Whereabouts};

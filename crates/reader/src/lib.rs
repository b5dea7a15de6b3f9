//! Lazy reads of payloads, however far away: a read is positional and costs what it touches.
//!
//! [`Reader`] opens payloads of a [`Repository`](farseek_store::Repository); [`BlobReader`] reads
//! ranges of one. Memory, bytes in flight and requests at once are bounded; every block is
//! fetched once however many wait for it; nothing waits for a source that makes no progress.
//! Deliberately absent: paths, inodes, errno, and anything on disk.

mod answer;
mod assembly;
mod blob;
mod block;
mod cache;
mod error;
mod failures;
mod fetch;
mod flight;
mod gate;
mod lane;
mod options;
mod plan;
mod pulse;
mod reader;
mod shared;
mod stats;
#[cfg(test)]
mod tests;

pub use blob::BlobReader;
pub use block::BlockSize;
pub use error::ReadError;
pub use options::ReaderOptions;
pub use reader::Reader;
pub use stats::Stats;

//! What can be set on a file system.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use farseek_reader::Stats;

use crate::local::LocalOptions;
use crate::stats::VfsStats;
use crate::walk_ahead::WalkOptions;

/// 1980-01-01T00:00:00Z: the earliest time a zip archive made from a mount can hold.
const STABLE_TIME: Duration = Duration::from_secs(315_532_800);

/// How a [`Vfs`](crate::Vfs) behaves.
#[derive(Debug, Clone)]
pub struct VfsOptions {
    /// The owner of everything.
    pub uid: u32,
    /// The group of everything.
    pub gid: u32,
    /// Every time of every file: stable over mounts, or programs rebuild what they cache by it.
    pub time: SystemTime,
    /// Where payloads may be found as local files, for the kernel to read by itself.
    pub local: Option<LocalOptions>,
    /// How small files are loaded ahead of whoever walks the tree.
    pub walk: WalkOptions,
    /// The text of [`STATS_XATTR`](crate::STATS_XATTR); there is no such attribute without it.
    pub stats: Option<StatsText>,
    /// Whether the extended attributes are listed. An overlay copies what is listed to the files
    /// that it changes, where it would say of the new bytes what was true of the old ones. Who
    /// asks for an attribute by name is answered all the same.
    pub list_xattrs: bool,
}

impl Default for VfsOptions {
    /// Owned by root, at 1980-01-01T00:00:00Z, without local files.
    fn default() -> Self {
        Self {
            uid: 0,
            gid: 0,
            time: SystemTime::UNIX_EPOCH + STABLE_TIME,
            local: None,
            walk: WalkOptions::default(),
            stats: None,
            list_xattrs: true,
        }
    }
}

/// Puts what a mount has done into words, for other processes to read.
#[derive(Clone)]
pub struct StatsText(Arc<Write>);

type Write = dyn Fn(&VfsStats, &Stats) -> String + Send + Sync;

impl StatsText {
    /// The words that `write` finds. It must not wait, and the text must be shorter than 64 KiB:
    /// the kernel takes no longer attribute.
    pub fn new(write: impl Fn(&VfsStats, &Stats) -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }

    pub(crate) fn write(&self, vfs: &VfsStats, reader: &Stats) -> String {
        (self.0)(vfs, reader)
    }
}

impl fmt::Debug for StatsText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StatsText")
    }
}

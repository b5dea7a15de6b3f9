//! The mounts of this host, from the kernel's own list: no records to go stale.

use std::path::PathBuf;

use farseek_vfs::fuse::{MountEntry, read_mountinfo};

use crate::error::Result;

/// A mount of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarseekMount {
    /// Where it is.
    pub mountpoint: PathBuf,
    /// The environment it shows, as it was asked for.
    pub reference: String,
}

/// Every farseek mount this process can see, in the order they were made.
pub fn list() -> Result<Vec<FarseekMount>> {
    Ok(read_mountinfo()?
        .into_iter()
        .filter(MountEntry::is_farseek)
        .map(describe)
        .collect())
}

fn describe(entry: MountEntry) -> FarseekMount {
    let reference = entry
        .source
        .strip_prefix("farseek:")
        .unwrap_or(&entry.source)
        .to_owned();
    FarseekMount {
        mountpoint: entry.mountpoint,
        reference,
    }
}

//! Maps a file and reads one byte, in a process of its own: if the mount breaks down, the system
//! ends a process that touches the mapping, and it must not be the one that has to clean up.

#![expect(unsafe_code, reason = "mapping a file is what is to be shown")]

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result};
use memmap2::Mmap;

use crate::exit::Failure;

/// The byte at `offset` of the file at `path`, by way of `mmap`.
pub(super) fn byte_of(path: &Path, offset: u64) -> Result<u8> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    // SAFETY: the mapping is read-only and the file is part of a mount that never changes.
    let map = unsafe { Mmap::map(&file) };
    let map = map.with_context(|| format!("cannot map {}", path.display()))?;
    let byte = usize::try_from(offset)
        .ok()
        .and_then(|offset| map.get(offset).copied());
    byte.ok_or_else(|| Failure::not_found(format!("{} has no byte {offset}", path.display())))
}

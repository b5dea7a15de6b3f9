//! Reading files and directories that anyone may have put there.
//!
//! Nothing here waits for a fifo, takes a directory for a file, or reads without a limit.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use crate::error::{Result, StoreError};

/// Opens the regular file `path`, without waiting for whatever else may be there.
pub(crate) fn open_regular(path: &Path) -> Result<(File, u64)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(StoreError::io("open", path))?;
    let metadata = file.metadata().map_err(StoreError::io("look at", path))?;
    let size = regular_size(path, &metadata)?;
    Ok((file, size))
}

/// Bytes of what is at `path`, which must be a regular file.
pub(super) fn regular_size(path: &Path, metadata: &Metadata) -> Result<u64> {
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    Err(StoreError::Corrupt {
        location: path.display().to_string(),
        reason: "it is not a regular file".into(),
    })
}

/// The names in a directory that are UTF-8; none where it does not exist.
pub(super) fn names_in(path: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        entries => entries.map_err(StoreError::io("list", path))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::io("list", path))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}

/// Reads the regular file `path` of at most `limit` bytes; `None` where it is not there.
pub(super) fn read_small(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let (file, size) = match open_regular(path) {
        Err(StoreError::Io { source, .. }) if is_absent(&source) => return Ok(None),
        result => result?,
    };
    if size > limit {
        return Err(StoreError::Corrupt {
            location: path.display().to_string(),
            reason: format!("it has {size} bytes, more than the {limit} allowed"),
        });
    }
    let mut bytes = Vec::new();
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(StoreError::io("read", path))?;
    Ok(Some(bytes))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

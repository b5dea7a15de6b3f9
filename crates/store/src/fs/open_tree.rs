//! Removing a directory tree whose directories may forbid it: a render has the modes of what it
//! shows.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod};

use crate::error::{Result, StoreError};

/// No tree is deeper: a path in it would be too long for anybody.
const MAX_DEPTH: usize = 2048;

/// Removes the tree at `path`. Links are removed, never followed. Returns whether it was there.
pub(super) fn remove(path: &Path) -> Result<bool> {
    let opened = Dir::open(path, FLAGS, Mode::empty());
    match opened {
        Err(Errno::ENOENT) => return Ok(false),
        Err(errno) => return Err(StoreError::io("remove", path)(errno.into())),
        Ok(mut directory) => open(&mut directory, 0),
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        removed => removed
            .map(|()| true)
            .map_err(StoreError::io("remove", path)),
    }
}

const FLAGS: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Lets the owner of a directory and of those below it change them. Where that fails, the removal
/// says why.
fn open(directory: &mut Dir, depth: usize) {
    if fchmod(directory.as_fd(), Mode::S_IRWXU).is_err() || depth > MAX_DEPTH {
        return;
    }
    let names = directory.iter().flatten();
    let names: Vec<_> = names
        .map(|entry| entry.file_name().to_owned())
        .filter(|name| !matches!(name.to_bytes(), b"." | b".."))
        .collect();
    for name in names {
        // A directory that may not be read cannot be opened before its mode is changed by name;
        // those who make renders leave the owner's right to read.
        if let Ok(mut below) = Dir::openat(directory.as_fd(), name.as_c_str(), FLAGS, Mode::empty())
        {
            open(&mut below, depth + 1);
        }
    }
}

//! Removing a directory tree whose directories may forbid it: a render has the modes of what it
//! shows.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use nix::NixPath;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat};

use crate::error::{Result, StoreError};

/// No tree is deeper: a path in it would be too long for anybody.
const MAX_DEPTH: usize = 2048;

/// Removes the tree at `path`. Links are removed, never followed. Returns whether it was there.
pub(crate) fn remove(path: &Path) -> Result<bool> {
    match open_closed(AT_FDCWD, path) {
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

/// Opens a directory, also one that its owner may not read: its mode is changed first, by a
/// descriptor that needs no right to be had.
fn open_closed<P: NixPath + ?Sized>(at: BorrowedFd<'_>, path: &P) -> Result<Dir, Errno> {
    match Dir::openat(at, path, FLAGS, Mode::empty()) {
        Err(Errno::EACCES) => {}
        opened => return opened,
    }
    let closed = openat(at, path, FLAGS.union(OFlag::O_PATH), Mode::empty())?;
    let by_descriptor = format!("/proc/self/fd/{}", closed.as_raw_fd());
    fchmodat(
        AT_FDCWD,
        by_descriptor.as_str(),
        Mode::S_IRWXU,
        FchmodatFlags::FollowSymlink,
    )?;
    Dir::openat(at, path, FLAGS, Mode::empty())
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
        if let Ok(mut below) = open_closed(directory.as_fd(), name.as_c_str()) {
            open(&mut below, depth + 1);
        }
    }
}

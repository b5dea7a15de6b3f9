//! A directory of a repository that is open, with no link on the way there.
//!
//! Others may write to a repository, and put a link in the place of a directory between a look at it
//! and a removal in it, which would then be one elsewhere. The repository's own path is the user's
//! word, and may have links.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

/// An open directory.
#[derive(Debug)]
pub(super) struct Beneath {
    directory: OwnedFd,
}

impl Beneath {
    /// Opens the directory `below` in the repository `root`.
    ///
    /// # Errors
    /// It is not there, a link is on the way, or the system refuses.
    pub(super) fn open(root: &Path, below: &Path) -> io::Result<Self> {
        let root = File::open(root)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let directory = openat2(&root, below, flags, Mode::empty(), resolve)?;
        Ok(Self { directory })
    }

    /// A path that leads to `name` in what is open, as long as this lives and `/proc` is there.
    pub(super) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let directory = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
        Path::new(&directory).join(name.as_ref())
    }
}

//! Files that appear whole and stay: the one place where this repository writes.
//!
//! A [`Temp`] is written, given its mode, synced, and renamed into place; then the directory is
//! synced. The mode is set *before* the sync, so that a file that survives a power loss is one
//! that others may read. Whatever fails in between removes the temporary; a crash leaves it
//! under a name that nothing ever looks at.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::syncfs;
use uuid::Uuid;

use crate::error::{Result, StoreError};

/// Files that every user of a shared repository may read and replace, as SPFS has them.
pub(super) const SHARED_FILE: u32 = 0o666;

/// Directories that every user of a shared repository may write in, as SPFS has them.
const SHARED_DIRECTORY: u32 = 0o777;

/// From this many on, one `syncfs` costs less than an `fsync` each.
const MANY: usize = 64;

/// A file under a name of its own, removed when dropped unless it has been placed.
#[derive(Debug)]
pub(super) struct Temp {
    path: PathBuf,
    placed: bool,
}

impl Temp {
    /// Creates `path`, which must not exist.
    pub(super) fn create(path: PathBuf) -> Result<(Self, File)> {
        match Self::try_create(&path) {
            Ok(file) => Ok((
                Self {
                    path,
                    placed: false,
                },
                file,
            )),
            Err(source) => Err(StoreError::Io {
                action: "create",
                path,
                source,
            }),
        }
    }

    /// Creates a file of a new name in the directory `work`, which is made when missing.
    pub(super) fn create_in(work: &Path) -> Result<(Self, File)> {
        let path = work.join(Uuid::new_v4().to_string());
        match Self::try_create(&path) {
            Ok(file) => {
                return Ok((
                    Self {
                        path,
                        placed: false,
                    },
                    file,
                ));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => {
                return Err(StoreError::Io {
                    action: "create",
                    path,
                    source,
                });
            }
        }
        make_dir(work).map_err(StoreError::io("create", work))?;
        Self::create(path)
    }

    /// Takes the file at `source` over under a new name in the directory `work`: by rename where
    /// both are in one file system, otherwise as a copy, after which `source` is removed.
    pub(super) fn take_over(work: &Path, source: &Path) -> Result<(Self, File)> {
        let (temp, mut file) = Self::create_in(work)?;
        match fs::rename(source, &temp.path) {
            Ok(()) => file = File::open(&temp.path).map_err(StoreError::io("open", &temp.path))?,
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                let mut from = File::open(source).map_err(StoreError::io("open", source))?;
                io::copy(&mut from, &mut file).map_err(StoreError::io("copy", source))?;
                fs::remove_file(source).map_err(StoreError::io("remove", source))?;
            }
            Err(error) => return Err(StoreError::io("rename", source)(error)),
        }
        Ok((temp, file))
    }

    /// Ours alone until it is [`seal`]ed.
    fn try_create(path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
    }

    /// Where it is now.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Renames it to `destination`, over whatever file is there.
    pub(super) fn place(&mut self, destination: &Path) -> Result<()> {
        fs::rename(&self.path, destination).map_err(StoreError::io("create", destination))?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.placed
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "temporary file left behind");
        }
    }
}

/// Writes `bytes` to the new file `file` of `temp`.
pub(super) fn write(temp: &Temp, mut file: &File, bytes: &[u8]) -> Result<()> {
    file.write_all(bytes)
        .map_err(StoreError::io("write", temp.path()))
}

/// Gives a finished file its `mode`.
pub(super) fn seal(temp: &Temp, file: &File, mode: u32) -> Result<()> {
    file.set_permissions(Permissions::from_mode(mode))
        .map_err(StoreError::io("set the mode of", temp.path()))
}

/// What the names of files begin with that hold the beginning of a payload, for who goes on with
/// it; its digest follows. They lie where payloads are written.
pub(crate) const UPLOAD_PREFIX: &str = "upload-";

/// Waits until what was written to `file` is on the disk.
pub(super) fn sync(temp: &Temp, file: &File) -> Result<()> {
    file.sync_all().map_err(StoreError::io("sync", temp.path()))
}

/// Makes the directory `path` for everyone; its parent must be there. Returns whether it is new.
pub(super) fn make_dir(path: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(SHARED_DIRECTORY).create(path) {
        Ok(()) => {
            // The umask took bits away; without them the repository is merely less shared.
            if let Err(error) = fs::set_permissions(path, Permissions::from_mode(SHARED_DIRECTORY))
            {
                tracing::debug!(path = %path.display(), %error, "directory stays less shared");
            }
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes `path` and what is missing above it, each durable in its parent.
pub(crate) fn make_dirs(path: &Path) -> io::Result<()> {
    let made = match make_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let Some(parent) = path.parent() else {
                return Err(error);
            };
            make_dirs(parent)?;
            make_dir(path)?
        }
        result => result?,
    };
    match path.parent() {
        Some(parent) if made => try_sync_dir(parent),
        _ => Ok(()),
    }
}

/// Waits until the names in the directory `path` are on the disk.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    try_sync_dir(path).map_err(StoreError::io("sync", path))
}

fn try_sync_dir(path: &Path) -> io::Result<()> {
    // Some file systems have nothing to sync in a directory, and say so.
    match File::open(path)?.sync_all() {
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(()),
        result => result,
    }
}

/// Waits until the files and directories `paths`, all in the file system of `anchor`, are on the
/// disk.
pub(super) fn sync_each<P: AsRef<Path>>(paths: &[P], anchor: &Path) -> Result<()> {
    if paths.len() >= MANY && sync_file_system(anchor)? {
        return Ok(());
    }
    paths.iter().try_for_each(|path| sync_dir(path.as_ref()))
}

/// Waits until everything in the file system of `anchor` is on the disk.
pub(crate) fn sync_all_of(anchor: &Path) -> Result<()> {
    if !sync_file_system(anchor)? {
        nix::unistd::sync();
    }
    Ok(())
}

/// Returns whether the system can do that at all.
fn sync_file_system(anchor: &Path) -> Result<bool> {
    let directory = File::open(anchor).map_err(StoreError::io("open", anchor))?;
    match syncfs(&directory) {
        Ok(()) => Ok(true),
        Err(Errno::ENOSYS | Errno::EOPNOTSUPP) => Ok(false),
        Err(errno) => Err(StoreError::io("sync the file system of", anchor)(
            errno.into(),
        )),
    }
}

/// Makes `path` as young as a file written now, so that a clean does not take it for abandoned.
/// Returns whether that could be done.
pub(crate) fn refresh(path: &Path) -> bool {
    let now = TimeSpec::UTIME_NOW;
    utimensat(AT_FDCWD, path, &now, &now, UtimensatFlags::FollowSymlink).is_ok()
}

//! A directory by its descriptor, in which things are made by one name each.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::error::{Result, StoreError};

/// 1980-01-01T00:00:00Z, as every mount has it.
const TIME: Timespec = Timespec {
    tv_sec: 315_532_800,
    tv_nsec: 0,
};

/// That for both times of a file.
const TIMES: Timestamps = Timestamps {
    last_access: TIME,
    last_modification: TIME,
};

/// What is being made is for nobody else.
const OURS_ALONE: Mode = Mode::RWXU;

const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

const CREATE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory {
    descriptor: OwnedFd,
    /// Where it was when it was opened, for messages.
    path: PathBuf,
}

impl Directory {
    /// Opens the directory at `path`, which a person has named, and which may be a link to one.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OPEN.difference(OFlags::NOFOLLOW);
        let descriptor = fs::openat(CWD, path, flags, Mode::empty());
        Ok(Self {
            descriptor: descriptor.map_err(|errno| StoreError::io("open", path)(errno.into()))?,
            path: path.to_owned(),
        })
    }

    /// Makes `name` another name of the file at `from`; of a link there, of the link.
    pub(super) fn link(&self, from: &Path, name: &str) -> Result<(), Errno> {
        fs::linkat(CWD, from, &self.descriptor, one(name)?, AtFlags::empty())
    }

    /// Where its entry `name` is, for messages.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the directory `name`, where nothing is; or where `existing` is allowed: then a
    /// directory stays, and anything else makes room for it.
    pub(super) fn make(&self, name: &str, existing: bool) -> Result<()> {
        let make = || fs::mkdirat(&self.descriptor, one(name)?, OURS_ALONE);
        let is_directory = || {
            let stat = self.stat(name);
            stat.is_ok_and(|stat| fs::FileType::from_raw_mode(stat.st_mode).is_dir())
        };
        let made = match make() {
            Err(Errno::EXIST) if existing && is_directory() => Ok(()),
            Err(Errno::EXIST) if existing => self.unlink(name).and_then(|()| make()),
            made => made,
        };
        made.map_err(self.failed("create", name))
    }

    /// Opens the directory `name` in it: one that [`make`](Self::make) has made, or found where
    /// that is allowed. Lets its owner do everything in it; others keep what rights they had.
    pub(super) fn enter(&self, name: &str, existing: bool) -> Result<Self> {
        let open = || fs::openat(&self.descriptor, one(name)?, OPEN, Mode::empty());
        let descriptor = open().map_err(self.failed("open", name))?;
        let directory = Self {
            descriptor,
            path: self.path_of(name),
        };
        if existing {
            let opened = directory.open_to_owner();
            opened.map_err(self.failed("change the mode of", name))?;
        }
        Ok(directory)
    }

    fn open_to_owner(&self) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(fs::fstat(&self.descriptor)?.st_mode & 0o7777);
        match mode.contains(OURS_ALONE) {
            true => Ok(()),
            false => fs::fchmod(&self.descriptor, mode | OURS_ALONE),
        }
    }

    /// Makes the file `name`, which must not be there.
    pub(super) fn create(&self, name: &str) -> Result<File, Errno> {
        let mode = Mode::RUSR | Mode::WUSR;
        fs::openat(&self.descriptor, one(name)?, CREATE, mode).map(File::from)
    }

    /// Makes the symbolic link `name`, which must not be there.
    pub(super) fn symlink(&self, target: &[u8], name: &str) -> Result<(), Errno> {
        fs::symlinkat(target, &self.descriptor, one(name)?)
    }

    /// Dates the link `name`.
    pub(super) fn date_symlink(&self, name: &str) -> Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match fs::utimensat(&self.descriptor, name, &TIMES, flags) {
            // Some file systems have no times of links.
            Err(Errno::OPNOTSUPP) => Ok(()),
            dated => dated.map_err(self.failed("set the times of", name)),
        }
    }

    /// What `name` is; of a link, the link.
    pub(super) fn stat(&self, name: &str) -> Result<Stat, Errno> {
        fs::statat(&self.descriptor, one(name)?, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Removes `name`, which must not be a directory.
    pub(super) fn unlink(&self, name: &str) -> Result<(), Errno> {
        fs::unlinkat(&self.descriptor, one(name)?, AtFlags::empty())
    }

    /// Gives the directory its mode, where it has one, when all that is in it is there, and its
    /// times, where they are to be those of a mount.
    pub(super) fn finish(&self, mode: Option<u32>, dated: bool) -> Result<()> {
        if let Some(mode) = mode {
            let set = fs::fchmod(&self.descriptor, Mode::from_raw_mode(mode & 0o7777));
            set.map_err(self.failed("set the mode of", ""))?;
        }
        if dated {
            let set = fs::futimens(&self.descriptor, &TIMES);
            set.map_err(self.failed("set the times of", ""))?;
        }
        Ok(())
    }

    /// Maps a failure over the entry `name`, for `map_err`.
    pub(super) fn failed(
        &self,
        action: &'static str,
        name: &str,
    ) -> impl FnOnce(Errno) -> StoreError {
        let path = match name {
            "" => self.path.clone(),
            name => self.path_of(name),
        };
        move |errno| StoreError::io(action, path)(errno.into())
    }
}

/// Gives a finished file its mode, and its times, where they are to be those of a mount.
pub(super) fn finish_file(file: &File, mode: u32, dated: bool) -> Result<(), Errno> {
    // Writing takes set-user-ID away: the mode comes last.
    fs::fchmod(file, Mode::from_raw_mode(mode & 0o7777))?;
    match dated {
        true => fs::futimens(file, &TIMES),
        false => Ok(()),
    }
}

/// A name that stays in its directory. Those of a manifest are checked when it is decoded; this is
/// where it would matter.
fn one(name: &str) -> Result<&str, Errno> {
    match name {
        "" | "." | ".." => Err(Errno::INVAL),
        _ if name.bytes().any(|byte| matches!(byte, b'/' | 0)) => Err(Errno::INVAL),
        _ => Ok(name),
    }
}

//! The directory in a repository that keeps what was changed in a runtime:
//! `durable_edits/<name>`.
//!
//! Others may write to a repository, and put something else in the place of a directory between a
//! look at it and its use: changes of root's runtime would then go wherever they like. So each of
//! its two names is opened in the directory before it, following no link; what is open is looked
//! at; and everything is done in what is open, whatever has its name by then. The repository's own
//! path is the user's word, and may have links.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use crate::private;

/// Which directory it is, whatever leads there: what one process has locked is what another writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeptId {
    device: u64,
    inode: u64,
}

impl fmt::Display for KeptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device, self.inode)
    }
}

impl KeptId {
    /// From the text that it is shown as.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (device, inode) = text.split_once(':')?;
        Some(Self {
            device: device.parse().ok()?,
            inode: inode.parse().ok()?,
        })
    }
}

/// A directory of changes that is open, and this user's alone to write to.
#[derive(Debug)]
pub(crate) struct Kept {
    directory: File,
}

impl Kept {
    /// Opens `place`, which is made if need be, with the directory it is in.
    ///
    /// # Errors
    /// A link is in the way, others may write to it, or the system refuses.
    pub(crate) fn make(place: &Path) -> io::Result<Self> {
        let (root, all, name) = names(place)?;
        let root = File::open(root)?;
        make(&root, all, Mode::from_raw_mode(0o777))?;
        let all = open(&root, all)?;
        make(&all, name, Mode::from_raw_mode(0o755))?;
        let directory = open(&all, name)?;
        private::check_open(&directory, place)?;
        Ok(Self { directory })
    }

    /// Opens `place`, which is there.
    ///
    /// # Errors
    /// As [`make`](Self::make).
    pub(crate) fn open(place: &Path) -> io::Result<Self> {
        let (root, all, name) = names(place)?;
        let directory = open(&open(&File::open(root)?, all)?, name)?;
        private::check_open(&directory, place)?;
        Ok(Self { directory })
    }

    /// Opens `place`, which was `id` when it was locked.
    ///
    /// # Errors
    /// As [`open`](Self::open); and where it is another by now.
    pub(crate) fn open_same(place: &Path, id: KeptId) -> io::Result<Self> {
        let kept = Self::open(place)?;
        match kept.id()? == id {
            true => Ok(kept),
            false => Err(io::Error::other(format!(
                "{} has been replaced by another directory meanwhile",
                place.display()
            ))),
        }
    }

    /// Which one it is.
    pub(crate) fn id(&self) -> io::Result<KeptId> {
        let metadata = self.directory.metadata()?;
        Ok(KeptId {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    /// A path that leads to what is open, as long as this lives, and as long as `/proc` is there.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.directory.as_raw_fd()).into()
    }

    /// Opens a file in it for writing, which is made if need be.
    ///
    /// # Errors
    /// It is a link, or the system refuses.
    pub(crate) fn file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        Ok(openat(&self.directory, name, flags, mode)?.into())
    }
}

/// Removes the directory `place` of changes with all that is in it. What is not there is no error.
///
/// # Errors
/// A link is in the way, or the system refuses.
pub fn remove_kept(place: &Path) -> io::Result<()> {
    let (root, all, name) = names(place)?;
    let opened = File::open(root).and_then(|root| {
        let all = open(&root, all)?;
        let directory = open(&all, name)?;
        Ok((all, directory))
    });
    let (all, directory) = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let inside = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    for entry in fs::read_dir(inside)? {
        crate::upper::remove(&entry?.path())?;
    }
    match unlinkat(&all, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The repository, the name of the directory of all changes, and that of one runtime's.
fn names(place: &Path) -> io::Result<(&Path, &OsStr, &OsStr)> {
    let parts = || {
        let all = place.parent()?;
        Some((all.parent()?, all.file_name()?, place.file_name()?))
    };
    parts().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn make(parent: &File, name: &OsStr, mode: Mode) -> io::Result<()> {
    match mkdirat(parent, name, mode) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a directory, following no link.
fn open(parent: &File, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_is_open_is_used_whatever_has_its_name_by_then() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("durable_edits/name");
        let kept = Kept::make(&place).unwrap();
        Kept::make(&place).unwrap();
        let foreign = root.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::rename(&place, root.path().join("aside")).unwrap();
        symlink(&foreign, &place).unwrap();
        fs::create_dir(kept.path().join("upper")).unwrap();
        kept.file("lock").unwrap();
        assert!(root.path().join("aside/upper").is_dir());
        assert!(root.path().join("aside/lock").is_file());
        assert_eq!(fs::read_dir(&foreign).unwrap().count(), 0);
        assert!(Kept::make(&place).is_err());
        assert!(remove_kept(&place).is_err());
    }

    #[test]
    fn what_was_locked_is_what_is_opened() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("durable_edits/name");
        assert!(Kept::open(&place).is_err());
        let id = Kept::make(&place).unwrap().id().unwrap();
        assert_eq!(KeptId::parse(&id.to_string()), Some(id));
        assert_eq!(Kept::open_same(&place, id).unwrap().id().unwrap(), id);
        fs::rename(&place, root.path().join("aside")).unwrap();
        Kept::make(&place).unwrap();
        let said = Kept::open_same(&place, id).unwrap_err().to_string();
        assert!(said.contains("replaced"), "{said}");
        assert_eq!(KeptId::parse(""), None);
    }

    #[test]
    fn no_link_is_followed_and_nothing_of_others_is_used() {
        let root = tempfile::tempdir().unwrap();
        let (all, foreign) = (
            root.path().join("durable_edits"),
            root.path().join("foreign"),
        );
        fs::create_dir_all(foreign.join("name")).unwrap();
        fs::write(foreign.join("name/file"), "theirs").unwrap();
        symlink(&foreign, &all).unwrap();
        assert!(Kept::make(&all.join("name")).is_err());
        assert!(remove_kept(&all.join("name")).is_err());
        assert!(foreign.join("name/file").exists());
        fs::remove_file(&all).unwrap();
        fs::create_dir_all(all.join("open")).unwrap();
        fs::set_permissions(all.join("open"), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Kept::make(&all.join("open")).is_err());
        for outside in ["", "/", "name"] {
            assert!(Kept::make(Path::new(outside)).is_err(), "{outside:?}");
        }
    }

    #[test]
    fn what_was_kept_goes_with_its_links_but_not_what_those_lead_to() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("durable_edits/name");
        remove_kept(&place).unwrap();
        let kept = Kept::make(&place).unwrap();
        let closed = kept.path().join("work/work");
        fs::create_dir_all(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        let file = root.path().join("file");
        fs::write(&file, "mine").unwrap();
        symlink(&file, kept.path().join("link")).unwrap();
        remove_kept(&place).unwrap();
        assert!(!place.exists() && file.exists());
    }
}
